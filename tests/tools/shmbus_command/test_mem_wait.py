"""mem: who holds how much of /dev/shm; wait: until somebody receives what is sent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import shmbus
from ringbuf import Segment
from shmbus.shared import layout, names
from shmbus.testing import BusProcess, eventually, in_shm
from shmbus.views import shared_memory

from .conftest import Ran

Command = Callable[..., Ran]


def bytes_of(files: list[str]) -> int:
    return sum(os.stat(f"/dev/shm/{file}").st_blocks * 512 for file in files)


# mem --------------------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.bus(in_bytes=65536, out_bytes=32768, reply_bytes=16384)
def test_mem_says_who_holds_how_much(bus: shmbus.Bus, shmbus_command: Command) -> None:
    few = shmbus.Settings(in_bytes=4096, out_bytes=4096, reply_bytes=4096)
    with bus.attach("small", settings=few), bus.attach("large") as large:
        large.subscribe("a", lambda message: None)
        ran = shmbus_command("mem", bus.name, "--json")
        assert ran.code == 0
        holders = ran.json["holders"]
        assert [(h["what"], h["name"]) for h in holders] == [
            ("bus", ""),
            ("endpoint", "large"),
            ("endpoint", "small"),
        ]
        assert all(h["pid"] == os.getpid() for h in holders)
        assert sum(h["bytes"] for h in holders) == bytes_of(in_shm(bus.name))
        assert sum(h["files"] for h in holders) == len(in_shm(bus.name))
        rings = {ring: facts["capacity"] for ring, facts in holders[1]["rings"].items()}
        assert rings == {
            "incoming": 65536,
            "incoming_replies": 16384,
            "incoming_urgent": 8192,
            "outgoing": 32768,
            "outgoing_replies": 16384,
        }
        assert holders[1]["bytes"] > sum(rings.values())
        lines = shmbus_command("mem", bus.name).lines
    assert lines[0].startswith("/dev/shm: ")
    assert lines[1].startswith(f"bus {bus.name}: ")
    assert [line.split()[0] for line in lines[2:6]] == ["WHO", "the", "large", "small"]
    assert "64 KiB, 0%" in lines[4]


def test_mem_counts_all_that_is_in_dev_shm(bus: shmbus.Bus, bus_name: str) -> None:
    file = Path(f"/dev/shm/mem-of-somebody-{os.getpid()}")
    before = shared_memory()
    try:
        file.write_bytes(bytes(100_000))
        found = shared_memory()
    finally:
        file.unlink()
    assert found.other_files >= 1
    assert found.other_bytes >= 100_000
    assert (found.size or 0) >= found.used
    assert any(holder.bus == bus_name for holder in before.holders)


def test_mem_says_that_removed_names_are_not_seen(shmbus_command: Command) -> None:
    def told() -> bool:
        ran = shmbus_command("mem")
        assert ran.code == 0
        return "without a name: " in ran.out

    file = Path(f"/dev/shm/mem-removed-{os.getpid()}")
    with file.open("wb") as kept:
        kept.write(bytes(1 << 20))
        kept.flush()
        file.unlink()
        # What others make or remove between the two readings of a look is taken for more or less.
        eventually(lambda: shared_memory().unseen >= 1 << 20)
        eventually(told)


def test_mem_of_a_bus_that_cannot_be_read_is_counted_as_the_bus(shmbus_command: Command) -> None:
    name = f"cli-mem-{os.getpid()}"
    file = Path("/dev/shm") / names.names_of(name).bus_segment
    kind = layout.SegmentKind.BUS
    try:
        with Segment.create(file.name, 8192, kind=kind, layout=layout.LAYOUT ^ 1):
            found = shared_memory()
    finally:
        file.unlink(missing_ok=True)
    held = [(h.what, h.bytes) for h in found.holders if h.bus == name]
    left = [left.bytes for left in found.leavings if left.bus == name]
    assert held == [("bus", 8192)] or left == [8192]


def test_what_a_dead_bus_left_is_told_as_that(
    bus_process: BusProcess, shmbus_command: Command
) -> None:
    bus_process.kill()
    ran = shmbus_command("mem", bus_process.name)
    assert ran.code == 0
    assert f"left of bus {bus_process.name}: " in ran.out
    assert "shmbus doctor --fix frees it" in ran.out
    (left,) = shmbus_command("mem", bus_process.name, "--json").json["leavings"]
    assert left["bytes"] == bytes_of(in_shm(bus_process.name))


def test_mem_of_a_bus_that_is_not_there_is_told(shmbus_command: Command) -> None:
    ran = shmbus_command("mem", "no-such-bus")
    assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)


@pytest.mark.bus(prefetch=1, block_timeout=60)
def test_mem_shows_a_backlog(bus: shmbus.Bus, shmbus_command: Command) -> None:
    go_on = threading.Event()

    with bus.attach("busy") as busy, bus.attach("sender") as sender:
        busy.subscribe("job", lambda message: go_on.wait(60), group="workers")
        busy.start()
        for _ in range(5):
            sender.publish("job")
        eventually(lambda: any(b.waiting for b in bus.backlogs()))
        ran = shmbus_command("mem", bus.name)
        go_on.set()
    assert "backlog of group workers" in ran.out


# wait -------------------------------------------------------------------------------------------


def later(do: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(0.1, do)
    timer.start()
    return timer


@pytest.mark.smoke
def test_wait_is_quiet_and_returns_when_somebody_receives_it(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with bus.attach("server") as server:
        timer = later(lambda: server.handle("calc.*", lambda message: None))
        ran = shmbus_command("wait", "-b", bus.name, "calc.add", "--timeout", "60s")
        assert (ran.code, ran.out, ran.err) == (0, "", "")
        timer.join()
        ran = shmbus_command("wait", "-b", bus.name, "calc.>", "--json")
        assert (ran.json["pattern"], ran.json["endpoints"]) == ("calc.>", ["server"])
        assert {e.name for e in bus.endpoints()} == {"server"}


def test_wait_tells_by_its_exit_code_that_nobody_came(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with bus.attach("subscriber") as subscriber:
        subscriber.subscribe("calc.add", lambda message: None)
        ask = ("wait", "-b", bus.name, "calc.add", "--timeout", "0")
        assert shmbus_command(*ask).code == 0
        assert shmbus_command(*ask, "--role", "subscribe").code == 0
        for more, found in ((["--role", "handle"], "0 of 1"), (["--receivers", 2], "1 of 2")):
            ran = shmbus_command(*ask, *more)
            assert ran.code == 4
            assert "wait longer (--timeout)" in ran.err
            assert ran.err.count("\n") == 1
            assert f"{found} receivers of 'calc.add'" in ran.err


def test_wait_waits_for_the_bus_and_for_the_next_dispatcher(
    bus_process: BusProcess, shmbus_command: Command
) -> None:
    with shmbus.attach(bus_process.name, name="server", reconnect=True) as server:
        server.handle("calc.add", lambda message: None)
        bus_process.kill()
        ran = shmbus_command("wait", "-b", bus_process.name, "calc.add", "--timeout", "0")
        assert (ran.code, ran.err.count("\n")) == (3, 1)
        assert "its dispatcher is dead" in ran.err
        timer = later(bus_process.start)
        assert shmbus_command("wait", "-b", bus_process.name, "calc.add").code == 0
        timer.join()


def test_wait_for_a_bus_that_never_comes_says_so(shmbus_command: Command) -> None:
    ran = shmbus_command("wait", "-b", "no-such-bus", "calc.add", "--timeout", "50ms")
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    assert "no bus 'no-such-bus' runs" in ran.err
