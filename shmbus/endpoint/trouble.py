"""What stands in the way of an endpoint's calls, as the error that says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntFlag
from typing import TYPE_CHECKING
from uuid import UUID

from ringbuf import layout_text
from shmbus import errors
from shmbus.shared import _kernel
from shmbus.shared.failures import from_code
from shmbus.shared.layout import BusState, FaultCode, Reason
from shmbus.shared.messages import reason_word

if TYPE_CHECKING:
    from ringbuf._kernel import Mapping
    from shmbus.views.observe import BusView


class Trouble(IntFlag):
    """enum ep_trouble, which says more."""

    CLOSED_HERE = 1
    BUS_DEAD = 2
    BUS_HANDED = 4
    BUS_OVER = 8
    TAKEN_OFF = 16
    RING_BAD = 32
    STOPPING = 64

    FOR_NOW = BUS_DEAD | BUS_HANDED
    FOR_GOOD = CLOSED_HERE | BUS_OVER | TAKEN_OFF | RING_BAD


def taken_off(endpoint: str, mapping: Mapping, slot: int, generation: int) -> errors.Evicted:
    """The dispatcher has given up the endpoint that was in this slot."""
    row = _kernel.read_row(mapping, slot)
    reason = row.reason if row is not None and row.generation == generation else Reason.EVICTED
    return errors.Evicted(endpoint=endpoint, reason=reason_word(reason))


def bus_down(trouble: int, bus: str, mapping: Mapping) -> errors.BusDown:
    """The bus has no dispatcher, for now or for good."""
    if trouble & Trouble.BUS_OVER:
        mine, theirs = _kernel.layout_hash(), mapping.read_prefix().superseded_by
        reason = "it has been ended"
        if _kernel.bus_facts(mapping).state != BusState.ENDED:
            reason = "somebody removed its names, and another bus has its place: attach anew"
        if theirs:
            reason = (
                f"a bus of layout {layout_text(theirs)} took the place of this one of layout "
                f"{layout_text(mine)}"
            )
    elif trouble & Trouble.BUS_HANDED:
        reason = "its dispatcher left it to a successor"
    else:
        reason = "its dispatcher died"
    return errors.BusDown(bus=bus, reason=reason, pid=_kernel.bus_facts(mapping).pid)


def no_answer(bus: str, mapping: Mapping, seconds: float) -> errors.AttachTimeout:
    """The dispatcher is there, and has not answered for so long."""
    facts = _kernel.bus_facts(mapping)
    silent = (time.monotonic_ns() - facts.control_ns) / 1e9 if facts.control_ns else None
    return errors.AttachTimeout(bus=bus, seconds=seconds, pid=facts.pid, silent=silent)


def fault(
    view: Callable[[], BusView],
    mapping: Mapping,
    type: str,
    code: int,
    pid: int,
    number: int,
    name: bytes,
    size: int,
    identity: bytes,
) -> errors.BusError:
    """What the dispatcher answered instead of a handler; `number` is a limit, or a reason."""
    endpoint = name.split(b"\0", 1)[0].decode("ascii", "replace")
    died = code == FaultCode.ENDPOINT_DIED
    if code == FaultCode.HANDLER_FULL:
        ring = next((i.incoming for i in view().endpoints() if i.name == endpoint), None)
        return errors.QueueFull(
            type=type,
            endpoint=endpoint,
            depth=ring.depth if ring else 0,
            capacity=ring.capacity if ring else 0,
            seconds=_kernel.bus_facts(mapping).block_timeout_ns / 1e9,
        )
    return from_code(
        code,
        type=type,
        endpoint=endpoint,
        pid=pid or None,
        reason=reason_word(number) if died else "",
        size=size,
        limit=0 if died else number,
        correlation_id=UUID(bytes=identity) if identity else None,
    )
