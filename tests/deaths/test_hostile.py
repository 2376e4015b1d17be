"""An endpoint that writes what it must not: it is quarantined, gets Evicted, and harms no other."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from functools import partial
from typing import Any

import hypothesis
import numpy as np
import pytest
from forger import DATA, EVENT, REPLIES, Forger, record
from hypothesis import strategies as st

import shmbus
from shmbus import errors
from shmbus.shared import layout, names, patterns
from shmbus.testing import Attach, MakeRecorder, StartWorker, eventually, in_shm
from tests.by_hand import entry

NEVER = threading.Event()


def lie(forger: Forger, how: str) -> None:
    if how == "head out of bounds":
        forger.up["outgoing"][DATA]["head"] = 1 << 40
    elif how == "head unaligned":
        forger.up["outgoing"][DATA]["head"] += 4
    elif how == "record too long":
        forger.push(DATA, record(EVENT, "x", b"", length=1 << 30))
    elif how == "type longer than its record":
        forger.push(DATA, record(EVENT, "x", b"", type_length=200))
    elif how == "an event among the replies":
        forger.push(REPLIES, record(EVENT, "x", b""))
    elif how == "a word of the bus's own":
        forger.push(DATA, record(EVENT, "$bus.endpoint.down", b""))
    elif how == "interests out of bounds":
        forger.interests["bytes"] = 1 << 40
        forger.up["outgoing"][DATA]["interests_version"] += 1
    elif how == "tail backwards":
        forger.up["incoming"][DATA]["tail"] = 1 << 40
    forger.ring_bell()


LIES = (
    "head out of bounds",
    "head unaligned",
    "record too long",
    "type longer than its record",
    "an event among the replies",
    "a word of the bus's own",
    "interests out of bounds",
    "tail backwards",
)


def misbehave(endpoint: shmbus.Endpoint, how: str) -> str:
    endpoint.subscribe("news")
    endpoint.publish("here")
    eventually(lambda: next(e for e in attached(endpoint) if e.name == "liar").forwarded == 1)
    lie(Forger(endpoint), how)
    eventually(lambda: endpoint.name not in {e.name for e in attached(endpoint)})
    try:
        endpoint.publish("more")
    except errors.BusError as why:
        return type(why).__name__
    return "nothing"


def attached(endpoint: shmbus.Endpoint) -> list[shmbus.views.EndpointInfo]:
    return [info for info in endpoint.bus.endpoints() if info.state == "attached"]


@pytest.mark.bus(
    in_bytes=4096, out_bytes=4096, reply_bytes=4096, block_timeout=60.0
)  # longer than its garbage may take
@pytest.mark.parametrize("how", LIES)
def test_who_writes_what_it_must_not_is_put_off_the_bus_and_told(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker, how: str
) -> None:
    here, downs, news = recorder("here"), recorder("$bus.endpoint.down"), recorder("news")
    liar = worker(misbehave, how, name="liar")
    here.wait()
    publisher = attach("publisher")
    for n in range(100):
        publisher.publish("news", n)
    assert liar.result() in ("Evicted", "RingCorrupt")
    (down,) = downs.wait(where=lambda m: m.payload["name"] == "liar")
    assert down.payload["reason"] == "quarantined"
    assert bus.health().violations == 1
    assert [m.payload for m in news.wait(100)] == list(range(100))
    eventually(lambda: "liar" not in {e.name for e in bus.endpoints()})
    attach("liar")


WRONG_BLOCKS: dict[str, dict[str, int]] = {
    "nothing wrong": {},
    "before its pool's memory": {"offset": 4096},
    "beyond its pool": {"offset": 1 << 40},
    "in the midst of a page": {"offset": layout.POOL_DATA + 8},
    "longer than its pool": {"length": (1 << 64) - 4096},
    "empty": {"length": 0},
    "another record's": {"use": 8 | 1},
    "no block of any pool": {"index": layout.BLOCKS},
    "of a pool that is not its own": {"pool_slot": 0},
    "of a pool of an earlier time": {"pool_generation": 1},
}


def violations_are(bus: shmbus.Bus, count: int) -> bool:
    return bus.health().violations == count


def test_who_sends_a_block_that_is_none_of_its_own_is_put_off_the_bus(
    bus: shmbus.Bus, attach: Attach
) -> None:
    ear = attach("ear")  # of slot 0
    ear.subscribe("news")
    caught = 0
    for how, wrong in WRONG_BLOCKS.items():
        liar = attach(f"liar-{len(bus.endpoints())}")
        liar.publish("large", bytes(200_000))  # it has a pool
        eventually(lambda: all(e.unforwarded == 0 for e in bus.endpoints()))
        forger = Forger(liar)
        block = np.zeros(1, layout.BLOCK)
        head = int(forger.up["outgoing"][DATA]["head"])  # there is space before its end
        block["offset"], block["length"], block["use"] = layout.POOL_DATA, 100, head | 1
        block["pool_slot"], block["pool_generation"] = liar._seat.slot, liar._seat.generation
        for field, value in wrong.items():
            block[field] = value
        flags = int(layout.RecordFlag.RAW | layout.RecordFlag.POOLED)
        forger.push(DATA, record(EVENT, "news", block.tobytes(), flags=flags))
        forger.ring_bell()
        if wrong:
            caught += 1
            eventually(partial(violations_are, bus, caught), how)
        else:
            message = ear.receive(60)
            assert message is not None
            assert message.payload == bytes(100)
    assert ear.receive(0) is None


records = st.builds(
    lambda kind, type, payload, fields: record(kind, type, payload, **fields),
    st.integers(0, 12) | st.integers(0, (1 << 16) - 1),
    st.sampled_from(["news", "ask", "$bus.endpoint.down", "", "a..b", "x" * 300])
    | st.text("a.*>$"),
    st.binary(max_size=80),
    st.fixed_dictionaries(
        {},
        optional={
            "length": st.integers(0, 400) | st.integers(0, (1 << 32) - 1),
            "type_length": st.integers(0, (1 << 16) - 1),
            "extension_length": st.integers(0, (1 << 16) - 1),
            "flags": st.integers(0, (1 << 16) - 1),
            "peer": st.integers(0, 8) | st.integers(0, (1 << 16) - 1),
            "interests": st.integers(0, (1 << 32) - 1),
            "correlation": st.binary(min_size=16, max_size=16),
        },
    ),
)
log = st.binary(max_size=200) | st.builds(
    entry,
    st.integers(0, 3),
    st.sampled_from(["news", "a.>", ">.a", "a..b", "", "*"]),
    op=st.integers(0, 3),
    role=st.integers(0, 4),
    group=st.sampled_from(["", "g", "g" * 60]),
    flags=st.integers(0, 255),
)


@hypothesis.settings(
    max_examples=200, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    frames=st.lists(st.tuples(st.sampled_from([DATA, REPLIES]), records | st.binary(max_size=200))),
    logs=st.lists(log, max_size=3),
)
def test_no_frame_and_no_interest_however_made_gets_at_others(
    bus: shmbus.Bus, frames: list[tuple[int, bytes]], logs: list[bytes]
) -> None:
    with (
        bus.attach("liar") as liar,
        bus.attach("reader") as reader,
        bus.attach("writer") as writer,
    ):
        received: list[tuple[str, str]] = []
        reader.subscribe("news", lambda message: received.append((message.source, message.type)))
        reader.handle("ask", lambda message: "answer")
        reader.start()
        liar.subscribe("own")
        forger, at = Forger(liar), layout.INTERESTS.itemsize
        for made in logs:
            at += int(forger.interests["bytes"])
            forger.interests_memory[at : at + len(made)] = made
            forger.interests["bytes"] += np.uint64(-(-len(made) // 8) * 8)
            at = layout.INTERESTS.itemsize
            forger.up["outgoing"][DATA]["interests_version"] += np.uint64(1)
        for ring, made in frames:
            forger.push(ring, made)
        forger.ring_bell()
        writer.publish("news")
        assert writer.request("ask", timeout=60).payload == "answer"
    assert received.count(("writer", "news")) == 1
    assert set(received) <= {("writer", "news"), ("liar", "news")}
    eventually(lambda: bus.endpoints() == [])


@hypothesis.settings(
    max_examples=50, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    kept=st.lists(records | st.binary(max_size=440), max_size=layout.KEPT),
    unkept=st.integers(0, 2**64 - 1),
)
def test_what_it_says_to_have_let_go_harms_nobody_however_it_is_made(
    bus: shmbus.Bus, kept: list[bytes], unkept: int
) -> None:
    before = bus.health()
    with bus.attach("liar") as liar, bus.attach("reader") as reader:
        letters: list[shmbus.Message] = []
        reader.subscribe("$bus.undeliverable", letters.append)
        reader.handle("ask", lambda message: "answer")
        reader.start()
        forger = Forger(liar)
        for entry, made in zip(forger.up["kept"], kept, strict=False):
            entry["record"][: len(made)] = list(made)[:440]
            entry["at"] = 1
        forger.up["let_go_unkept"] = unkept
        bus.evict("liar")
        eventually(lambda: [e.name for e in bus.endpoints()] == ["reader"])
        assert reader.request("ask", timeout=60).payload == "answer"
        assert all(patterns.check_type(m.payload["type"]) for m in letters)
    assert len(letters) == bus.health().dead_letters - before.dead_letters <= len(kept)
    assert bus.health().lost == before.lost
    eventually(lambda: bus.endpoints() == [])


def lose_the_log(endpoint: shmbus.Endpoint) -> None:
    forger = Forger(endpoint)
    forger.up["outgoing"][DATA]["interests_serial"] = 12345
    endpoint.publish("here")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_it_left_is_removed_whatever_it_says_of_itself(
    bus: shmbus.Bus, recorder: MakeRecorder, worker: StartWorker
) -> None:
    here = recorder("here")
    before = in_shm(bus.name)
    worker(lose_the_log, name="liar")
    here.wait()
    eventually(lambda: in_shm(bus.name) == before)


def scribble_on(endpoint: shmbus.Endpoint, which: str) -> None:
    """Writes where this process itself has mapped what the dispatcher owns."""
    wanted = {
        "bus": endpoint._seat.names.bus_segment,
        "down": endpoint._seat.names.down(endpoint._seat.slot, endpoint._seat.generation),
    }[which]
    with open("/proc/self/maps") as maps:
        (line,) = [line for line in maps if line.rstrip().endswith(wanted)]
    assert line.split()[1].startswith("r--")
    ctypes.memset(int(line.partition("-")[0], 16) + 256, 0, 8)
    endpoint.publish("alive")


@pytest.mark.parametrize("which", ["bus", "down"])
def test_what_the_dispatcher_owns_cannot_be_written_by_an_endpoint(
    bus: shmbus.Bus, recorder: MakeRecorder, worker: StartWorker, which: str
) -> None:
    downs, alive = recorder("$bus.endpoint.down"), recorder("alive")
    vandal = worker(scribble_on, which, name="vandal")
    (down,) = downs.wait(where=lambda m: m.payload["name"] == "vandal")
    assert down.payload["reason"] == "killed"
    assert (
        vandal.wait() == -signal.SIGSEGV
    )  # only now: until it is reaped, how it ended can be read
    assert not alive.messages


@pytest.mark.smoke
def test_a_bus_of_garbage_is_an_error_that_says_so(bus_name: str) -> None:
    path = f"/dev/shm/{names.names_of(bus_name).bus_segment}"
    with open(path, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(os.urandom(65536))
    with pytest.raises(errors.BusError) as caught:
        shmbus.attach(bus_name, name="me", timeout=1.0)
    assert not isinstance(caught.value, errors.AttachTimeout)
    assert bus_name in str(caught.value)
    with pytest.raises(errors.SegmentError) as refused:
        shmbus.serve(bus_name)
    assert "replace" in refused.value.remedy
    with shmbus.serve(bus_name, replace=True), shmbus.attach(bus_name, name="me") as endpoint:
        endpoint.publish("x")


def test_a_bus_whose_maker_was_killed_over_it_is_made_anew(bus_name: str) -> None:
    with open(f"/dev/shm/{names.names_of(bus_name).bus_segment}", "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(bytes(65536))
    with pytest.raises(errors.AttachTimeout):
        shmbus.attach(bus_name, name="me", timeout=0.1)
    with shmbus.serve(bus_name), shmbus.attach(bus_name, name="me") as endpoint:
        endpoint.publish("x")


def corrupt_prefix(endpoint: shmbus.Endpoint) -> Any:
    forger = Forger(endpoint)
    forger.up["prefix"]["magic"] = 0
    forger.up["identity"] = 0
    forger.up["name"] = b"\xff" * 64
    forger.up["outgoing_ring"]["capacity"] = 1 << 60
    forger.up["incoming_ring"]["capacity"] = 3
    for _ in range(100):
        endpoint.publish("news", timeout=60)
    return endpoint.request("echo", 7, timeout=60).payload


def test_what_it_says_of_itself_later_is_not_believed(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    news = recorder("news")
    server = attach("server")
    server.handle("echo", lambda message: message.payload)
    server.start()
    assert worker(corrupt_prefix, name="boaster").result() == 7
    assert {m.source for m in news.wait(100)} == {"boaster"}
