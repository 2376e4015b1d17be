"""Timeouts are measured by the system's clock, whatever a library for tests makes of Python's."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import Attach
from tests.kept import Kept


@pytest.fixture
def frozen() -> Iterator[None]:
    """Python's clocks stand still, replaced as freezegun does it: wherever a module has them."""
    clocks = {
        id(clock): clock
        for clock in (time.monotonic, time.monotonic_ns, time.perf_counter, time.perf_counter_ns)
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name != "time" and not name.startswith(("shmbus", "ringbuf")):
                continue
            for attribute, value in list(vars(module).items()):
                if id(value) in clocks:
                    at = clocks[id(value)]()
                    patch.setattr(module, attribute, lambda at=at: at)
        assert time.monotonic() == time.monotonic()
        yield


def test_every_timeout_ends_where_a_test_has_frozen_pythons_clocks(
    bus: shmbus.Bus, attach: Attach, frozen: None
) -> None:
    endpoint, other = attach("one"), attach("other")
    other.handle("slow", Kept())
    other.start()
    with pytest.raises(errors.WaitTimeout):
        endpoint.wait_for("nobody.subscribes", timeout=0.05)
    with pytest.raises(errors.RequestTimeout):
        endpoint.request("slow", timeout=0.05)
    with pytest.raises(errors.RequestTimeout):
        endpoint.request_async("slow", timeout=0.05).result(60)
    assert endpoint.receive(0.05) is None
    with pytest.raises(errors.AttachTimeout):
        shmbus.attach(f"{bus.name}-not-there", timeout=0.05)
    with pytest.raises(errors.NameTaken):
        attach("other")
    endpoint.drain(timeout=5)


def test_a_drain_that_takes_too_long_ends_where_a_test_has_frozen_pythons_clocks(
    bus: shmbus.Bus, attach: Attach, frozen: None
) -> None:
    endpoint, kept = attach("one"), list[shmbus.Message]()

    def keep(message: shmbus.Message) -> None:
        kept.append(message)
        message.defer()

    endpoint.handle("slow", keep)
    endpoint.start()
    asked = attach("asker").request_async("slow", timeout=None)
    while not kept:
        time.sleep(0.001)
    with pytest.raises(errors.DrainTimeout):
        endpoint.drain(timeout=0.1)
    with pytest.raises(errors.EndpointDied):
        asked.result(60)
