"""Links that are killed at any moment, with `shmbus link`, which starts them again: of what is
confirmed nothing is lost and nothing comes twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from functools import partial

import pytest

import shmbus
from shmbus.events import Undeliverable
from shmbus.links.sure import HELD
from shmbus.testing import Program, eventually
from tests.links.stage import Site, Stage
from tests.links.test_confirmed import Receiver, await_link

COMMAND = [sys.executable, "-P", "-c", "from shmbus_command import main; main()"]


def run_link(stage: Stage, site: Site, *to: Site) -> Program:
    """``shmbus link``, until the end of the test."""
    options = ["--listen", f"tcp/127.0.0.1:{site.port}"]
    for other in to:
        options += ["--connect", f"tcp/127.0.0.1:{other.port}"]
    command = [*COMMAND, "link", site.bus, "--site", site.name, "--space", stage.space, *options]
    command += ["--export", ">", "--import", ">", "--delivery", "confirmed", "--detection", "1s"]
    return stage.keep(Program(f"link of {site.name!r}", command, bus=site.bus))


def pid_of_link(site: Site) -> int | None:
    """Of the process in which its link runs."""
    with shmbus.observe(site.bus) as bus:
        return next((e.pid for e in bus.endpoints() if e.name == "@link" and e.routed), None)


def kill_link(site: Site) -> None:
    """Kill it once it is there, and wait until another is."""
    pid = eventually(partial(pid_of_link, site), f"{site.name} has a link")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid_of_link(site) not in (None, pid), f"{site.name} has another link")


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_comes_twice(stage: Stage) -> None:
    berlin, paris = sites = stage.sites("berlin", "paris")
    run_link(stage, berlin)
    run_link(stage, paris, berlin)
    commands, events, here = Receiver(paris), Receiver(paris), berlin.attach("here")
    commands.handle("job.do")
    events.join("job.new", "workers")
    await_link(berlin, "job.do", "handle")
    await_link(berlin, "job.new", "subscribe")
    choice = random.Random()

    def kill() -> None:
        for _ in range(3):
            kill_link(choice.choice(sites))

    kills = threading.Thread(target=kill)
    kills.start()
    sent = 0
    while kills.is_alive() or sent < 500:
        here.send("job.do", sent)
        here.publish("job.new", sent)
        sent += 1
        time.sleep(0.002)  # a pace, so that there is something under way at any time
    kills.join()
    commands.await_all(sent)
    events.await_all(sent)


@pytest.mark.slow
def test_what_a_link_has_that_is_killed_with_its_parent_becomes_dead_letters(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    there, here = Receiver(paris), berlin.attach("here")
    there.handle("job.do")
    paris.join(delivery="confirmed")
    parent = run_link(stage, berlin, paris)
    await_link(berlin, "job.do", "handle")
    assert paris.link is not None
    paris.link.close()
    child = eventually(partial(pid_of_link, berlin), "berlin has a link")
    here.subscribe("$bus.undeliverable", payload_type=Undeliverable)
    sent = HELD + 20  # some are held, others wait
    for n in range(sent):
        here.send("job.do", n)

    def held() -> bool:
        with shmbus.observe(berlin.bus) as bus:
            found = [each for each in bus.endpoints() if each.name == "@link.paris"]
        return [(each.held, each.untouched) for each in found] == [(HELD, sent - HELD)]

    eventually(held, "the link has them")
    parent.pause()
    os.kill(child, signal.SIGKILL)
    parent.kill()
    letters = [here.receive(60) for _ in range(sent)]
    assert sorted(m.payload.payload[-1] for m in letters if m is not None) == list(range(sent))
    with shmbus.observe(berlin.bus) as bus:
        assert bus.health().dead_letters == sent
    assert not there.came
