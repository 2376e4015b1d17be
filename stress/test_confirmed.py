"""Buses joined by links whose delivery is confirmed, while links and dispatchers are killed.

Whatever is killed, in whatever order: each command and each event for a group is done once.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

pytest.importorskip("zenoh")

import shmbus
from shmbus.testing import TIMEOUT, eventually
from tests.links.stage import Site, Stage
from tests.links.test_confirmed import Receiver
from tests.links.test_confirmed_kills import pid_of_link, run_link

Fault = Callable[[], object]


class Receivers:
    """Of some sites, which share what comes."""

    def __init__(self, *sites: Site) -> None:
        self._sites = sites
        self._all = [Receiver(site) for site in sites]
        for each in self._all:
            each.came = self._all[0].came

    def handle(self, type: str, of: Site) -> None:
        for each in self._all:
            each.handle(type)
        self._await_links(type, of)

    def join(self, type: str, of: Site) -> None:
        for each in self._all:
            each.join(type, "workers")
        self._await_links(type, of)

    def _await_links(self, type: str, of: Site) -> None:
        wanted = {f"@link.{site.name}" for site in self._sites}

        def there() -> bool:
            with shmbus.observe(of.bus) as bus:
                return wanted <= {each.endpoint for each in bus.route(type).receivers}

        eventually(there, f"the link of {of.name} takes {type} for all")

    def await_all(self, count: int) -> None:
        self._all[0].await_all(count)


@pytest.fixture
def stage(bus_name: str) -> Iterator[Stage]:
    with Stage(bus_name) as stage:
        yield stage


class Kills:
    """What may die, and is there again when the call returns, or some time later."""

    def __init__(self, sites: list[Site], chance: random.Random) -> None:
        self._sites, self._chance = sites, chance
        self._clock = threading.Event()

    def kill_link(self) -> None:
        self._kill(self._chance.choice(self._sites))

    def kill_both_links(self) -> None:
        for site in self._sites:
            self._kill(site)

    def kill_dispatcher(self) -> None:
        self._restart(self._chance.choice(self._sites))

    def kill_link_and_dispatcher(self) -> None:
        site = self._chance.choice(self._sites)
        self._kill(site)
        self._restart(site)

    def kill_dispatcher_and_link(self) -> None:
        site = self._chance.choice(self._sites)
        pid = pid_of_link(site)
        self._restart(site)
        if pid is not None:
            _kill(pid)

    def _kill(self, site: Site) -> None:
        if (pid := pid_of_link(site)) is not None:  # else it is being started again
            _kill(pid)

    def _restart(self, site: Site) -> None:
        assert site.process is not None
        site.process.restart()

    def any(self) -> Fault:
        self._clock.wait(self._chance.random() ** 2 * 3)  # more often while one begins
        return self._chance.choice(
            (
                self.kill_link,
                self.kill_both_links,
                self.kill_dispatcher,
                self.kill_link_and_dispatcher,
                self.kill_dispatcher_and_link,
            )
        )


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_whoever_is_killed_all_is_done_once(
    stage: Stage, chance: random.Random, long: bool
) -> None:
    berlin, paris, rome = sites = [stage.site(n, process=True) for n in ("berlin", "paris", "rome")]
    for number, site in enumerate(sites):
        run_link(stage, site, *sites[:number])
    here, there = berlin.attach("here"), paris.attach("here")
    jobs, news, back = (Receivers(paris, rome), Receivers(paris, rome), Receivers(berlin))
    jobs.handle("job.do", berlin)
    news.join("job.new", berlin)
    back.handle("job.done", paris)
    kills, sent, ended = Kills(sites, chance), 0, threading.Event()

    def kill() -> None:
        try:
            for _ in range(100 if long else 8):
                fault = kills.any()
                print(fault.__name__)
                fault()
        finally:
            ended.set()

    killing = threading.Thread(target=kill)
    killing.start()
    while not ended.wait(0.004):  # a pace, so that there is something under way at any time
        here.send("job.do", sent, timeout=TIMEOUT)
        here.publish("job.new", sent, timeout=TIMEOUT)
        there.send("job.done", sent, timeout=TIMEOUT)
        sent += 1
    killing.join()
    for each in (jobs, news, back):
        each.await_all(sent)
