"""Supervisors that are killed at any moment: the next one knows every child."""

from __future__ import annotations

import random
import time

import pytest

from shmbus.supervisor.mark import marked
from shmbus.testing import eventually, run_python, start_python
from tests.supervisor.conftest import Supervise, shell

HOST = """
    import sys, shmbus
    from shmbus.supervisor import Backoff
    from tests.supervisor.conftest import shell
    often = Backoff(first=0.001, longest=0.001, limit=1000000)
    processes = [shell(f"p{n}", f"sleep 0.0{n}", backoff=often) for n in range(1, 5)]
    processes.append(shell("stays", "sleep 1000"))
    with shmbus.supervise(processes, bus=sys.argv[1], output=print) as supervisor:
        print("up", flush=True)
        supervisor.wait()
"""


@pytest.mark.slow
def test_none_is_doubled_or_left_whenever_it_is_killed(supervise: Supervise, bus_name: str) -> None:
    chance, stays = random.Random(5), set[int]()
    for _ in range(4):
        with start_python(HOST, bus_name) as host:
            host.line()
            eventually(lambda: "stays" in [one.mark.name for one in marked(bus_name)])
            time.sleep(chance.uniform(0, 0.05))  # no wait: the moment of the kill is to be any
            host.kill()
        leaders = [one for one in marked(bus_name) if one.leads]
        names = [one.mark.name for one in leaders]
        assert len(names) == len(set(names))
        stays |= {one.pid for one in leaders if one.mark.name == "stays"}
    assert len(stays) == 1
    supervisor = supervise(shell("stays", "sleep 1000"))
    assert supervisor.wait_started(timeout=30)
    assert [each.pid for each in supervisor.status()][:1] == list(stays)


def test_a_child_that_has_not_executed_its_program_yet_is_waited_for() -> None:
    code = """
        import os, time
        from shmbus.supervisor.mark import Mark, marked
        bus = f"none-{os.getpid()}"
        pid = os.fork()
        if not pid:
            time.sleep(0.1)
            env = {"SHMBUS_PROCESS": str(Mark(bus, "one", "", 0)), "PATH": os.environ["PATH"]}
            os.execvpe("sleep", ["sleep", "1000"], env)
        found = marked(bus)
        os.kill(pid, 9)
        print([one.mark.name for one in found if one.pid == pid])
    """
    assert run_python(code).strip() == "['one']"


def test_programs_that_fork_without_end_hold_nobody_up(supervise: Supervise, bus_name: str) -> None:
    code = """
        import os, time
        print("up", flush=True)
        while True:
            if not os.fork():
                time.sleep(0.1)  # as long as a program's child may take that executes none
                os._exit(0)
            time.sleep(0.02)
            while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
                pass
    """
    with start_python(code) as program:
        program.line()
        assert supervise(shell("one", "sleep 1000")).wait_started(timeout=30)
