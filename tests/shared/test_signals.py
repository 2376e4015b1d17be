"""Signals wait while a bus or an endpoint ends, and none is lost."""

import pytest

from shmbus.testing import in_shm, run_python

HEAD = """
import os, signal, sys, threading, time
import shmbus
NAME = sys.argv[1]
"""


@pytest.mark.parametrize("handler", ["default_int_handler", "lambda *_: bus.close()"])
def test_signals_do_not_tear_the_end_of_a_bus_apart(bus_name: str, handler: str) -> None:
    run_python(
        HEAD
        + f"""
from signal import default_int_handler
signal.signal(signal.SIGINT, {handler})
bus = shmbus.serve(NAME, settings=shmbus.Settings(in_bytes=4096, out_bytes=4096, block_timeout=60))
with bus.attach("deaf") as deaf, bus.attach("e") as ep:
    deaf.subscribe("x")
    try:
        while True:
            ep.publish("x", bytes(500), timeout=0.1)
    except shmbus.errors.QueueFull:
        pass
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        bus.close(timeout=0.5)  # its ring is full and the receiver takes nothing
        timer.join()
    except KeyboardInterrupt:
        pass
""",
        bus_name,
    )
    assert in_shm(bus_name) == []


@pytest.mark.smoke
def test_a_signal_that_waits_for_the_end_of_a_bus_reaches_an_event_loop_once(bus_name: str) -> None:
    printed = run_python(
        HEAD
        + """
import asyncio
async def main():
    loop, told = asyncio.get_running_loop(), []
    loop.add_signal_handler(signal.SIGTERM, told.append, "told")
    settings = shmbus.Settings(in_bytes=4096, out_bytes=4096, block_timeout=60)
    bus = shmbus.serve(NAME, settings=settings)
    with bus.attach("deaf") as deaf, bus.attach("e") as ep:
        deaf.subscribe("x")
        for _ in range(6):
            ep.publish("x", bytes(900))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        bus.close(timeout=0.5)
    while not told:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    print(told)
asyncio.run(main())
""",
        bus_name,
    )
    assert printed == "['told']\n"


@pytest.mark.slow
def test_no_signal_that_waits_for_the_end_of_a_bus_is_lost(bus_name: str) -> None:
    printed = run_python(
        HEAD
        + """
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: print("told"))
bus = shmbus.serve(NAME, settings=shmbus.Settings(in_bytes=4096, out_bytes=4096, block_timeout=60))
with bus.attach("deaf") as deaf, bus.attach("e") as ep:
    deaf.subscribe("x")
    for _ in range(6):
        ep.publish("x", bytes(900))
    for number in (signal.SIGINT, signal.SIGTERM):
        threading.Timer(0.1 * number / 2, os.kill, (os.getpid(), number)).start()
    bus.close(timeout=2)
""",
        bus_name,
    )
    assert printed == "told\n"


def test_ctrl_c_as_a_bus_has_just_ended_loses_no_signal(bus_name: str) -> None:
    printed = run_python(
        HEAD
        + """
from signal import SIGINT, SIGTERM, default_int_handler, getsignal
signal.signal(SIGTERM, print)
bus, restore = shmbus.serve(NAME), signal.signal
def interrupted(number, handler):
    before = restore(number, handler)
    if handler is default_int_handler:
        signal.raise_signal(SIGINT)
    return before
signal.signal = interrupted
try:
    bus.close()
except KeyboardInterrupt:
    print(getsignal(SIGINT) is default_int_handler, getsignal(SIGTERM) is print)
""",
        bus_name,
    )
    assert printed == "True True\n"


@pytest.mark.slow
def test_what_a_signal_s_handler_raises_comes_when_the_endpoint_is_closed(bus_name: str) -> None:
    printed = run_python(
        HEAD
        + """
def late(*_):
    raise RuntimeError("late")
signal.signal(signal.SIGALRM, late)
bus = shmbus.serve(NAME, settings=shmbus.Settings(in_bytes=4096, out_bytes=4096, block_timeout=60))
with bus.attach("deaf") as deaf:
    ep = bus.attach("e")
    deaf.subscribe("x")
    for _ in range(6):
        ep.publish("x", bytes(900))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        ep.close()  # its ring is full and the receiver takes nothing
    except RuntimeError as why:
        print(why, ep)
    bus.close(timeout=0)
""",
        bus_name,
    )
    shown = f"late <endpoint 'e' on bus {bus_name!r}, closed>\n"
    assert (printed, in_shm(bus_name)) == (shown, [])


def test_handlers_that_are_not_python_s_own_are_left_alone(bus_name: str) -> None:
    printed = run_python(
        HEAD
        + """
del sys.modules["signal"], sys.modules["_signal"]  # the new copy takes ours for C's
import signal
assert signal.getsignal(signal.SIGINT) is None
from shmbus.shared.signals import awaited
with awaited(), shmbus.serve(NAME):
    print("served")
""",
        bus_name,
    )
    assert printed == "served\n"


@pytest.mark.parametrize("disposition", ["SIG_IGN", "SIG_DFL"])
def test_a_process_that_is_started_uninterrupted_gets_its_parent_s_signals(
    bus_name: str, disposition: str
) -> None:
    run_python(
        HEAD
        + f"""
import subprocess
from shmbus.shared.signals import uninterrupted
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.{disposition})
child = [sys.executable, "-c", "import signal; print(*map(signal.getsignal, (2, 15)))"]
before = subprocess.check_output(child)
with uninterrupted():
    assert subprocess.check_output(child) == before
""",
        bus_name,
    )
