"""Rings: records from one process to another, in order, without a system call while both are awake.

A ring has one producer and one consumer, two threads of any two processes of the same user. It
is in a segment of its own, with a doorbell for each side, so that either can wait for the
other. Each side owns what it writes: the producer the head and the data, the consumer the tail.

    with Producer.create("numbers", 1 << 16) as ring:       # in one process
        ring.push(b"one")

    with Consumer.attach("numbers") as ring:                # in another
        ring.pop(timeout=1.0)

A record is at most a quarter of the capacity, so that it always fits beside the padding at the
end. A capacity of some hundred records of the usual size lets a burst pass without waiting.
"""

from typing import NamedTuple, Self

from ringbuf import doorbell, segment
from ringbuf._kernel import (
    RING_CAPACITY,
    RING_CONSUMER_EPOCH,
    RING_DATA,
    RING_DOORBELLS,
    RING_KIND,
    RING_PRODUCER_EPOCH,
    ConsumerCore,
    Mapping,
    ProducerCore,
    RingCore,
    capacity_valid,
    layout_hash,
)
from ringbuf.doorbell import Doorbell
from ringbuf.segment import Segment


class Ring(RingCore):
    """A ring as an observer sees it: its capacity, depth and high-water mark.

    Leaving its `with` block closes it and, where it was created there, unlinks it too.
    """

    WRITABLE = False
    created = False

    @classmethod
    def create(cls, name: str, capacity: int, *, doorbells: bool = True) -> Self:
        """Make a ring of `capacity` bytes, a power of two from 1024 up.

        Without `doorbells` neither side can wait, and no semaphores are made. Raises
        SegmentExists, SegmentNoSpace, SegmentError, DoorbellError.
        """
        if not capacity_valid(capacity):
            raise ValueError(f"a ring's capacity is a power of two from 1024 up, not {capacity}")

        ours = False

        def prepare(mapping: Mapping) -> None:
            nonlocal ours
            ours = True  # the segment's name, and so the names of the doorbells
            mapping.store(RING_CAPACITY, capacity)
            mapping.store(RING_DOORBELLS, doorbells)
            for bell in bells(name) if doorbells else ():
                doorbell.unlink(bell.name)  # left by a dead ring
                Doorbell.create(bell.name, mapping, bell.epoch)

        size = RING_DATA + capacity
        try:
            made = Segment.create(name, size, kind=RING_KIND, layout=layout_hash(), prepare=prepare)
            ring = cls.over(name, made)
            ring.created = True
            return ring
        except BaseException:
            if ours:
                unlink(name)
            raise

    @classmethod
    def attach(cls, name: str) -> Self:
        """Open a ring that exists. The callers see to it that each side has one user.

        Raises SegmentNotFound, SegmentNotReady (try again), SegmentError, DoorbellError,
        RingCorrupt.
        """
        segment = Segment.attach(name, kind=RING_KIND, layout=layout_hash(), writable=cls.WRITABLE)
        return cls.over(name, segment)

    @classmethod
    def over(cls, name: str, opened: Segment) -> Self:
        memory = opened.memory
        if not cls.WRITABLE or not memory.load(RING_DOORBELLS):
            return cls(name, memory)
        consumer, producer = (Doorbell.attach(b.name, memory, b.epoch) for b in bells(name))
        return cls(name, memory, consumer, producer)

    def unlink(self) -> None:
        """Remove its names; who has it open keeps it. Nothing happens if they are gone."""
        unlink(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self.created:
            self.unlink()


class Producer(Ring, ProducerCore):
    """The side that puts records in. One thread at a time may use it."""

    WRITABLE = True


class Consumer(Ring, ConsumerCore):
    """The side that takes records out. One thread at a time may use it."""

    WRITABLE = True


class BellOf(NamedTuple):
    """A doorbell's name, and the offset of its epoch in the ring's segment."""

    name: str
    epoch: int


def bells(name: str) -> tuple[BellOf, BellOf]:
    """The doorbells of a ring: the consumer's, the producer's."""
    return (
        BellOf(f"{name}:records", RING_CONSUMER_EPOCH),
        BellOf(f"{name}:room", RING_PRODUCER_EPOCH),
    )


def unlink(name: str) -> None:
    for bell in bells(name):
        doorbell.unlink(bell.name)
    segment.unlink(name)
