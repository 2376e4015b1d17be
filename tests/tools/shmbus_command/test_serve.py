"""`python -m shmbus NAME` and `shmbus serve NAME`: a process that serves a bus."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from pathlib import Path

import pytest

import shmbus
from ringbuf import layout_text
from shmbus.options import OPTIONS
from shmbus.shared.layout import LAYOUT, PREFIX, offset
from shmbus.shared.names import names_of

from .conftest import COMMAND, Start

COMMANDS = {
    "without extras": [sys.executable, "-P", "-m", "shmbus"],
    "shmbus serve": [*COMMAND, "serve"],
}


@pytest.fixture
def name() -> str:
    return f"host-{secrets.token_hex(4)}"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_signal_ends_the_bus_cleanly(
    command: list[str], number: signal.Signals, name: str, start: Start
) -> None:
    with start(name, command=command) as process:
        assert process.stdout is not None
        assert f"bus {name} is served by process {process.pid}" in process.stdout.readline()
        with shmbus.attach(name, name="guest", timeout=60) as guest:
            guest.publish("anything")
            process.send_signal(number)
            _, printed = process.communicate(timeout=60)
            with pytest.raises(shmbus.BusDown):
                guest.receive(timeout=60)
    assert (process.returncode, printed) == (0, "")
    assert not [file for file in os.listdir("/dev/shm") if f":{name}:" in file]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_settings_are_options(command: list[str], name: str, start: Start) -> None:
    wanted = shmbus.Settings(
        in_bytes=16384,
        out_bytes=8192,
        reply_bytes=32768,
        max_endpoints=3,
        max_requests=4,
        block_timeout=0.25,
        stall_after=7.5,
        prefetch=5,
        backlog_bytes=65536,
        max_deliveries=6,
        history=3,
        retain_bytes=1 << 20,
        pool_bytes=1 << 20,
        pool_total_bytes=1 << 21,
        loans=7,
        mailbox_bytes=131072,
    )
    assert all(getattr(wanted, option.setting) != option.default for option in OPTIONS)
    unit = {option.setting: "s" if option.unit == "TIME" else "" for option in OPTIONS}
    given = [f"{o.name}={getattr(wanted, o.setting)}{unit[o.setting]}" for o in OPTIONS]
    with start(name, *given, command=command) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with shmbus.observe(name) as view:
            info = view.info()
            head = view._registry.head[0]
        with shmbus.attach(name) as guest:
            assert guest._seat.settings.max_requests == 4
        process.terminate()
    found = (info.in_bytes, info.out_bytes, info.reply_bytes, info.slots, info.prefetch)
    assert found == (16384, 8192, 32768, 3, 5)
    assert info.backlog_bytes == 65536
    assert int(head["max_deliveries"]) == 6
    assert (int(head["block_timeout_ns"]), int(head["stall_after_ns"])) == (250000000, 7500000000)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_second_dispatcher_is_told_who_serves_already(
    command: list[str], name: str, start: Start
) -> None:
    with shmbus.serve(name), start(name, command=command) as process:
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 1
    assert printed.count("\n") == 1
    assert f"served by process {os.getpid()}" in printed


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_bus_of_another_layout_is_replaced_only_where_it_is_asked_for(
    command: list[str], name: str, start: Start
) -> None:
    bus = shmbus.serve(name)
    user = bus.attach("user")
    bus.close(handover=True)
    with Path("/dev/shm", names_of(name).bus_segment).open("r+b") as file:
        file.seek(offset(PREFIX, "layout"))
        file.write(b"other...")
    with start(name, command=command) as process:
        _, printed = process.communicate(timeout=60)
    assert process.returncode != 0
    assert layout_text(LAYOUT) in printed
    assert layout_text(int.from_bytes(b"other...", "little")) in printed
    with start("--replace", name, command=command) as process:
        assert process.stdout is not None
        assert f"bus {name} is served" in process.stdout.readline()
        with pytest.raises(shmbus.BusDown, match="took the place"):
            user.receive(60)
        user.close()
        shmbus.attach(name).close()
        process.terminate()
        process.communicate(timeout=60)
    assert not [file for file in os.listdir("/dev/shm") if f":{name}:" in file]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_bad_name_is_told_in_one_line(command: list[str], start: Start) -> None:
    with start("a:b", command=command) as process:
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 2
    assert printed.startswith("shmbus: 'a:b' cannot name a bus")
    assert printed.count("\n") == 1
