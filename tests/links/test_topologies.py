"""However buses are joined, each message crosses once, and in order."""

from __future__ import annotations

import pytest

from tests.links.books import Books
from tests.links.stage import Stage, chain, meet, mesh, star

pytest.importorskip("zenoh")


def exchange(books: Books) -> None:
    """All with all, and nothing is lost or doubled."""
    books.opened()
    for one, two in books.pairs():
        one.publish(20)
        one.ask(two.site.name)
        one.command(two.site.name)
    books.close()
    books.all_well()


@pytest.mark.smoke
def test_three_buses_in_a_triangle(stage: Stage) -> None:
    sites = stage.sites("berlin", "paris", "rome")
    books = Books(*sites)
    mesh(*sites)
    meet(*sites)
    exchange(books)


def test_a_chain_of_links_that_carry_for_each_other(stage: Stage) -> None:
    sites = stage.sites("berlin", "paris", "rome")
    books = Books(*sites)
    chain(*sites)
    meet(*sites)
    exchange(books)


def test_a_star_around_a_router(stage: Stage) -> None:
    sites = stage.sites("berlin", "paris", "rome")
    books = Books(*sites)
    star(stage.router(), *sites)
    meet(*sites)
    exchange(books)


def test_a_ring_of_links_that_carry_for_each_other(stage: Stage) -> None:
    berlin, paris, rome = sites = stage.sites("berlin", "paris", "rome")
    books = Books(*sites)
    berlin.join(mode="router")
    paris.join(berlin, mode="router")
    rome.join(berlin, paris, mode="router")
    meet(*sites)
    exchange(books)
