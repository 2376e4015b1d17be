"""What is given for a time or a number and is none is refused, and the error says which argument,
what it was, and what to give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import shmbus
from shmbus import Endpoint, errors
from shmbus.testing import Attach

TIMES: dict[str, Callable[[Endpoint, Any], object]] = {
    "publish": lambda ep, t: ep.publish("full", b"", timeout=t),
    "send": lambda ep, t: ep.send("full", b"", timeout=t),
    "publish_many": lambda ep, t: ep.publish_many([("full", b"")], timeout=t),
    "request": lambda ep, t: ep.request("x", timeout=t),
    "request_async": lambda ep, t: ep.request_async("x", timeout=t),
    "request_many": lambda ep, t: list(ep.request_many([("x", None)], timeout=t)),
    "receive": lambda ep, t: ep.receive(t),
    "receive_many": lambda ep, t: ep.receive_many(3, t),
    "wait_for": lambda ep, t: ep.wait_for("x", timeout=t),
    "drain": lambda ep, t: ep.drain(t),
    "health": lambda ep, t: ep.bus.health(late=t),
    "attach": lambda ep, t: shmbus.attach(ep.bus.name, timeout=t),
    "gather": lambda ep, t: ep.gather("x", timeout=t),
    "stream": lambda ep, t: ep.stream("x", timeout=t),
    "total": lambda ep, t: ep.stream("x", total=t),
}
OTHER_NAMES = {"health": "late", "total": "total"}
COUNTS: dict[str, Callable[[Endpoint, Any], object]] = {
    "threads": lambda ep, n: ep.run(threads=n),
    "receivers": lambda ep, n: ep.wait_for("x", receivers=n),
    "window": lambda ep, n: list(ep.request_many([("x", None)], window=n)),
    "n": lambda ep, n: ep.receive_many(n),
}


@pytest.mark.parametrize("call", TIMES)
@pytest.mark.parametrize("given", ["5", [], float("nan")])
def test_what_is_no_time_is_refused(call: str, given: Any, bus: shmbus.Bus, attach: Attach) -> None:
    with pytest.raises(errors.InvalidSetting) as caught:
        TIMES[call](attach(call), given)
    problem = caught.value
    assert problem.setting == OTHER_NAMES.get(call, "timeout")
    assert repr(given) in str(problem)
    assert "number of seconds" in str(problem)


@pytest.mark.parametrize("argument", ["retain", "urgent"])
@pytest.mark.parametrize("given", ["no", 1, None])
def test_what_is_neither_yes_nor_no_is_refused(
    argument: str, given: Any, bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach(argument)
    for publish in (endpoint.publish, endpoint.batch().publish):
        with pytest.raises(errors.InvalidSetting, match="Give True or False") as caught:
            publish("x", 1, **{argument: given})
        assert (caught.value.setting, caught.value.value) == (argument, given)


@pytest.mark.parametrize("argument", COUNTS)
@pytest.mark.parametrize("given", ["2", 1.5, -1, True])
def test_what_is_no_number_of_things_is_refused(
    argument: str, given: Any, bus: shmbus.Bus, attach: Attach
) -> None:
    with pytest.raises(errors.InvalidSetting, match=argument):
        COUNTS[argument](attach(argument), given)


def test_what_is_no_delay_is_refused(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("worker")
    endpoint.subscribe("job", group="workers")
    endpoint.publish("job", 1)
    job = endpoint.receive(5)
    assert job is not None
    for given in ("3", None, -1.0, float("nan")):
        with pytest.raises(errors.InvalidSetting, match="delay"):
            job.nack(delay=given)  # type: ignore[arg-type]
    job.done()
