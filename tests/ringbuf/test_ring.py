"""Rings: what goes in comes out, once and in order, and nothing else ever does."""

import gc
import inspect
import itertools
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ringbuf import (
    Consumer,
    DoorbellNotFound,
    Producer,
    RecordTooLarge,
    Ring,
    RingBusy,
    RingClosed,
    RingCorrupt,
    RingFull,
    Segment,
    SegmentExists,
    SegmentMismatch,
    SegmentNotFound,
)
from ringbuf._kernel import (
    RING_CAPACITY,
    RING_CONSUMER_EPOCH,
    RING_DATA,
    RING_HEAD,
    RING_PRODUCER_EPOCH,
    RING_TAIL,
)

CAPACITY = 1024
LARGEST = 248


@pytest.fixture
def producer(name: str) -> Iterator[Producer]:
    with Producer.create(name, CAPACITY) as producer:
        yield producer


@pytest.fixture
def consumer(name: str, producer: Producer) -> Iterator[Consumer]:
    with Consumer.attach(name) as consumer:
        yield consumer


def fill(producer: Producer) -> int:
    for count in itertools.count():
        try:
            producer.push(b"x" * 24)
        except RingFull:
            return count
    raise AssertionError


# One side and the other ------------------------------------------------------------------------


@pytest.mark.smoke
def test_records_come_out_as_they_went_in(producer: Producer, consumer: Consumer) -> None:
    records = [b"", b"a", bytes(range(248)), b"end"]
    for record in records:
        producer.push(record)
    assert [consumer.pop() for _ in records] == records
    assert consumer.pop() is None


def test_batches_and_single_records_mix(producer: Producer, consumer: Consumer) -> None:
    assert producer.push_many([b"1", b"2", b"3"]) == 3
    producer.push(b"4")
    assert consumer.pop() == b"1"
    assert consumer.pop_many(2) == [b"2", b"3"]
    assert consumer.pop_many(10) == [b"4"]
    assert consumer.pop_many(10) == []
    assert producer.push_many([]) == 0
    assert consumer.pop_many(0) == []


@pytest.mark.parametrize(
    "data", [bytearray(b"abcd"), memoryview(b"abcd"), np.frombuffer(b"abcd", np.uint16)]
)
def test_any_buffer_goes_in(producer: Producer, consumer: Consumer, data: bytes) -> None:
    producer.push(data)
    assert consumer.pop() == b"abcd"


