"""Whatever is done with a queue, in whatever order, it holds what a plain list would."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty, Full
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

import shmbus

VALUES = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.none(),
    st.booleans(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.integers(0, 100_000).map(bytes),  # the largest is larger than the first ring
    st.lists(st.integers(), max_size=5),
)
CALLS = st.one_of(
    st.tuples(st.just("put"), VALUES),
    st.tuples(st.just("put_many"), st.lists(VALUES, max_size=12)),
    st.tuples(st.just("get"), st.none()),
    st.tuples(st.just("get_many"), st.integers(1, 9)),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=st.lists(CALLS, max_size=40), maxsize=st.sampled_from([0, 1, 7]))
def test_a_queue_holds_what_a_plain_one_would(
    make: Callable[..., shmbus.Queue[Any]], calls: list[tuple[str, Any]], maxsize: int
) -> None:
    plain: deque[Any] = deque()
    queue = make(maxsize)

    def room() -> int:
        return maxsize - len(plain) if maxsize else 1_000_000

    for call, value in calls:
        if call == "put" and room():
            queue.put_nowait(value)
            plain.append(value)
        elif call == "put":
            with pytest.raises(Full):
                queue.put_nowait(value)
        elif call == "put_many" and len(value) <= room():
            assert queue.put_many(value, block=False) == len(value)
            plain.extend(value)
        elif call == "put_many":
            fit = room()
            with pytest.raises(Full) as full:
                queue.put_many(value, block=False)
            assert full.value.args == (fit,)
            plain.extend(value[:fit])
        elif not plain:
            with pytest.raises(Empty):
                queue.get_nowait()
        elif call == "get":
            assert queue.get() == plain.popleft()
        else:
            got = queue.get_many(value)
            assert 1 <= len(got) <= value
            assert got == [plain.popleft() for _ in got]
        assert queue.qsize() == len(plain)
        assert queue.empty() == (not plain)
        assert queue.full() == (not room())
    queue.close()
