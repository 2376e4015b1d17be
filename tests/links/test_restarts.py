"""Links, dispatchers and routers that are killed under load, and start again."""

from __future__ import annotations

import pytest

from tests.links.books import Books
from tests.links.stage import Stage, meet, mesh, star

pytest.importorskip("zenoh")

KILLS = 3


@pytest.mark.slow
def test_a_link_is_killed_and_started_again(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    books = Books(berlin, paris)
    paris.start_link()
    berlin.join(paris)
    books.opened()
    books.work()
    for _ in range(KILLS):
        books.progress()
        paris.restart_link()
    books.progress()
    books.rest()
    books.close(counted=False)
    written, got = books["berlin"].published, books["paris"].got["berlin"]
    assert books["paris"].lost["berlin"] >= written - len(got)  # some may have come all the same


@pytest.mark.slow
def test_a_dispatcher_is_killed_and_started_again(stage: Stage) -> None:
    berlin = stage.site("berlin")
    paris = stage.site("paris", process=True)
    books = Books(berlin, paris)
    mesh(berlin, paris)
    books.opened()
    books.work()
    assert paris.process is not None
    for _ in range(KILLS):
        books.progress()
        paris.process.restart()
    books.progress()
    books.rest()
    books.close()


@pytest.mark.slow
def test_a_router_is_killed_and_started_again(stage: Stage) -> None:
    sites = stage.sites("berlin", "paris")
    books = Books(*sites)
    router = stage.router()
    star(router, *sites)
    books.opened()
    books.work()
    for _ in range(KILLS):
        books.progress()
        router.restart()
        meet(*sites)
    books.progress()
    books.rest()
    books.close()