def test_what_is_no_buffer_does_not(producer: Producer, consumer: Consumer) -> None:
    with pytest.raises(TypeError):
        producer.push("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        producer.push_many([b"1", "text", b"3"])  # type: ignore[list-item]
    assert consumer.pop_many(10) == [b"1"]


def test_a_full_ring_says_how_full(producer: Producer, consumer: Consumer) -> None:
    count = fill(producer)
    assert count == CAPACITY // 32
    with pytest.raises(RingFull, match="timeout") as caught:
        producer.push(b"1234")
    error = caught.value
    assert (error.size, error.depth, error.capacity) == (4, CAPACITY, CAPACITY)
    assert producer.push_many([b"y"] * 3) == 0
    consumer.pop()
    assert producer.push_many([b"y"] * 3) == 2  # 16 bytes each
    assert consumer.pop_many(100) == [b"x" * 24] * (count - 1) + [b"y"] * 2


def test_a_record_is_at_most_a_quarter(producer: Producer, consumer: Consumer) -> None:
    assert producer.largest == LARGEST
    for size in (LARGEST + 1, 10**6):
        with pytest.raises(RecordTooLarge, match="capacity") as caught:
            producer.push(b"x" * size)
        assert (caught.value.size, caught.value.limit) == (size, LARGEST)
        with pytest.raises(RecordTooLarge), producer.reserve(size):
            pass
    with pytest.raises(RecordTooLarge) as caught:
        producer.push_many([b"1", b"2", b"x" * 249, b"3"])
    assert caught.value.index == 2
    assert consumer.pop_many(10) == [b"1", b"2"]


def test_depth_and_high_water_are_seen_from_outside(
    name: str, producer: Producer, consumer: Consumer
) -> None:
    with Ring.attach(name) as seen:
        assert (seen.capacity, seen.depth, seen.high_water) == (CAPACITY, 0, 0)
        producer.push_many([b"x" * 24] * 10)
        assert (seen.depth, producer.depth, consumer.depth) == (320, 320, 320)
        consumer.pop_many(9)
        producer.push(b"x" * 24)
        assert (seen.depth, seen.high_water) == (64, 320)
        assert not hasattr(seen, "push")


# Records in place ------------------------------------------------------------------------------


def test_a_record_can_be_written_in_place(producer: Producer, consumer: Consumer) -> None:
    with producer.reserve(5) as view:
        assert len(view) == 5
        view[:] = b"hello"
        assert consumer.pop() is None
    assert consumer.pop() == b"hello"
    with pytest.raises(ValueError, match="released"):
        view[0] = 1


def test_what_was_begun_and_failed_is_not_in_the_ring(
    producer: Producer, consumer: Consumer
) -> None:
    def fail() -> None:
        with producer.reserve(5) as view:
            view[:] = b"hello"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert consumer.pop() is None
    producer.push(b"next")
    assert consumer.pop() == b"next"


def test_nothing_goes_in_while_a_record_is_reserved(producer: Producer, consumer: Consumer) -> None:
    with producer.reserve(5) as view:
        for attempt in (
            lambda: producer.push(b"1"),
            lambda: producer.push_many([b"1"]),
            lambda: producer.reserve(1).__enter__(),
        ):
            with pytest.raises(RingBusy):
                attempt()
        view[:] = b"hello"
    producer.push(b"1")
    assert consumer.pop_many(10) == [b"hello", b"1"]


def test_a_view_kept_too_long_is_an_error_and_never_garbage(
    producer: Producer, consumer: Consumer
) -> None:
    kept = None
    with pytest.raises(RingBusy, match="inside the block"), producer.reserve(8) as view:
        kept = np.frombuffer(view, np.uint64)
    with pytest.raises(RingBusy):
        producer.push(b"1")
    assert consumer.pop() is None
    del kept
    producer.push(b"1")
    assert consumer.pop() == b"1"


def test_a_view_kept_by_a_traceback_does_not_hide_the_error(producer: Producer) -> None:
    def fail() -> None:
        with producer.reserve(8) as view:
            kept.append(memoryview(view)[2:])
            raise ZeroDivisionError

    kept: list[memoryview] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(RingBusy):
        producer.push(b"1")
    kept.clear()
    producer.push(b"1")


def test_a_reservation_ends_once(producer: Producer) -> None:
    reservation = producer.reserve(8)
    with pytest.raises(RingBusy):
        reservation.__exit__(None, None, None)
    with reservation:
        pass
    with pytest.raises(RingBusy):
        reservation.__exit__(None, None, None)
    with pytest.raises(ValueError), producer.reserve(-1):
        pass


def test_a_record_can_be_read_in_place(producer: Producer, consumer: Consumer) -> None:
    producer.push_many([b"one", b"two"])
    view = consumer.peek()
    assert view is not None
    assert view.readonly
    assert bytes(view) == b"one"
    assert consumer.depth == 32
    consumer.release()
    assert consumer.depth == 16
    with pytest.raises(ValueError, match="released"):
        view[0]
    assert consumer.pop() == b"two"
    assert consumer.peek() is None
    with pytest.raises(RingBusy, match="nothing to release"):
        consumer.release()


def test_what_was_peeked_at_is_still_there_for_pop(producer: Producer, consumer: Consumer) -> None:
    producer.push(b"one")
    consumer.peek()
    consumer.peek()
    assert consumer.pop() == b"one"
    with pytest.raises(RingBusy):
        consumer.release()
    assert consumer.pop() is None


def test_a_record_under_a_view_is_not_let_go(producer: Producer, consumer: Consumer) -> None:
    producer.push(b"12345678")
    view = consumer.peek()
    assert view is not None
    kept = np.frombuffer(view, np.uint8)
    for attempt in (consumer.release, consumer.pop, consumer.peek):
        with pytest.raises(RingBusy):
            attempt()
    while True:
        try:
            producer.push(b"x" * 100)
        except RingFull:
            break
    assert bytes(kept) == b"12345678"
    del kept
    assert consumer.pop() == b"12345678"


def test_closing_with_views_alive_is_harmless(name: str, producer: Producer) -> None:
    producer.push(b"12345678")
    consumer = Consumer.attach(name)
    view = consumer.peek()
    consumer.close()
    del consumer
    assert view is not None
    assert bytes(view) == b"12345678"
    reservation = producer.reserve(3)
    view = reservation.__enter__()
    producer.close()
    view[:] = b"abc"
    with pytest.raises(RingClosed):
        reservation.__exit__(None, None, None)


# Created, attached, unlinked --------------------------------------------------------------------


def test_each_side_can_be_replaced_while_the_ring_stands(name: str, producer: Producer) -> None:
    producer.push_many([b"1", b"2"])
    producer.close()
    with Consumer.attach(name) as first:
        assert first.pop() == b"1"
    with Producer.attach(name) as second:
        second.push(b"3")
    with Consumer.attach(name) as next_one:
        assert next_one.pop_many(10) == [b"2", b"3"]


def test_the_high_water_mark_outlives_a_producer(name: str, producer: Producer) -> None:
    producer.push_many([b"x"] * 10)
    producer.close()
    with Consumer.attach(name) as consumer:
        consumer.pop_many(10)
        with Producer.attach(name) as second:
            second.push(b"x")
        assert consumer.high_water == 160


def test_a_closed_side_says_so(producer: Producer, consumer: Consumer) -> None:
    producer.close()
    producer.close()
    consumer.close()
    assert producer.closed
    for attempt in (
        lambda: producer.push(b""),
        lambda: producer.push_many([b""]),
        lambda: producer.reserve(1).__enter__(),
        lambda: producer.depth,
        consumer.pop,
        lambda: consumer.pop_many(1),
        consumer.peek,
        consumer.release,
    ):
        with pytest.raises(RingClosed):
            attempt()


def test_names_are_given_once(name: str, producer: Producer, consumer: Consumer) -> None:
    with pytest.raises(SegmentExists):
        Consumer.create(name, CAPACITY)
    producer.push(b"still works", timeout=1)
    assert consumer.pop(timeout=1) == b"still works"
    producer.unlink()
    producer.unlink()
    with pytest.raises(SegmentNotFound):
        Ring.attach(name)


def test_doorbells_of_a_dead_ring_are_replaced(name: str) -> None:
    with Producer.create(name, CAPACITY) as dead:
        os.unlink(f"/dev/shm/{name}")
        with Producer.create(name, CAPACITY) as ring, Consumer.attach(name) as consumer:
            ring.push(b"1", timeout=1)
            assert consumer.pop() == b"1"
        dead.created = False


def test_a_ring_without_its_doorbells_is_refused(name: str, producer: Producer) -> None:
    os.unlink(f"/dev/shm/sem.{name}:room")
    with pytest.raises(DoorbellNotFound):
        Consumer.attach(name)


def test_without_doorbells_nobody_waits(name: str) -> None:
    with Producer.create(name, CAPACITY, doorbells=False) as producer:
        assert [entry for entry in os.listdir("/dev/shm") if name in entry] == [name]
        with Consumer.attach(name) as consumer:
            assert consumer.pop() is None
            with pytest.raises(ValueError, match="no doorbells"):
                consumer.pop(timeout=1)
            fill(producer)
            with pytest.raises(ValueError, match="no doorbells"):
                producer.push(b"", timeout=None)


@pytest.mark.parametrize("capacity", [0, -1024, 512, 1000, 1025, 1 << 60])
def test_capacities_that_cannot_be_are_refused(name: str, capacity: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Ring.create(name, capacity)


def test_another_segment_is_no_ring(name: str) -> None:
    with Segment.create(name, 4096, kind=1, layout=1), pytest.raises(SegmentMismatch):
        Consumer.attach(name)


# Waiting ---------------------------------------------------------------------------------------


def until_parked(name: str, epoch: int) -> None:
    with Segment.attach(name) as segment:
        deadline = time.monotonic() + 30
        while not segment.memory.load(epoch) & 1:
            assert time.monotonic() < deadline
            os.sched_yield()


@pytest.mark.smoke
def test_a_waiting_consumer_is_woken(name: str, producer: Producer, consumer: Consumer) -> None:
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(consumer.pop(timeout=None)))
    thread.start()
    until_parked(name, RING_CONSUMER_EPOCH)
    producer.push(b"now")
    thread.join(30)
    assert got == [b"now"]


def test_a_waiting_producer_is_woken_once_its_record_fits(
    name: str, producer: Producer, consumer: Consumer
) -> None:
    count = fill(producer)
    thread = threading.Thread(target=lambda: producer.push(b"y" * LARGEST, timeout=None))
    thread.start()
    until_parked(name, RING_PRODUCER_EPOCH)
    got = []
    with Segment.attach(name) as segment:
        parked = segment.memory.load(RING_PRODUCER_EPOCH)
        for _ in range(LARGEST // 32):
            got.append(consumer.pop())
        assert segment.memory.load(RING_PRODUCER_EPOCH) == parked  # not woken
    while len(got) <= count:
        got.append(consumer.pop(timeout=30))
    thread.join(30)
    assert got == [b"x" * 24] * count + [b"y" * LARGEST]


def test_waits_end(producer: Producer, consumer: Consumer) -> None:
    start = time.monotonic()
    assert consumer.pop(timeout=0.02) is None
    assert consumer.pop_many(5, timeout=0.02) == []
    assert consumer.peek(timeout=0.02) is None
    fill(producer)
    with pytest.raises(RingFull):
        producer.push(b"", timeout=0.02)
    assert producer.push_many([b""], timeout=0.02) == 0
    with pytest.raises(RingFull), producer.reserve(1, timeout=0.02):
        pass
    assert time.monotonic() - start >= 0.12


def test_a_batch_larger_than_the_ring_goes_in_as_room_comes(
    producer: Producer, consumer: Consumer
) -> None:
    records = [bytes([i % 251]) * (i % LARGEST) for i in range(1000)]
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(producer.push_many(records, None)))
    thread.start()
    got: list[bytes] = []
    while len(got) < len(records):
        some = consumer.pop_many(7, timeout=30)
        assert some
        got += some
    thread.join(30)
    assert got == records
    assert done == [1000]


def test_closing_ends_a_wait_in_another_thread(
    name: str, producer: Producer, consumer: Consumer
) -> None:
    caught: list[type[BaseException]] = []

    def wait() -> None:
        try:
            consumer.pop(timeout=None)
        except RingClosed as error:
            caught.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    until_parked(name, RING_CONSUMER_EPOCH)
    consumer.close()
    thread.join(30)
    assert caught == [RingClosed]


# Against a model -------------------------------------------------------------------------------


def span(at: int, size: int) -> int:
    """Bytes that a record takes, as ring.h explains it."""
    record = (8 + size + 7) // 8 * 8
    rest = CAPACITY - at % CAPACITY
    return record if record <= rest else rest + record


class Model(RuleBasedStateMachine):
    """A deque, and the two positions of the ring beside it."""

    payloads = st.integers(0, LARGEST).map(lambda size: bytes([size % 256]) * size)

    @initialize()
    def begin(self) -> None:
        self.name = f"ringbuf-model-{os.getpid()}"
        self.producer = Producer.create(self.name, CAPACITY, doorbells=False)
        self.consumer = Consumer.attach(self.name)
        self.queue: deque[tuple[int, bytes]] = deque()
        self.head = self.tail = 0

    def teardown(self) -> None:
        self.producer.unlink()

    def fits(self, size: int) -> bool:
        return self.head + span(self.head, size) - self.tail <= CAPACITY

    def add(self, payload: bytes) -> None:
        self.head += span(self.head, len(payload))
        self.queue.append((self.head, payload))

    def take(self) -> bytes:
        self.tail, payload = self.queue.popleft()
        return payload

    @rule(payload=payloads)
    def push(self, payload: bytes) -> None:
        if self.fits(len(payload)):
            self.producer.push(payload)
            self.add(payload)
        else:
            with pytest.raises(RingFull):
                self.producer.push(payload)

    @rule(records=st.lists(payloads, max_size=12))
    def push_many(self, records: list[bytes]) -> None:
        expected = 0
        for payload in records:
            if not self.fits(len(payload)):
                break
            self.add(payload)
            expected += 1
        assert self.producer.push_many(records) == expected

    @rule(payload=payloads, fail=st.booleans())
    def reserve(self, payload: bytes, fail: bool) -> None:
        if not self.fits(len(payload)):
            with pytest.raises(RingFull), self.producer.reserve(len(payload)):
                pass
            return
        try:
            with self.producer.reserve(len(payload)) as view:
                view[:] = payload
                if fail:
                    raise KeyError
            self.add(payload)
        except KeyError:
            pass

    @rule()
    def pop(self) -> None:
        expected = self.take() if self.queue else None
        assert self.consumer.pop() == expected

    @rule(limit=st.integers(0, 20))
    def pop_many(self, limit: int) -> None:
        expected = [self.take() for _ in range(min(limit, len(self.queue)))]
        assert self.consumer.pop_many(limit) == expected

    @rule()
    def peek(self) -> None:
        view = self.consumer.peek()
        assert (None if view is None else bytes(view)) == (self.queue[0][1] if self.queue else None)

    @precondition(lambda self: self.queue)
    @rule()
    def peek_and_release(self) -> None:
        view = self.consumer.peek()
        assert view is not None
        assert bytes(view) == self.take()
        self.consumer.release()

    @rule()
    def replace_the_producer(self) -> None:
        self.producer.close()
        self.producer = Producer.attach(self.name)

    @rule()
    def replace_the_consumer(self) -> None:
        self.consumer.close()
        self.consumer = Consumer.attach(self.name)

    @invariant()
    def depth(self) -> None:
        if hasattr(self, "producer"):
            assert self.producer.depth == self.head - self.tail
            assert self.consumer.high_water <= CAPACITY


Model.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
test_a_ring_is_a_bounded_queue = Model.TestCase


# Between processes -----------------------------------------------------------------------------


def payloads() -> Iterator[bytes]:
    """Payloads whose records have every size, and begin at every position of a ring of 1024."""
    at = count = 0
    for target in range(0, 1024, 8):
        for wanted in range(8, 257, 8):
            at %= 1024
            way = [target - at] if target >= at else [1024 - at, target]
            for distance in way:
                steps = [256] * (distance // 256) + [distance % 256]
                for step in [*steps, wanted] if distance is way[-1] else steps:
                    if step:
                        count += 1
                        size = max(0, step - 8 - count % 8)
                        yield (count & 255).to_bytes(1, "big") * size
            at = target + wanted if target + wanted <= 1024 else wanted


SENDER = """
import sys
from collections.abc import Iterator
from ringbuf import Producer
{payloads}
with Producer.attach(sys.argv[1]) as ring:
    batch = int(sys.argv[2])
    if batch:
        assert ring.push_many(payloads(), timeout=None) == int(sys.argv[3])
    else:
        for payload in payloads():
            ring.push(payload, timeout=None)
"""


@pytest.mark.parametrize("batch", [0, 16])
def test_every_size_at_every_position_passes_between_processes(
    name: str, batch: int, start: Callable[..., subprocess.Popen[str]]
) -> None:
    expected = list(payloads())
    at, seen = 0, set()
    for payload in expected:
        seen.add((at % CAPACITY, (15 + len(payload)) // 8))
        at += span(at, len(payload))
    assert len(seen) == 128 * 32

    with Consumer.create(name, CAPACITY) as ring:
        source = SENDER.format(payloads=inspect.getsource(payloads))
        sender = start(source, name, batch, len(expected))
        got: list[bytes] = []
        while len(got) < len(expected):
            lives = sender.poll() is None
            one = None if batch else ring.pop(timeout=1)
            new = ring.pop_many(batch, timeout=1) if batch else [] if one is None else [one]
            assert new or lives
            got += new
            assert got[-1:] == expected[: len(got)][-1:]
        assert got == expected
        assert sender.communicate(timeout=30) == ("", "")
        assert ring.pop() is None


KILLED = """
import sys, time
from ringbuf import Producer
with Producer.attach(sys.argv[1]) as ring:
    ring.push(b"whole")
    with ring.reserve(100) as view:
        view[:] = b"?" * 100
        print("half-way", flush=True)
        time.sleep(600)
"""


def test_a_producer_killed_half_way_leaves_nothing_half_written(
    name: str,
    producer: Producer,
    consumer: Consumer,
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    producer.close()
    victim = start(KILLED, name)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "half-way\n"
    victim.kill()
    victim.wait()
    with Producer.attach(name) as successor:
        successor.push(b"after")
        assert consumer.pop_many(10) == [b"whole", b"after"]


# Garbage ---------------------------------------------------------------------------------------

words = st.one_of(
    st.integers(0, 2**64 - 1), st.integers(0, 4 * CAPACITY), st.sampled_from([2**63, 2**64 - 8])
)


@pytest.fixture
def filled(name: str, producer: Producer, consumer: Consumer) -> tuple[Producer, Consumer, Segment]:
    return producer, consumer, Segment.attach(name, writable=True)


def drain(consumer: Consumer) -> int:
    """Take all there is; more than a ring's worth of records would be an endless loop."""
    for count in range(CAPACITY):
        if consumer.pop() is None:
            return count
    raise AssertionError("a ring that never ends")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    place=st.sampled_from(["head", "tail", "record"]),
    value=words,
    at=st.integers(0, CAPACITY // 8 - 1),
    reattach=st.booleans(),
)
def test_garbage_is_found_out_and_never_followed(
    name: str, place: str, value: int, at: int, reattach: bool
) -> None:
    with (
        Producer.create(name + "-g", CAPACITY, doorbells=False) as producer,
        Consumer.attach(name + "-g") as consumer,
        Segment.attach(name + "-g", writable=True) as segment,
    ):
        producer.push_many([b"x" * 100] * 8)
        consumer.pop_many(5)
        producer.push_many([b"y" * 100] * 4)
        offset = {"head": RING_HEAD, "tail": RING_TAIL, "record": RING_DATA + 8 * at}[place]
        segment.memory.store(offset, value)
        for side in (producer, consumer):
            error = None
            try:
                used = type(side).attach(name + "-g") if reattach else side
                if isinstance(used, Consumer):
                    drain(used)
                else:
                    used.push_many([b"z" * LARGEST] * 5)
                assert used.depth <= CAPACITY
            except RingCorrupt as caught:
                error = caught
            assert error is None or error.capacity == CAPACITY


@pytest.mark.parametrize("value", [4, 1 << 20, 2**64 - 8])
def test_positions_that_cannot_be_put_the_ring_out_of_use(
    filled: tuple[Producer, Consumer, Segment], value: int
) -> None:
    producer, consumer, segment = filled
    producer.push(b"1")
    segment.memory.store(RING_HEAD, value)
    for _ in range(2):
        with pytest.raises(RingCorrupt) as caught:
            consumer.pop()
        assert (caught.value.name, caught.value.head) == (consumer.name, value)
    segment.memory.store(RING_HEAD, 16)
    with pytest.raises(RingCorrupt):  # and it stays so
        consumer.pop()
    segment.memory.store(RING_TAIL, value)
    for _ in range(2):
        with pytest.raises(RingCorrupt):
            producer.push_many([b"x" * LARGEST] * 5)


def test_a_position_that_goes_back_is_corrupt(filled: tuple[Producer, Consumer, Segment]) -> None:
    producer, consumer, segment = filled
    producer.push_many([b"1", b"2"])
    consumer.pop()
    segment.memory.store(RING_HEAD, 16)
    assert consumer.pop() == b"2"  # seen before
    with pytest.raises(RingCorrupt):
        consumer.pop()


def test_a_record_larger_than_a_quarter_is_corrupt(
    filled: tuple[Producer, Consumer, Segment],
) -> None:
    _, consumer, segment = filled
    segment.memory.store(RING_DATA, 1 << 32 | CAPACITY // 4 + 8)
    segment.memory.store(RING_HEAD, CAPACITY // 4 + 8)
    with pytest.raises(RingCorrupt):
        consumer.pop()


def test_a_tail_that_goes_back_is_corrupt(filled: tuple[Producer, Consumer, Segment]) -> None:
    producer, consumer, segment = filled
    fill(producer)
    consumer.pop()
    tail = segment.memory.load(RING_TAIL)
    fill(producer)  # it has seen that tail
    segment.memory.store(RING_TAIL, tail - 8)
    with pytest.raises(RingCorrupt):
        producer.push(b"x" * LARGEST)


def test_valid_records_before_a_bad_one_come_first(
    filled: tuple[Producer, Consumer, Segment],
) -> None:
    producer, consumer, segment = filled
    producer.push_many([b"1", b"2", b"3"])
    segment.memory.store(RING_DATA + 32, 7)
    assert consumer.pop_many(10) == [b"1", b"2"]
    with pytest.raises(RingCorrupt):
        consumer.pop_many(10)


def test_corruption_ends_a_wait(name: str, filled: tuple[Producer, Consumer, Segment]) -> None:
    _, consumer, segment = filled
    caught: list[RingCorrupt] = []

    def wait() -> None:
        try:
            consumer.pop(timeout=None)
        except RingCorrupt as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until_parked(name, RING_CONSUMER_EPOCH)
    segment.memory.store(RING_HEAD, 3)
    thread.join(30)
    assert len(caught) == 1


@pytest.mark.parametrize("capacity", [0, 512, 2048, 2**63, 2**64 - 1])
def test_another_capacity_than_the_segment_has_is_corrupt(
    name: str, filled: tuple[Producer, Consumer, Segment], capacity: int
) -> None:
    filled[2].memory.store(RING_CAPACITY, capacity)
    for side in (Ring, Producer, Consumer):
        with pytest.raises(RingCorrupt, match="capacity"):
            side.attach(name)


# Over time -------------------------------------------------------------------------------------


def test_rings_that_come_and_go_leave_no_mapping_and_no_descriptor(name: str) -> None:
    def held() -> tuple[int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text().count("/dev/shm/")
        return maps, len(os.listdir("/proc/self/fd"))

    before = held()
    for _ in range(200):
        with Producer.create(name, CAPACITY) as producer, Consumer.attach(name) as consumer:
            producer.push(b"1", timeout=1)
            with producer.reserve(4):
                pass
            consumer.peek(timeout=1)
            consumer.release()
            consumer.peek()
        del producer, consumer
    maps, descriptors = held()
    assert maps <= before[0]  # what earlier tests left may go meanwhile
    assert descriptors <= before[1]
