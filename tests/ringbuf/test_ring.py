"""Rings: what goes in comes out, once and in order, and nothing else ever does."""

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ringbuf import (
    Consumer,
    DoorbellNotFound,
    Producer,
    RecordTooLarge,
    Ring,
    RingBusy,
    RingClosed,
    RingFull,
    Segment,
    SegmentExists,
    SegmentMismatch,
    SegmentNotFound,
)
from ringbuf._kernel import (
    RING_CONSUMER_EPOCH,
    RING_PRODUCER_EPOCH,
)

from .rings import CAPACITY, LARGEST, fill, until_parked

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
