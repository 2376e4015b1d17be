"""Death in Python code: a process is killed at each line of attaching and leaving, at every few of
serving, taking over and ending a bus, others in each run. Whoever comes next finds its way, and
nothing is left."""

from __future__ import annotations

import pytest

import shmbus
from shmbus.testing import BusProcess, eventually, in_shm, run_python

pytestmark = pytest.mark.slow

SWEEP = '''
import os, random, signal, sys, traceback
import ringbuf, shmbus

bus, what, stride = sys.argv[1], sys.argv[2], int(sys.argv[3])
OURS = tuple(os.path.dirname(package.__file__) for package in (shmbus, ringbuf))
HANDLERS = "signals.py"  # looks at each signal; what it changes ends with the process


def die_at(line):
    """Let this process kill itself at that line of ours, counted from here."""

    def trace(frame, event, argument):
        nonlocal line
        file = frame.f_code.co_filename
        if not file.startswith(OURS) or os.path.basename(file) == HANDLERS:
            return None
        if event == "line":
            line -= 1
            if line == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def attach(line):
    die_at(line)
    endpoint = shmbus.attach(bus, name="victim", timeout=60)
    sys.settrace(None)
    endpoint.close()


def leave(line):
    endpoint = shmbus.attach(bus, name="victim", timeout=60)
    endpoint.subscribe("x")
    die_at(line)
    endpoint.close()


def serve(line):
    die_at(line)
    served = shmbus.serve(bus)
    sys.settrace(None)
    served.close()


def take_over(line):
    die_at(line)
    served = shmbus.serve(bus)
    sys.settrace(None)
    served.close(handover=True)


def end(line):
    served = shmbus.serve(bus)
    served.attach("victim").subscribe("x")
    die_at(line)
    served.close()


line, status = random.randint(1, stride), None
while status != 0:
    child = os.fork()
    if child == 0:
        try:
            globals()[what](line)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status and not os.WIFSIGNALED(status):
        sys.exit(f"after a kill at line {line}")
    line += stride
print(line)
'''


def sweep(bus: str, what: str, stride: int = 1) -> None:
    """Have `what` done again and again by processes that are killed meanwhile, one line later each
    time, until one gets through."""
    lines = run_python(SWEEP, bus, what, stride, timeout=280)
    assert int(lines) > 15 * stride


@pytest.mark.parametrize("what", ["attach", "leave"])
def test_an_endpoint_killed_at_any_line_leaves_nothing(bus: shmbus.Bus, what: str) -> None:
    before = in_shm(bus.name)
    sweep(bus.name, what)

    def cleared() -> bool:
        bus.attach("victim").close()
        return in_shm(bus.name) == before

    eventually(cleared)


def test_what_the_killed_left_at_the_door_goes_with_the_bus(bus_name: str) -> None:
    with shmbus.serve(bus_name):
        sweep(bus_name, "attach", 19)
    assert in_shm(bus_name) == []


@pytest.mark.parametrize(("what", "stride"), [("serve", 19), ("end", 19)])
def test_a_dispatcher_killed_at_any_line_does_not_stop_the_next(
    bus_name: str, what: str, stride: int
) -> None:
    sweep(bus_name, what, stride)
    shmbus.serve(bus_name).close()
    assert in_shm(bus_name) == []


def test_successors_killed_at_any_line_lose_nothing(bus_process: BusProcess) -> None:
    with (
        shmbus.attach(bus_process.name, name="reader", reconnect=True) as reader,
        shmbus.attach(bus_process.name, name="writer", reconnect=True) as writer,
    ):
        reader.subscribe("x")
        bus_process.kill()
        for number in range(100):
            writer.publish("x", number)
        sweep(bus_process.name, "take_over", 19)
        bus_process.start()
        writer.publish("x", 100)
        got: list[int] = []
        while not got or got[-1] != 100:
            got += [message.payload for message in reader.receive_many(101, 60)]
        assert got == list(range(101))
