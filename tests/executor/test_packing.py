"""Arguments and results on their way: any value that pickle knows, large arrays without copies."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import shmbus
from shmbus.executor.packing import BESIDE, pack, pack_call, unpack, unpack_call
from shmbus.testing import Attach, eventually

LARGE = np.arange(BESIDE, dtype=np.uint8)


@pytest.fixture
def requester(bus: shmbus.Bus, attach: Attach) -> shmbus.Endpoint:
    """Of a bus where whoever is asked for an echo unpacks what came and packs it again."""
    echo = attach("echo")
    echo.handle("echo", lambda message: pack(unpack(message.payload)))
    echo.start()
    return attach("requester")


def echoed(requester: shmbus.Endpoint, value: object) -> Any:
    return unpack(requester.request("echo", pack(value)).payload)


def arrays() -> st.SearchStrategy[np.ndarray[Any, np.dtype[Any]]]:
    shapes = st.sampled_from([(0,), (3,), (2, 5), (BESIDE // 8,), (BESIDE // 16, 3)])
    types = st.sampled_from(["u1", "<i4", ">f8", "M8[ns]", "S3"])
    orders = st.sampled_from("CF")
    return st.builds(lambda shape, of, order: np.ones(shape, of, order), shapes, types, orders)


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=9) | st.binary(max_size=9) | arrays(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(VALUES)
def test_any_structure_with_arrays_comes_back_equal(
    requester: shmbus.Endpoint, value: object
) -> None:
    assert pickle.dumps(echoed(requester, value)) == pickle.dumps(value)


def test_small_arrays_can_be_written_to_and_large_ones_only_read(
    requester: shmbus.Endpoint,
) -> None:
    small, large = echoed(requester, (LARGE[:-1], LARGE))
    small[0] = 7
    with pytest.raises(ValueError, match="read-only"):
        large[0] = 7
    large.copy()[0] = 7


def test_a_large_array_is_read_where_its_sender_has_put_it(requester: shmbus.Endpoint) -> None:
    before = _in_use(requester, "echo")
    echo = echoed(requester, LARGE)
    assert _in_use(requester, "echo") > before
    part = echo[1:]
    del echo
    assert (part == LARGE[1:]).all()
    del part
    eventually(lambda: _in_use(requester, "echo") <= before)


def _in_use(endpoint: shmbus.Endpoint, owner: str) -> int:
    return sum(pool.in_use for pool in endpoint.bus.pools() if pool.endpoint == owner)


def test_arrays_with_gaps_and_of_objects_come_as_equal_ones(requester: shmbus.Endpoint) -> None:
    gaps = np.arange(4 * BESIDE, dtype=np.uint8)[::2]
    objects = np.array([{"a": 1}, None], dtype=object)
    got_gaps, got_objects = echoed(requester, (gaps, objects))
    assert (got_gaps == gaps).all()
    assert (got_objects == objects).all()


def test_one_array_that_is_named_twice_is_one_array_there(requester: shmbus.Endpoint) -> None:
    first, second = echoed(requester, (LARGE, LARGE))
    assert first is second


def test_large_bytes_and_buffers_of_ones_own_come_back(requester: shmbus.Endpoint) -> None:
    text = bytes(LARGE)
    raw, own = echoed(requester, (text, pickle.PickleBuffer(bytearray(text))))
    assert raw == text
    assert bytes(own) == text


def test_what_only_multiprocessing_can_pickle_comes_too(requester: shmbus.Endpoint) -> None:
    here, there = multiprocessing.Pipe()
    with here, there:
        got, large = echoed(requester, (there, LARGE))
        with got:
            got.send("hello")
            assert here.recv() == "hello"
        assert (large == LARGE).all()


def test_what_nobody_can_pickle_raises_what_pickle_raises() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        pack((LARGE, lambda: None))


def test_an_executor_takes_and_returns_more_than_a_pool_has_by_default() -> None:
    size = 100 << 20
    with shmbus.Executor(1) as executor:
        assert executor.submit(len, np.empty(size, np.uint8)).result(60) == size
        assert executor.submit(np.empty, size, np.uint8).result(60).nbytes == size


def test_a_method_of_an_object_goes_with_what_the_object_has_by_then() -> None:
    numbers = [7]
    for count in (1, 2, 3):
        function, args, _ = unpack_call(pack_call(numbers.count, (7,), {}))
        assert function(*args) == count
        numbers.append(7)


def test_functions_of_modules_come_as_themselves_each_time() -> None:
    for _ in range(3):
        for known in (abs, pickle.dumps, eventually):
            assert unpack_call(pack_call(known, (LARGE,), {"key": 1}))[0] is known
