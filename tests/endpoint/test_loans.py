"""Loans: memory of the bus that is filled in place and then published."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

import numpy as np
import pytest

import shmbus
from ringbuf import Segment
from shmbus import errors
from shmbus.shared import layout, names
from shmbus.testing import Attach, eventually


def received(endpoint: shmbus.Endpoint) -> Any:
    message = endpoint.receive(30)
    assert message is not None
    return message.payload


def publish_until_full(endpoint: shmbus.Endpoint, size: int) -> None:
    with contextlib.suppress(errors.QueueFull):
        while True:
            endpoint.publish("x", bytes(size), timeout=0.1)


@pytest.mark.smoke
def test_what_was_filled_in_is_published(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink = attach("source"), attach("sink")
    sink.subscribe("x")
    with source.loan("x", 10) as loan:
        loan.data[:] = b"0123456789"
    assert received(sink) == b"0123456789"
    with source.loan("x", np.prod((2, 3))) as loan:
        loan.data[:] = b"012345"
    assert received(sink) == b"012345"
    for order in ("C", "F"):
        with source.loan_array("x", (30, 20), np.float32, order=order) as loan:
            loan.array[:] = np.arange(600).reshape(30, 20)
        got = received(sink)
        assert got.dtype == np.float32
        assert got.flags[f"{order}_CONTIGUOUS"]
        assert (got == np.arange(600).reshape(30, 20)).all()
        assert got.ctypes.data % 64 == 0


def test_each_array_is_as_it_was_asked_for_whatever_the_one_before_was(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source")
    source.subscribe("x")
    sizes, fields = [2, 3], [("a", "u1")]
    for shape, dtype, order in (
        (6, np.uint8, "C"),
        (6, np.uint8, "C"),
        (7, np.uint8, "C"),
        (7, "i4", "C"),
        ((7,), "i4", "C"),
        ((2, 3), "i4", "F"),
        ((2, 3), "i4", "C"),
        (sizes, fields, "C"),
        (sizes, fields, "C"),
    ):
        asked: Any = shape
        with source.loan_array("x", asked, dtype, order=order) as loan:  # type: ignore[arg-type]
            loan.array[:] = np.zeros(shape, dtype)
        got = received(source)
        assert (got.shape, got.dtype) == (np.empty(shape).shape, np.dtype(dtype))
        assert got.flags[f"{order}_CONTIGUOUS"]
        sizes[0] += 1
        fields.append((f"f{len(fields)}", "u2"))
    for bad in (True, 6.0):
        with pytest.raises(errors.InvalidSetting):
            source.loan_array("x", bad, np.uint8)  # type: ignore[arg-type]


def test_an_exception_gives_it_back_and_publishes_nothing(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source", settings=shmbus.Settings(pool_bytes=100_000))
    source.subscribe("x")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), source.loan("x", 100_000) as loan:
            loan.data[0] = 1 // 0
        assert not loan.published
    with source.loan("x", 100_000) as loan:
        loan.discard()
    source.publish("x", "nothing before")
    assert received(source) == "nothing before"


def test_it_can_be_published_before_the_block_ends(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    source.subscribe("x")
    with source.loan("x", 3) as loan:
        loan.data[:] = b"abc"
        loan.publish()
        assert loan.published
        assert received(source) == b"abc"
    assert source.receive(0) is None


def test_nobody_writes_to_it_once_it_is_published(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    with source.loan_array("x", 100, "u1") as loan:
        array, data = loan.array, loan.data
        array[:] = 1
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="released"):
        data[0]
    with pytest.raises(ValueError, match="published"):
        loan.array  # noqa: B018
    with pytest.raises(ValueError, match="used before"):
        loan.__enter__()


def test_memory_that_its_maker_still_looks_at_is_not_used_again(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source", settings=shmbus.Settings(pool_bytes=100_000))
    with source.loan_array("x", 90_000, "u1") as loan:
        loan.array[:] = 7
        kept = loan.array[10:20]
    with pytest.raises(errors.QueueFull, match="held by its own loans 90112 bytes"):
        source.loan("x", 90_000, timeout=0.05).__enter__()
    assert kept.tolist() == [7] * 10
    del kept
    with source.loan("x", 90_000, timeout=30) as loan:
        loan.data[:] = bytes(90_000)


def test_a_dispatcher_that_had_nobody_to_serve_is_not_said_to_hang(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source", settings=shmbus.Settings(pool_bytes=100_000))
    head = Segment.attach(names.names_of(bus.name).bus_segment, writable=True).memory
    with source.loan("x", 90_000):
        head.store(layout.offset(layout.BUS, "heartbeat_ns"), 0)  # as where it never has beaten
        with pytest.raises(errors.QueueFull) as caught:
            source.loan("x", 90_000, timeout=0).__enter__()
    assert caught.value.dispatcher is None
    assert "hangs" not in str(caught.value)


def fill(loan: shmbus.Loan) -> None:
    loan.data[:] = bytes(loan.nbytes)


def test_what_a_loan_is_has_a_name(bus: shmbus.Bus, attach: Attach) -> None:
    with attach("source").loan("x", 3) as loan:
        fill(loan)
        assert isinstance(loan, shmbus.Loan)
        assert loan.lent
        loan.discard()


def test_values_that_are_kept_are_named_where_they_leave_no_space(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source", settings=shmbus.Settings(pool_bytes=1 << 20))
    source.publish("x", bytes(300_000), retain=True)
    eventually(lambda: bus.retained("x"))
    with (
        source.loan("y", 500_000),  # without it there was space
        pytest.raises(errors.QueueFull, match="values that are kept 300000 bytes"),
    ):
        source.publish("x", bytes(400_000), timeout=0.05)


def test_as_many_as_can_be_lent_are_told_apart_from_no_space(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source")
    with contextlib.ExitStack() as loans:
        for _ in range(512):
            loans.enter_context(source.loan("x", 1))
        with pytest.raises(errors.QueueFull, match="512 payloads under way") as caught:
            source.loan("x", 1, timeout=0.02).__enter__()
    assert caught.value.payloads == 512
    assert "pool_bytes" not in str(caught.value)


def test_one_thread_publishes_it_and_no_other_meanwhile(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink = attach("source"), attach("sink")
    sink.subscribe("x")
    with source.loan("x", 500_000, timeout=60) as loan:
        loan.data[:] = bytes(500_000)
        publish_until_full(source, 4000)
        publish_until_full(source, 0)
        publishing = threading.Thread(target=loan.publish)
        publishing.start()
        eventually(lambda: not loan.lent)
        for call in (loan.publish, loan.discard, lambda: loan.data):
            with pytest.raises(ValueError, match="being published"):
                call()
        sizes = list[int]()
        while not loan.published:
            sizes.append(len(received(sink)))
        publishing.join(30)
    source.publish("x", "the last")
    sizes += map(len, iter(lambda: received(sink), "the last"))
    assert sizes.count(500_000) == 1


def test_a_forked_child_neither_writes_to_it_nor_publishes_it(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source")
    source.subscribe("x")
    with source.loan_array("x", 200_000, "u1") as loan:
        loan.array[:] = 7
        child = os.fork()
        if not child:
            try:
                loan.array[:] = 9
                loan.publish()
            except errors.ForkedEndpoint:
                os._exit(3)
            finally:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert (received(source) == 7).all()
    assert source.receive(0) is None


def test_nothing_is_too_small_to_be_lent(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    source.subscribe("x")
    with source.loan("x", 0) as loan:
        assert len(loan.data) == 0
    assert received(source) == b""
    with source.loan_array("x", (0, 3), "f8") as loan:
        assert loan.array.shape == (0, 3)
    assert received(source).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"nbytes": -1}, "nbytes"),
        ({"nbytes": 1.5}, "nbytes"),
        ({"nbytes": 1, "align": 3}, "align"),
        ({"nbytes": 1, "retain": "yes"}, "retain"),
        ({"shape": (1, -1), "dtype": "u1"}, "shape"),
        ({"shape": 1, "dtype": object}, "dtype"),
        ({"shape": 1, "dtype": "no such"}, "dtype"),
        ({"shape": 1, "dtype": "u1", "order": "K"}, "order"),
    ],
)
def test_what_cannot_be_lent_is_refused(
    bus: shmbus.Bus, attach: Attach, arguments: dict[str, Any], setting: str
) -> None:
    source: Any = attach("source")
    lend = source.loan if "nbytes" in arguments else source.loan_array
    with pytest.raises(errors.InvalidSetting) as caught:
        lend("x", **arguments)
    assert caught.value.setting == setting
    assert "send " not in str(caught.value)  # nothing is sent, it is lent


def test_more_than_the_pool_has_is_refused_at_once(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source", settings=shmbus.Settings(pool_bytes=8192))
    with pytest.raises(errors.MessageTooLarge, match="pool_bytes"):
        source.loan("x", 8193)
    with pytest.raises(errors.MessageTooLarge, match=r"pool_bytes=16384\)") as caught:
        source.loan_array("x", 8192, "u1")  # which is less than with what says so
    assert caught.value.size > 8192
    with pytest.raises(errors.MessageTooLarge, match=r"Send parts$"):  # no setting is that large
        source.loan_array("x", (2**40, 2**40), "f8")
    with pytest.raises(errors.InvalidType):
        source.loan("not a type", 1)
    eventually(lambda: bus.pools() == [])
