"""Waiting for receivers, and how long any wait may take."""

import math
import threading
from collections.abc import Callable

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import Attach


@pytest.mark.parametrize("timeout", [None, math.inf])
def test_there_may_be_no_limit_to_waiting(bus_name: str, timeout: float | None) -> None:
    bus = shmbus.serve(bus_name)
    endpoint = shmbus.attach(bus_name, timeout=timeout)
    endpoint.subscribe("x")
    endpoint.wait_for("x", timeout=timeout)
    endpoint.publish("x", timeout=timeout)
    assert endpoint.receive(timeout) is not None
    endpoint.drain(timeout)
    bus.close(timeout=timeout)


def test_no_timeout_is_nan(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("me")
    calls: list[Callable[[float], object]] = [
        lambda timeout: shmbus.attach(bus.name, timeout=timeout),
        lambda timeout: endpoint.wait_for("unknown", timeout=timeout),
        lambda timeout: endpoint.request("unknown", timeout=timeout),
        endpoint.receive,
        endpoint.drain,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="number of seconds"):
            call(float("nan"))
    endpoint.publish("still.attached")


@pytest.mark.smoke
def test_wait_for_waits_for_receivers(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint, late = attach("e"), attach("late")
    with pytest.raises(errors.WaitTimeout) as caught:
        endpoint.wait_for("x", timeout=0.02)
    assert (caught.value.pattern, caught.value.receivers, caught.value.found) == ("x", 1, 0)
    thread = threading.Thread(target=lambda: endpoint.wait_for("x", timeout=30))
    thread.start()
    late.subscribe("x")
    thread.join()
    endpoint.publish("x")
    assert late.receive(10) is not None


def test_wait_for_counts_subscribers_and_handlers_but_no_taps(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint, both, tap = attach("e"), attach("both"), attach("tap")
    endpoint.subscribe("x.*")
    both.subscribe("x.y")
    both.handle("x.>", print)
    tap.tap("x.y")
    endpoint.wait_for("x.y", receivers=2, timeout=30)
    with pytest.raises(errors.WaitTimeout) as caught:
        endpoint.wait_for("x.y", receivers=3, timeout=0.02)
    assert caught.value.found == 2
