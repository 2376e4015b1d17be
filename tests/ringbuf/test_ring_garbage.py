"""Garbage in a ring is found out, and never followed."""

import threading

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from ringbuf import (
    Consumer,
    Producer,
    Ring,
    RingCorrupt,
    Segment,
)
from ringbuf._kernel import (
    RING_CAPACITY,
    RING_CONSUMER_EPOCH,
    RING_DATA,
    RING_HEAD,
    RING_TAIL,
)

from .rings import CAPACITY, LARGEST, fill, until_parked

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
