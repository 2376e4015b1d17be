"""A network that fails: what was lost is counted, nothing is doubled, and it goes on by itself."""

from __future__ import annotations

import pytest

from shmbus.testing import eventually
from tests.links.books import Books
from tests.links.stage import Stage, meet

pytest.importorskip("zenoh")

DELAY = 0.2


@pytest.mark.slow
def test_a_cut_under_load_is_noticed_counted_and_healed(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    proxy = stage.proxy(berlin)
    books = Books(berlin, paris)
    berlin.join()
    paris.join(proxy, listen=[])
    books.opened()
    books.work()
    for _ in range(2):
        books.progress()
        proxy.cut()
        eventually(lambda: not berlin.sees() and not paris.sees(), "the cut is noticed")
        proxy.heal()
        meet(berlin, paris)
    books.progress()
    books.rest()
    books.close()


@pytest.mark.slow
def test_connections_that_break_under_load(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    proxy = stage.proxy(berlin)
    books = Books(berlin, paris)
    berlin.join()
    paris.join(proxy, listen=[])
    books.opened()
    books.work()
    for _ in range(5):
        books.progress()
        proxy.reset()
    books.progress()
    books.rest()
    meet(berlin, paris)
    books.close()


@pytest.mark.slow
def test_a_long_way_loses_nothing_and_is_known_as_long(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    proxy = stage.proxy(berlin)
    proxy.delay = DELAY
    books = Books(berlin, paris)
    link = berlin.join(detection="10s")
    paris.join(proxy, listen=[], detection="10s")
    books.opened()
    books.work()
    books.progress()
    books.rest()
    books.close()
    books.all_well()
    (peer,) = link.status().peers
    assert peer.round_trip is not None
    assert peer.round_trip >= 2 * DELAY


@pytest.mark.slow
def test_packets_that_are_lost_cost_no_message(stage: Stage) -> None:
    berlin, paris = sites = stage.sites("berlin", "paris")
    stage.namespaces(*sites)
    books = Books(*sites)
    berlin.start_link(detection="10s")
    paris.start_link(berlin, detection="10s")
    books.opened()
    there = [site.namespace for site in sites if site.namespace is not None]
    for namespace in there:
        namespace.lose(2)
    books.work()
    eventually(lambda: all(each.dropped() > 9 for each in there), "packets are lost both ways")
    books.progress()
    books.rest()
    books.close()
    books.all_well()


@pytest.mark.slow
def test_a_cable_is_pulled_and_put_in_again_under_load(stage: Stage) -> None:
    berlin, paris, rome = sites = stage.sites("berlin", "paris", "rome")
    stage.namespaces(*sites)
    books = Books(*sites)
    berlin.start_link()
    paris.start_link(berlin)
    rome.start_link(berlin, paris)
    books.opened()
    books.work()
    books.progress()
    assert rome.namespace is not None
    rome.namespace.set("down")
    for site in (berlin, paris):
        eventually(lambda site=site: not site.has("rome"), f"{site.name} notices")  # type: ignore[misc]
    books.progress("berlin", "paris")
    rome.namespace.set("up")
    books.opened()
    books.progress()
    books.rest()
    books.close()
