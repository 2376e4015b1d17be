"""Large payloads as their receivers see them: not copied, valid as long as somebody looks, and then
their sender's again."""

from __future__ import annotations

import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import resource
import sys
import threading
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from forger import DATA, EVENT, Forger, record

import shmbus
from shmbus import Message, errors
from shmbus.testing import Attach, BusProcess, eventually, run_python

from .looks import info, no_descriptor_left, seen

MIB = 1 << 20
FRAME = np.arange(MIB // 8, dtype=np.int64)


def received(endpoint: shmbus.Endpoint) -> Message:
    message = endpoint.receive(60)
    assert message is not None
    return message


def held(endpoint: shmbus.Endpoint) -> int:
    """How many blocks of others the bus says that it holds."""
    return sum(holding.count for holding in info(endpoint.bus, endpoint.name).holds)


def mapped() -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if ":pool:" in line]


def pools(lines: list[str]) -> set[str]:
    return {line.split(":pool:")[1] for line in lines}


@pytest.mark.smoke
@pytest.mark.usefixtures("bus")
def test_an_array_is_seen_where_its_sender_has_put_it(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    sender.publish("frame", FRAME)
    message = received(one)
    frame = message.payload
    assert message.size > FRAME.nbytes
    assert np.array_equal(frame, FRAME)
    assert frame.ctypes.data % 64 == 0
    assert any(
        int(line.split("-")[0], 16) <= frame.ctypes.data < int(line.split("-")[1].split()[0], 16)
        for line in mapped()
    )
    with pytest.raises(ValueError, match="read-only"):
        frame[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        frame.flags.writeable = True
    with pytest.raises(BufferError, match="readonly"):
        frame.__dlpack__()  # as a library asks that knows nothing of read-only arrays
    for ordinary in (frame.copy(), copy.deepcopy(frame), pickle.loads(pickle.dumps(frame))):
        ordinary[0] = 7
    assert frame[0] == 0


@pytest.mark.usefixtures("bus")
def test_it_stays_as_long_as_somebody_looks_and_is_its_senders_again_then(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    sender.publish("frame", FRAME)
    part = received(one).payload[5:10]
    gc.collect()
    assert held(one) == 1
    for n in range(20):  # memory that is free is used again
        sender.publish("frame", FRAME + n)
        assert received(one).payload[0] == n
    assert part.tolist() == [5, 6, 7, 8, 9]
    del part
    eventually(lambda: held(one) == 0)


@pytest.mark.smoke
@pytest.mark.usefixtures("bus")
def test_release_gives_it_back_unless_it_is_looked_at(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    sender.publish("frame", FRAME)
    message = received(one)
    frame = message.payload
    with pytest.raises(BufferError, match=r"^1 view of the payload of 'frame'"):
        message.release()
    assert frame[1] == 1
    del frame
    message.release()
    message.release()
    with pytest.raises(errors.PayloadReleased):
        message.payload  # noqa: B018
    assert message.size > FRAME.nbytes
    eventually(lambda: held(one) == 0)


@pytest.mark.usefixtures("bus")
def test_release_is_the_same_for_what_is_small(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("plain")
    one.subscribe("frame")
    one.subscribe("view", payload_type=memoryview)
    for type, payload in (("plain", b"123"), ("frame", {"a": FRAME[:5]}), ("view", b"123")):
        sender.publish(type, payload)
        message = received(one)
        size, found = message.size, message.payload
        if type != "plain":
            part = found["a"][2:4] if type == "frame" else found[1:]
            del found
            with pytest.raises(BufferError, match=f"^1 view of the payload of {type!r}"):
                message.release()
            assert bytes(part) in (b"23", FRAME[2:4].tobytes())
            del part
        message.release()
        with pytest.raises(errors.PayloadReleased):
            message.payload  # noqa: B018
        assert message.size == size


@pytest.mark.usefixtures("bus")
def test_bytes_are_bytes_and_a_memoryview_is_not_copied(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("plain")
    one.subscribe("view", payload_type=memoryview)
    data = os.urandom(MIB)
    for type in ("plain", "view"):
        sender.publish(type, data)
    plain, view = received(one), received(one)
    assert type_of(plain) is bytes
    assert plain.payload == data
    assert type_of(view) is memoryview
    assert view.payload.readonly
    assert view.payload == data
    plain.release()
    kept = view.payload
    with pytest.raises(BufferError):
        view.release()
    del kept


def type_of(message: Message) -> type:
    return type(message.payload)


def test_arrays_outlive_their_endpoints_and_their_bus(bus_name: str) -> None:
    with shmbus.serve(bus_name) as bus:
        with bus.attach("one") as one:
            one.subscribe("frame")
            with bus.attach("sender") as sender:
                sender.publish("frame", FRAME)
                first = received(one).payload
            sender = bus.attach("sender")
            sender.publish("frame", FRAME + 1)
            second = received(one).payload
            assert np.array_equal(first, FRAME)
        for n in range(3):  # `one` is not there any more, and its memory the sender's
            sender.publish("frame", FRAME * n)
        assert np.array_equal(second, FRAME + 1)
    sender.close()
    assert np.array_equal(first, FRAME)
    assert np.array_equal(second, FRAME + 1)
    with pytest.raises(ValueError, match="read-only"):
        second[0] = 1
    del first, second, sender, one
    gc.collect()
    assert mapped() == []


def test_arrays_may_be_dropped_while_their_endpoint_closes(attach: Attach, bus: shmbus.Bus) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    frames = []
    for n in range(12):
        sender.publish("frame", FRAME + n)
        frames.append(received(one).payload)
    kept = frames[::2]
    thread = threading.Thread(target=frames.clear)
    thread.start()
    one.close()
    thread.join()
    for n in range(12):  # their memory is the sender's again
        sender.publish("frame", FRAME * n)
    assert [int(frame[0]) for frame in kept] == list(range(0, 12, 2))
    assert all(np.array_equal(frame - frame[0], FRAME) for frame in kept)


@pytest.mark.usefixtures("bus")
def test_one_that_is_closed_maps_only_what_is_looked_at(attach: Attach) -> None:
    senders, one = [attach("first"), attach("second")], attach("one")
    one.subscribe("frame")
    before, frames = mapped(), []
    for sender in senders:
        sender.publish("frame", FRAME)
        frames.append(received(one).payload)
    assert len(pools(mapped())) == len(pools(before)) + 3
    del frames[0]
    gc.collect()
    for endpoint in (one, *senders):
        endpoint.close()
    assert len(pools(mapped())) == len(pools(before)) + 1  # that of the other frame
    assert frames[0][-1] == FRAME[-1]
    frames.clear()
    eventually(lambda: mapped() == before)


@pytest.mark.usefixtures("bus")
def test_an_array_stays_although_its_endpoint_closes_without_address_space_left(
    attach: Attach,
) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    frames = []
    for n in range(2):
        sender.publish("frame", FRAME + n)
        frames.append(received(one).payload)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used, before[1]))
    try:
        one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not any(" rw-p " in line for line in mapped())  # they are read-only as before
    for n in range(3):
        sender.publish("frame", FRAME * n)
    for n in range(2):
        assert np.array_equal(frames[n], FRAME + n)


@pytest.mark.usefixtures("bus")
def test_who_keeps_many_gets_copies_of_what_comes_then(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one", settings=shmbus.Settings(loans=2))
    one.subscribe("frame")
    frames = []
    for n in range(5):
        sender.publish("frame", FRAME + n)
        frames.append(received(one).payload)
    assert info(one.bus, "one").copied == 3
    assert held(one) == 2
    assert [int(frame[0]) for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame.ctypes.data % 64 == 0 and not frame.flags.writeable for frame in frames)


@pytest.mark.parametrize(
    "pool_bytes",
    [
        pytest.param(4 * MIB, id="its own"),
        pytest.param(
            16 * MIB, marks=pytest.mark.bus(pool_total_bytes=4 * MIB), id="of all together"
        ),
    ],
)
@pytest.mark.usefixtures("bus")
def test_nobody_keeps_more_than_half_of_a_pool(attach: Attach, pool_bytes: int) -> None:
    sender, one = attach("sender", settings=shmbus.Settings(pool_bytes=pool_bytes)), attach("one")
    one.subscribe("frame")
    frames = []
    for n in range(8):
        sender.publish("frame", FRAME[:-512] + n)
        frames.append(received(one).payload)
    assert [int(frame[0]) for frame in frames] == list(range(8))
    assert held(one) <= 2


@pytest.mark.usefixtures("bus")
def test_one_alone_is_not_copied_however_large_it_is(attach: Attach) -> None:
    sender, one = attach("sender", settings=shmbus.Settings(pool_bytes=2 * MIB)), attach("one")
    one.subscribe("frame")
    sender.publish("frame", bytes(3 * MIB // 2))
    assert len(received(one).payload) == 3 * MIB // 2
    assert info(one.bus, "one").copied == 0


@pytest.mark.usefixtures("bus")
def test_replies_and_parts_come_without_a_copy(attach: Attach) -> None:
    server, one = attach("server"), attach("one")
    server.handle("double", lambda message: message.payload * 2)

    def rows(message: Message) -> Iterator[np.ndarray]:
        for n in range(6):
            yield message.payload + n

    server.handle("rows", rows)
    server.start()
    reply = one.request("double", FRAME, timeout=60).payload
    assert np.array_equal(reply, FRAME * 2)
    later = one.request_async("double", FRAME + 1, timeout=60)
    with one.stream("rows", FRAME, timeout=60) as stream:
        parts = [part.payload for part in stream]
    assert [int(part[0]) for part in parts] == list(range(6))
    with one.stream("rows", FRAME, timeout=60) as stream:
        first = next(stream).payload  # the rest is dropped
    assert np.array_equal(later.result().payload, 2 * FRAME + 2)
    assert np.array_equal(first, FRAME)
    assert held(one) == len([reply, later, *parts, first])
    del later, reply, parts, first, stream
    gc.collect()
    eventually(lambda: held(one) == held(server) == 0)


@pytest.mark.usefixtures("bus")
def test_work_is_given_back_with_its_payload(attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    one.subscribe("job", group="workers")
    sender.publish("job", FRAME)
    mine = received(one)
    frame = mine.payload
    other.subscribe("job", group="workers")
    mine.nack()
    theirs = received(other)
    assert seen(theirs)[1:] == (2, True, "sender")
    assert np.array_equal(theirs.payload, FRAME)
    assert np.array_equal(frame, FRAME)
    theirs.done()
    del theirs, mine, frame
    eventually(lambda: held(one) == held(other) == 0)


@pytest.mark.usefixtures("bus")
def test_work_in_hand_keeps_its_payload_although_that_was_released(attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    for frame in (FRAME, FRAME[:5]):
        with one.subscribe("job", group="workers"):
            sender.publish("job", frame)
            mine = received(one)
            mine.release()
            assert held(one) == (frame is FRAME)
        with other.subscribe("job", group="workers"):
            mine.nack()
            assert np.array_equal(received(other).payload, frame)
        eventually(lambda: held(one) == 0)


def test_an_array_of_one_that_is_evicted_stays(bus: shmbus.Bus, attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    sender.publish("frame", FRAME)
    frame = received(one).payload
    bus.evict("one")
    eventually(lambda: not any(pool.holders for pool in bus.pools()))
    for n in range(3):
        sender.publish("frame", FRAME * 0 + n)
    assert np.array_equal(frame, FRAME)


def test_one_that_is_evicted_takes_nothing_any_more(bus: shmbus.Bus, attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    one.subscribe("newest", overflow="latest")
    sender.publish("frame", FRAME)
    sender.publish("newest", FRAME)
    eventually(lambda: info(bus, "sender").unforwarded == 0)
    bus.evict("one")
    eventually(lambda: all(each.name != "one" for each in bus.endpoints()))
    for _ in range(3):
        with pytest.raises(errors.Evicted):
            one.receive(0)


def test_an_array_of_one_that_is_quarantined_stays(bus: shmbus.Bus, attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    sender.publish("frame", FRAME)
    frame = received(one).payload
    liar = Forger(one)
    liar.push(DATA, record(EVENT, "x", b"", length=1 << 30))
    liar.ring_bell()
    eventually(lambda: bus.health().violations == 1)
    eventually(lambda: not any(pool.holders for pool in bus.pools()))
    for n in range(3):
        sender.publish("frame", FRAME * 0 + n)
    assert np.array_equal(frame, FRAME)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("bus")
def test_a_forked_child_sees_the_same_whatever_its_parent_does(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    sender.publish("frame", FRAME)
    frame = received(one).payload
    go, told = os.pipe()
    child = os.fork()
    if not child:
        os.read(go, 1)
        os._exit(0 if np.array_equal(frame, FRAME) else 1)
    del frame
    eventually(lambda: held(one) == 0)
    for n in range(3):
        sender.publish("frame", FRAME * 0 + n)
        received(one)
    os.write(told, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(go)
    os.close(told)


def sums(frames: list[np.ndarray], go: Event) -> None:
    assert go.wait(60)
    sys.exit([int(frame.sum()) for frame in frames] != [int(FRAME.sum()) * n for n in range(3)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("bus")
def test_children_of_multiprocessing_keep_several_arrays(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    frames = []
    for n in range(3):
        sender.publish("frame", FRAME * n)
        frames.append(received(one).payload)
    forking = multiprocessing.get_context("fork")
    go = forking.Event()
    children = [forking.Process(target=sums, args=(frames, go)) for _ in range(2)]
    for child in children:
        child.start()
    frames.clear()
    eventually(lambda: held(one) == 0)
    for _ in range(3):
        sender.publish("frame", FRAME * 0 - 1)
        received(one)
    go.set()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
        child.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("bus")
def test_forks_leave_no_descriptors(attach: Attach) -> None:
    one = attach("one")
    one.subscribe("frame")
    one.publish("frame", FRAME[:5000])
    frame = received(one).payload
    open_files = sorted(os.listdir("/proc/self/fd"))
    for _ in range(50):
        child = os.fork()
        if not child:
            few = len(os.listdir("/proc/self/fd")) <= len(open_files)
            os._exit(0 if few and frame[1] == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert sorted(os.listdir("/proc/self/fd")) == open_files


@pytest.mark.usefixtures("bus")
def test_a_forked_child_that_dies_at_once_keeps_nobody_waiting(bus_name: str) -> None:
    run_python(
        """
        import ctypes, os, time, warnings, shmbus
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # from 3.12 on
        libc = ctypes.CDLL(None)
        end = ctypes.cast(libc._exit, ctypes.c_void_p)
        libc.__register_atfork.argtypes = [ctypes.c_void_p] * 4
        libc.__register_atfork(None, None, end, None)  # before those of the bus
        with shmbus.attach(name="one") as one:
            one.subscribe("frame")
            one.publish("frame", bytes(1 << 20))
            message = one.receive(60)
            begun = time.monotonic()
            os.waitpid(os.fork(), 0)
            assert time.monotonic() - begun < 4
            assert message.payload == bytes(1 << 20)
        """,
        bus=bus_name,
    )


def read_unless_released(message: Message, found: list[object]) -> None:
    with contextlib.suppress(errors.PayloadReleased):
        found.append(message.payload)


@pytest.mark.usefixtures("bus")
def test_a_payload_is_whole_although_it_is_released_while_it_is_read(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("plain")
    sent = [bytes([n]) * 12 * MIB for n in range(2)]
    for _ in range(4):
        sender.publish("plain", sent[0])
        message = received(one)
        found: list[object] = []
        reader = threading.Thread(target=read_unless_released, args=(message, found))
        reader.start()
        with contextlib.suppress(BufferError):
            message.release()
        del message
        sender.publish("plain", sent[1])  # where the first was, if nobody looks
        reader.join()
        assert found == [sent[0]] or not found
        received(one)


@pytest.mark.usefixtures("bus")
def test_nothing_grows_with_senders_that_come_and_go(attach: Attach) -> None:
    one = attach("one")
    one.subscribe("frame")
    open_files = len(os.listdir("/proc/self/fd"))
    for _ in range(6):
        with attach("sender") as sender:
            sender.publish("frame", FRAME)
            received(one).payload.sum()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= open_files + 1
    assert len(mapped()) <= 6  # ours, and those of the last sender and the one before


@pytest.mark.usefixtures("bus")
def test_a_payload_that_cannot_be_mapped_is_an_error_and_the_next_is_not(attach: Attach) -> None:
    one = attach("one")
    one.subscribe(">")
    for type, payload in (("array", FRAME), ("bytes", bytes(MIB))):
        sender = attach("sender")
        sender.publish(type, payload)
        seat = sender._seat
        eventually(lambda: info(one.bus, "one").untouched)
        (Path("/dev/shm") / seat.names.pool(seat.slot, seat.generation)).unlink()
        message = received(one)
        with pytest.raises(errors.DecodeError, match="a pool that is not there any more"):
            message.payload  # noqa: B018
        sender.close()
    one.publish("array", FRAME)
    assert np.array_equal(received(one).payload, FRAME)


@pytest.mark.parametrize("overflow", ["block", "latest"])
@pytest.mark.usefixtures("bus")
def test_what_finds_no_descriptor_is_not_taken_but_an_error_and_comes_later(
    attach: Attach, overflow: Literal["block", "latest"]
) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame", overflow=overflow)
    one.publish("frame", b"")
    assert received(one).payload == b""
    sender.publish("frame", FRAME)
    eventually(lambda: info(sender.bus, "sender").unforwarded == 0)
    with no_descriptor_left():
        for _ in range(2):
            with pytest.raises(errors.NoResource, match=r"'one'.*'sender'.*'frame'.*ulimit -n"):
                one.receive(60)
    message = received(one)
    assert (message.lost, np.array_equal(message.payload, FRAME)) == (0, True)
    assert one.receive(0) is None


@pytest.mark.usefixtures("bus")
def test_a_callback_gets_later_what_found_no_descriptor(
    attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    sender, one, got = attach("sender"), attach("one"), list[Any]()
    one.subscribe("frame", lambda message: got.append(message.payload), group="g")
    one.start()
    sender.publish("nobody", FRAME)  # that makes its pool
    eventually(lambda: info(sender.bus, "sender").unforwarded == 0)
    with no_descriptor_left():
        sender.publish("frame", FRAME)
        eventually(lambda: "ulimit -n" in caplog.text)
        assert got == []
    eventually(lambda: got)
    assert np.array_equal(got[0], FRAME)


@pytest.mark.usefixtures("bus")
def test_arrays_may_be_dropped_in_any_thread(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame")
    for n in range(12):
        sender.publish("frame", FRAME + n)
        frames: list[object] = [received(one).payload]
        frames.append(frames)  # a cycle, for the collector
        del frames
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
    eventually(lambda: held(one) == 0)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.usefixtures("bus")
def test_without_memory_for_a_message_its_sender_gets_the_block_back(
    attach: Attach, group: bool
) -> None:
    capi = pytest.importorskip("_testcapi", reason="CPython's own tests are not installed")
    sender, one = attach("sender"), attach("one")
    one.subscribe("frame", group="g" if group else None)
    sender.publish("frame", FRAME)
    received(one)  # some memory is kept for the next
    failures = 0
    for n in (0, 0, 1, 0, 1, 2):  # allocations of the call that are there before one fails
        sender.publish("frame", FRAME)
        eventually(lambda: info(one.bus, "one").untouched)
        message = None
        capi.set_nomemory(n, n + 1)
        try:
            message = one.receive(0)
        except MemoryError:
            failures += 1
        finally:
            capi.remove_mem_hooks()
        message = message or one.receive(0)
        del message
        one.receive(0)  # that one is done
        eventually(lambda: held(one) == 0)
    assert failures > 1


@pytest.mark.slow
def test_an_array_of_one_that_attaches_anew_stays(bus_process: BusProcess) -> None:
    with shmbus.attach(bus_process.name, name="one", reconnect="always") as one:
        one.subscribe("frame")
        one.publish("frame", FRAME)
        frame = received(one).payload
        bus_process.stop()
        bus_process.start()
        for n in range(3):
            one.publish("frame", FRAME + n, timeout=60)
            assert received(one).payload[0] == n
        assert np.array_equal(frame, FRAME)
        del frame
        eventually(lambda: held(one) == 0)


@pytest.mark.slow
@pytest.mark.usefixtures("bus")
def test_the_collector_may_come_at_any_moment(bus_name: str) -> None:
    run_python(
        """
        import gc, sys, threading, numpy, shmbus
        assert sys.flags.dev_mode
        gc.set_threshold(1, 1, 1)
        sys.setswitchinterval(1e-5)
        with shmbus.attach(name="one", settings=shmbus.Settings(loans=4)) as one:
            one.subscribe("frame")
            one.subscribe("new", overflow="latest", depth=4)
            def take():
                kept = []
                while (message := one.receive(60)).type != "end":
                    kept.append([message.payload, kept])  # cycles, with arrays in them
                    assert message.payload[0] == message.payload[-1]
                    if len(kept) == 5:
                        kept = []
            threads = [threading.Thread(target=take) for _ in range(2)]
            for thread in threads:
                thread.start()
            one.subscribe("end")
            for n in range(40):
                for type in ("frame", "new"):
                    one.publish(type, numpy.full(40_000, n), timeout=60)
            for _ in threads:
                one.publish("end")
            for thread in threads:
                thread.join(60)
        """,
        bus=bus_name,
        before=["env", "PYTHONDEVMODE=1"],
    )
