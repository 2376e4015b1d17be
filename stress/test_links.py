"""Buses joined by links, while links, dispatchers, a router and the network between them fail.

Whatever happens, in whatever order: each request ends once, nothing is served, done or received
twice, each site gets what others publish in its order, and all goes on by itself.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("zenoh")

from tests.links.books import Books
from tests.links.proxy import Proxy
from tests.links.stage import DETECTION, Site, Stage

NAMES = ("berlin", "paris", "rome")
Fault = Callable[[], object]


@pytest.fixture
def stage(bus_name: str) -> Iterator[Stage]:
    with Stage(bus_name) as stage:
        yield stage


class Troubles:
    """What can go wrong, and is well again when the call returns."""

    def __init__(self, sites: list[Site], proxies: list[Proxy], chance: random.Random) -> None:
        self._sites, self._proxies, self._chance = sites, proxies, chance
        self._clock = threading.Event()

    def kill_link(self) -> None:
        self._chance.choice(self._sites).restart_link()

    def freeze_link(self) -> None:
        linked = self._chance.choice(self._sites).linked
        assert linked is not None
        linked.pause()
        self._pass()
        linked.resume()

    def kill_dispatcher(self) -> None:
        process = self._chance.choice(self._sites).process
        assert process is not None
        process.restart()

    def break_connections(self) -> None:
        self._chance.choice(self._proxies).reset()

    def cut(self) -> None:
        proxy = self._chance.choice(self._proxies)
        proxy.cut()
        self._pass()
        proxy.heal()

    def throttle(self) -> None:
        proxy = self._chance.choice(self._proxies)
        proxy.rate, proxy.delay = 200e3, 0.1
        self._pass()
        proxy.rate, proxy.delay = None, 0.0

    def _pass(self) -> None:
        """For a time that a link may notice, or may not."""
        self._clock.wait(self._chance.random() * 2 * DETECTION)

    def any(self) -> Fault:
        return self._chance.choice(
            (
                self.kill_link,
                self.freeze_link,
                self.kill_dispatcher,
                self.break_connections,
                self.cut,
                self.throttle,
            )
        )


@pytest.mark.parametrize("shape", ["mesh", "star"])
def test_whatever_fails_the_books_balance(
    stage: Stage, chance: random.Random, long: bool, shape: str
) -> None:
    sites = [stage.site(name, process=True) for name in NAMES]
    books = Books(*sites)
    if shape == "mesh":
        proxies = [stage.proxy(site) for site in sites]
        for number, site in enumerate(sites):
            site.start_link(*proxies[:number], zenoh={"scouting/gossip/enabled": False})
    else:
        router = stage.router()
        proxies = [stage.keep(Proxy(router.port)) for _ in sites]
        for site, proxy in zip(sites, proxies, strict=True):
            site.start_link(proxy, listen=[], mode="client")
    books.opened()
    books.work(pause=0.01)
    troubles = Troubles(sites, proxies, chance)
    for _ in range(200 if long else 8):
        fault = troubles.any()
        print(fault.__name__)
        fault()
        if chance.random() < 0.3:
            books.progress()
    books.progress()
    books.rest()
    books.opened()
    books.close(counted=False)
