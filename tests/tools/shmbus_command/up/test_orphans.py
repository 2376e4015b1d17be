"""Orphans are reaped, and nobody's child is stolen."""

from __future__ import annotations

import os
import subprocess
import sys

from shmbus_command.up.orphans import Orphans, children

LEAVES_AN_ORPHAN = """
import subprocess, sys, time
from shmbus_command.up.orphans import Orphans, adopt, children

adopt()
subprocess.run(["sh", "-c", "sleep 0.01 &"], check=True)  # its child outlives it
orphans = Orphans(lambda: [], patience=0.05)
end = time.monotonic() + 30
reaped = []
while not reaped and time.monotonic() < end:
    reaped = orphans.reap()
    time.sleep(0.005)
assert len(reaped) == 1, reaped
assert children() == []
"""


def test_an_orphan_is_reaped_when_it_has_ended() -> None:
    subprocess.run([sys.executable, "-c", LEAVES_AN_ORPHAN], check=True, timeout=60)


LEAVES_TWO = """
import subprocess
from shmbus_command.up.orphans import Orphans, adopt, children

adopt()
deaf = "trap : TERM; while :; do sleep 600; done"  # it has a child, which outlives it
subprocess.run(["sh", "-c", f"setsid sleep 600 & setsid sh -c '{deaf}' &"], check=True)
while len(children()) < 2:
    pass
Orphans(list, patience=0.2).end()
assert children() == []
"""


def test_at_the_end_those_that_are_left_are_ended_with_all_that_they_leave() -> None:
    subprocess.run([sys.executable, "-c", LEAVES_TWO], check=True, timeout=60)


def test_a_child_whose_starter_waits_for_it_is_left_to_that() -> None:
    orphans = Orphans(list, patience=3600)
    with subprocess.Popen(["sh", "-c", "exit 3"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid in children()
        assert orphans.reap() == []
        assert child.wait(60) == 3


def test_a_process_of_the_supervisor_is_never_reaped() -> None:
    with subprocess.Popen(["sh", "-c", "exit 3"]) as child:
        orphans = Orphans(lambda: [child.pid], patience=0)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert orphans.reap() == []
        assert child.wait(60) == 3


def test_what_runs_is_not_reaped() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert Orphans(list, patience=0).reap() == []
        child.kill()
