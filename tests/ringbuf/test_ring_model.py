"""A ring against a deque and two positions."""

import os
from collections import deque

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ringbuf import (
    Consumer,
    Producer,
    RingFull,
)

from .rings import CAPACITY, LARGEST, span


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
