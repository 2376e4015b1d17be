"""Hosts of supervisors that end: by themselves, or by Ctrl-C."""

from __future__ import annotations

import os
import signal

import pytest

from shmbus.supervisor.mark import marked
from shmbus.testing import eventually, run_python, start_python
from tests.supervisor.conftest import Supervise, of, shell

DEAF = """
    import sys, shmbus
    deaf = shmbus.Process(
        name="deaf", command=("sh", "-c", "trap '' TERM; echo up; sleep 1000; sleep 1000"),
        stop_timeout=1000,
    )
    up = lambda line: print(line.text, flush=True)
    with shmbus.supervise([deaf], bus=sys.argv[1], output=up) as supervisor:
        try:
            supervisor.wait()
        except KeyboardInterrupt:
            print("ends", flush=True)
"""


@pytest.mark.slow
def test_a_second_ctrl_c_kills_what_does_not_end(bus_name: str) -> None:
    with start_python(DEAF, bus_name) as host:
        assert host.line() == "up"
        os.kill(host.pid, signal.SIGINT)
        assert host.line() == "ends"
        eventually(lambda: marked(bus_name))
        os.kill(host.pid, signal.SIGINT)
        assert host.wait() != 0
    assert marked(bus_name) == []


@pytest.mark.slow
def test_a_program_that_ends_stops_its_processes(bus_name: str) -> None:
    code = """
        import sys, shmbus
        sleeper = shmbus.Process(name="sleeper", command=("sleep", "1000"))
        supervisor = shmbus.supervise([sleeper], bus=sys.argv[1])
        print(supervisor.wait_started(30))
    """
    assert run_python(code, bus_name) == "True\n"
    assert marked(bus_name) == []


@pytest.mark.slow
def test_a_forked_child_stops_nothing(bus_name: str) -> None:
    code = """
        import os, sys, shmbus
        sleeper = shmbus.Process(name="sleeper", command=("sleep", "1000"))
        with shmbus.supervise([sleeper], bus=sys.argv[1]) as supervisor:
            supervisor.wait_started(30)
            if not (pid := os.fork()):
                sys.exit()  # leaves the block
            os.waitpid(pid, 0)
            print(supervisor.status()[0].state)
    """
    assert run_python(code, bus_name) == "running\n"


def test_signals_that_the_host_has_blocked_end_its_processes_all_the_same(
    supervise: Supervise,
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        supervisor = supervise(shell("one", "exec sleep 1000", stop_timeout=0.2))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert supervisor.wait_started(timeout=30)
    supervisor.stop("one")
    assert supervisor.wait(timeout=30)
    assert of(supervisor, "one").signal == "SIGTERM"
