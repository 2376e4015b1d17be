"""get: the values that a bus keeps, from the shell."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

import shmbus
from shmbus.shared.names import SHM
from shmbus.testing import Attach, StartWorker, eventually, in_shm

from .conftest import Ran

Command = Callable[..., Ran]


@pytest.fixture
def kept(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    source.publish("state.door", "open", retain=True)
    source.publish("state.raw", b"\x00\xff", retain=True)
    source.publish("state.door", {"open": False}, retain=True)
    eventually(lambda: bus.info().retained == 3)


@pytest.mark.smoke
@pytest.mark.usefixtures("kept")
def test_the_values_of_the_types_that_match_are_printed_in_their_order(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    ran = shmbus_command("get", "-b", bus.name, "state.door")
    assert (ran.code, ran.err) == (0, "")
    first, second = ran.out.splitlines()
    assert first.split(" ", 1)[1] == 'state.door source "open"'
    assert second.split(" ", 1)[1] == 'state.door source {"open":false}'


@pytest.mark.usefixtures("kept")
def test_as_json_they_say_who_published_them_and_when(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    ran = shmbus_command("get", "-b", bus.name, "--json")
    door, raw, _ = (msgspec.json.decode(line) for line in ran.out.splitlines())
    assert (door["type"], door["source"], door["payload"]) == ("state.door", "source", "open")
    assert door["number"] < raw["number"]
    assert (raw["payload"], raw["payload_base64"]) == (None, "AP8=")


@pytest.mark.usefixtures("kept")
def test_raw_they_are_payloads_and_nothing_else(bus: shmbus.Bus, shmbus_command: Command) -> None:
    ran = shmbus_command("get", "-b", bus.name, "state.door", "--raw", "-D", "\\n")
    assert ran.out == 'open\n{"open":false}\n'


def replace_all_the_time(endpoint: shmbus.Endpoint) -> None:
    for letter in itertools.cycle("abcdefg"):
        endpoint.publish("state", letter * 200_000, retain=True)


@pytest.mark.slow
@pytest.mark.parametrize("bus_settings", [shmbus.Settings(history=1, pool_bytes=1_600_000)])
def test_a_large_value_that_is_replaced_all_the_time_is_printed_whole(
    bus: shmbus.Bus, worker: StartWorker, shmbus_command: Command
) -> None:
    worker(replace_all_the_time, name="source")
    eventually(lambda: bus.info().retained)
    for _ in range(20):
        ran = shmbus_command("get", "-b", bus.name, "state", "--raw")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out == ran.out[:1] * 200_000


def test_of_what_could_not_be_copied_it_says_how_many_there_were(
    bus: shmbus.Bus, attach: Attach, shmbus_command: Command
) -> None:
    source = attach("source")
    source.publish("large", bytes(300_000), retain=True)
    source.publish("small", 1, retain=True)
    eventually(lambda: bus.info().retained == 2)
    (pool,) = (name for name in in_shm(bus.name) if "pool:" in name)
    (SHM / pool).unlink()
    ran = shmbus_command("get", "-b", bus.name, "--raw")
    assert (ran.code, ran.out) == (0, "1")
    assert "of large, 1 not printed" in ran.err
    ran = shmbus_command("get", "-b", bus.name, "large")
    assert (ran.code, ran.out) == (1, "")
    assert "shmbus sub large --history 1" in ran.err


def test_where_there_is_none_the_exit_code_is_1(bus: shmbus.Bus, shmbus_command: Command) -> None:
    ran = shmbus_command("get", "-b", bus.name, "state.>")
    assert (ran.code, ran.out) == (1, "")
    assert "keeps no value of a type that state.> matches" in ran.err
    ran = shmbus_command("get", "-b", bus.name, "--json")
    assert (ran.code, ran.out, ran.err) == (1, "", "")


@pytest.mark.usefixtures("kept")
def test_mem_and_describe_tell_of_them(bus: shmbus.Bus, shmbus_command: Command) -> None:
    assert "values that are kept" in shmbus_command("mem", bus.name).out
    described = shmbus_command("describe", "-b", bus.name).out
    assert "3 values, 10 of a type at most; 768 B of 64 MiB; 0 evicted" in described
    with bus.attach("late") as late:
        late.subscribe("state.>", history=4)
        described = shmbus_command("describe", "late", "-b", bus.name).out
        assert "subscribes state.>, 4 of what was kept first" in described


def test_what_is_published_to_be_kept_is_had_by_who_subscribes_later(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    for value in ("1", "2"):
        assert shmbus_command("pub", "-b", bus.name, "state.n", value, "--retain").code == 0
    eventually(lambda: bus.info().retained == 2)
    ran = shmbus_command("sub", "-b", bus.name, "state.>", "--history", "1", "-n", "1", "--json")
    message = msgspec.json.decode(ran.out)
    assert (message["payload"], message["retained"]) == (2, True)
    ran = shmbus_command(
        "sub", "-b", bus.name, "state.>", "--history=3", "--latest", "-n1", "--json"
    )
    assert msgspec.json.decode(ran.out)["payload"] == 2
    assert shmbus_command("pub", "-b", bus.name, "state.n", "--retain").code == 0
    eventually(lambda: bus.info().retained == 0)


def test_what_a_subscription_cannot_be_at_the_same_time_is_refused(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    for more in ("--lossless", "--group=g"):
        ran = shmbus_command("sub", "-b", bus.name, "a", "--latest", more)
        assert ran.code == 2
        assert "exclude each other" in ran.err
    assert shmbus_command("sub", "-b", bus.name, "a", "--group=g", "--history=1").code == 2
    assert shmbus_command("sub", "-b", bus.name, "a", "--latest", "--timeout", "0.1").code == 0


def test_an_array_is_shown_in_short_and_listed_as_json(
    bus: shmbus.Bus, attach: Attach, shmbus_command: Command
) -> None:
    source = attach("source")
    source.publish("a", np.eye(2, dtype=np.float32), retain=True)
    source.publish("b", {"frame": np.zeros((40, 50), np.uint8)}, retain=True)
    source.publish("c", np.array([1 + 2j, np.nan]), retain=True)
    eventually(lambda: bus.info().retained == 3)
    ran = shmbus_command("get", "-b", bus.name, ">")
    assert [line.split(" ", 3)[3] for line in ran.lines] == [
        "float32 (2, 2): 1.0 0.0 0.0 1.0",
        '{"frame":"uint8 (40, 50): 0 0 0 0 0 0 0 0 .."}',
        "complex128 (2,): (1+2j) (nan+0j)",
    ]
    ran = shmbus_command("get", "-b", bus.name, ">", "--json")
    assert [msgspec.json.decode(line)["payload"] for line in ran.lines] == [
        [[1.0, 0.0], [0.0, 1.0]],
        {"frame": {"dtype": "|u1", "shape": [40, 50], "first": [0] * 8}},
        ["(1+2j)", "(nan+0j)"],
    ]
    ran = shmbus_command("get", "-b", bus.name, "b", "--raw")  # for programs: all of it
    found = ran.json["frame"]
    assert (found["dtype"], found["shape"]) == ("|u1", [40, 50])
    assert base64.b64decode(found["base64"]) == bytes(2000)
