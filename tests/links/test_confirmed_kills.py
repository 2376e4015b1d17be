"""Links that are killed at any moment, with `shmbus link`, which starts them again: of what is
confirmed nothing is lost and nothing comes twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

import shmbus
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


def send_all(send: Callable[[int], None], count: int, sites: list[Site], kills: int) -> None:
    """Send so many, while links are killed."""
    choice = random.Random(count)

    def kill() -> None:
        for _ in range(kills):
            time.sleep(choice.random() * 0.2)
            kill_link(choice.choice(sites))

    killing = threading.Thread(target=kill)
    killing.start()
    n = 0
    while killing.is_alive() or n < count:
        send(n)
        n += 1
        time.sleep(0.002)
    killing.join()
    send_all.sent = n  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("group", [None, "workers"])
def test_nothing_is_lost_and_nothing_comes_twice(stage: Stage, group: str | None) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    run_link(stage, berlin)
    run_link(stage, paris, berlin)
    there, here = Receiver(paris), berlin.attach("here")
    if group is None:
        there.handle("job.do")
        send = partial(here.send, "job.do")
    else:
        there.join("job.do", group)
        send = partial(here.publish, "job.do")
    await_link(berlin, "job.do", "handle" if group is None else "subscribe")
    send_all(send, 500, [berlin, paris], 4)
    there.await_all(send_all.sent)  # type: ignore[attr-defined]
