"""Attaching to a bus: :func:`attach`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, Self

from ringbuf import RingbufError, Segment, SegmentNotFound, SegmentNotReady
from ringbuf.doorbell import make as make_bell
from ringbuf.doorbell import unlink as unlink_bell
from ringbuf.segment import unlink
from shmbus import errors
from shmbus.settings import OF_BUS, Settings, check_settings
from shmbus.shared import _kernel, grants, green, names, segments, shortage
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.layout import BUS, LAYOUT, BusState, SegmentKind, view
from shmbus.shared.processes import namespace, start_time
from shmbus.shared.signals import uninterrupted
from shmbus.views import discovery, removed_names

from . import door, exits, payloads
from ._kernel import prepare_up, up_size
from .endpoint import Endpoint
from .interest_log import InterestWriter
from .payloads import DecodeHook, EncodeHook
from .seat import DoorConnection, Seat


def attach(
    bus: str | None = None,
    *,
    name: str | None = None,
    timeout: float | None = 5.0,
    settings: Settings | None = None,
    types: Mapping[str, Any] | None = None,
    encode: EncodeHook | None = None,
    decode: DecodeHook | None = None,
    reconnect: bool | Literal["always"] = False,
) -> Endpoint:
    """Attach to a bus.

    `bus`: None takes the one that SHMBUS_BUS in the environment names, or else the only one that
    runs. `name`: of this endpoint, unique on the bus; None makes one up. `timeout`: seconds to wait
    until the bus is there and admits this endpoint (None: no limit). `settings`: of this endpoint,
    by default the bus's. `types`: payload types by pattern of message type. `encode`, `decode`: for
    types that msgspec does not know, its enc_hook and dec_hook: `encode(value)` returns what to
    send in its place, `decode(type, value)` makes a `type` of it at the receiver, where that type
    is expected. What they raise is an `EncodeError` or a `DecodeError`. `reconnect`: where the
    dispatcher dies, or leaves the bus to a successor, calls wait for the next one instead of
    raising `BusDown`. Where the bus is ended in good order they raise it all the same: that is how
    a host tells everybody to go. "always" waits for the next dispatcher then, too, as a host needs
    that is restarted under its workers.

    Raises `AttachTimeout`, `NoSuchBus`, `NameTaken`, `BusFull`, `LayoutMismatch`, `SegmentError`,
    `InvalidName`, `InvalidSetting`, `Forbidden`, `Refused`, `NotSupported`; `NoResource` or
    `NoThread` where the system gives no more. Then nothing of it is left, whoever keeps the error.
    """
    if name is not None:
        names.check_endpoint(name)
    return _attach_any(
        bus,
        name=name,
        timeout=timeout,
        settings=settings,
        types=types,
        encode=encode,
        decode=decode,
        reconnect=reconnect,
    )


def attach_as(
    name: str,
    bus: str | None = None,
    *,
    timeout: float | None = 5.0,
    settings: Settings | None = None,
    reconnect: bool | Literal["always"] = False,
) -> Endpoint:
    """Attach a link to a bus: by a name that begins with ``@``, which no user's endpoint has.
    Raises like `attach`."""
    return _attach_any(
        bus, name=names.check_link(name), timeout=timeout, settings=settings, reconnect=reconnect
    )


def _attach_any(
    bus: str | None,
    *,
    name: str | None,
    timeout: float | None,
    settings: Settings | None,
    reconnect: bool | Literal["always"],
    types: Mapping[str, Any] | None = None,
    encode: EncodeHook | None = None,
    decode: DecodeHook | None = None,
) -> Endpoint:
    """What both do, once the name is known to be one."""
    if reconnect not in (True, False, "always"):
        raise errors.InvalidSetting(
            setting="reconnect",
            value=reconnect,
            reason="no such choice",
            remedy='Give True, False or "always"',
        )
    green.refuse("attaching")
    if bus is not None:
        names.check_bus(bus)
    wanted = _Wanted(
        name,
        check_settings(settings),
        payloads.check_types(types),
        payloads.Codec(encode, decode),
        reconnect,
    )  # before anything is made
    seated: list[Endpoint] = []
    try:
        with discovery.named(bus):
            _attach(bus, wanted, _Time.of(timeout), seated)
    except BaseException:
        for endpoint in seated:  # a signal's handler raised, and the caller does not get it
            endpoint.close()
        raise
    return seated[0]


def _attach(bus: str | None, wanted: _Wanted, time_left: _Time, seated: list[Endpoint]) -> None:
    """Seat one endpoint, or raise."""
    bus = _choose(bus, time_left)
    while not seated:
        try:
            with shortage.nothing_kept(), shortage.told(bus, "memory to attach with"):
                _try(bus, wanted, time_left, seated)
                break
        except (errors.SegmentError, errors.NoResource) as problem:
            # The bus may have ended just after it admitted us; another may begin.
            if not _was_gone(problem):
                raise
            if time_left.is_over():
                raise _too_late(bus, time_left) from problem
        time.sleep(0.005)


def _was_gone(problem: BaseException | None) -> bool:
    """Whether the reason is that a name of the bus is not there."""
    while problem is not None:
        if isinstance(problem, SegmentNotFound | SegmentNotReady | FileNotFoundError):
            return True
        problem = problem.__cause__
    return False


class _Wanted(NamedTuple):
    """What the caller of `attach` wants."""

    name: str | None
    settings: Settings | None
    types: payloads.Types
    codec: payloads.Codec
    reconnect: bool | Literal["always"]


class _Time(NamedTuple):
    """How long it may take; ns on the monotonic clock."""

    began: int
    deadline: int
    seconds: float | None

    @classmethod
    def of(cls, timeout: float | None) -> Self:
        seconds, now = _kernel.seconds(timeout), monotonic_ns()
        return cls(now, (1 << 62) if seconds is None else now + int(seconds * 1e9), seconds)

    def is_over(self) -> bool:
        return monotonic_ns() >= self.deadline


class _Limits(NamedTuple):
    """Settings of an endpoint, by default those of its bus."""

    prefetch: int
    pool_bytes: int
    loans: int


def _try(bus: str, wanted: _Wanted, time_left: _Time, seated: list[Endpoint]) -> None:
    """Attach and append the endpoint to `seated`, or raise; the caller tries again where the bus
    was just being replaced."""
    of = names.names_of(bus)
    owner = names.new_owner(os.getpid(), start_time(os.getpid()))
    name = wanted.name or _make_up(owner)
    with _await_bus(bus, of, time_left) as segment:
        facts = _kernel.bus_facts(segment.memory)
        _check_namespace(bus, segment)
        if wanted.settings is not None:
            _check_scope(wanted.settings, segment)
    settings = wanted.settings or Settings(
        in_bytes=facts.in_bytes,
        out_bytes=facts.out_bytes,
        reply_bytes=facts.reply_bytes,
        max_requests=facts.max_requests,
    )
    limits = _Limits(
        settings.prefetch or facts.prefetch,
        facts.pool_bytes if settings.pool_bytes is None else settings.pool_bytes,
        facts.loans if settings.loans is None else settings.loans,
    )
    stays = wanted.reconnect == "always"
    with exits.Undo() as undo:
        up = undo.make(
            lambda: _make_up_segment(of, owner, name, settings, limits, stays=stays),
            partial(unlink, of.up(owner)),
        )
        log = undo.make(
            lambda: InterestWriter(of, owner, name), partial(unlink, of.interests(owner, 1))
        )
        bell = of.endpoint_bell(owner)[1:]
        undo.make(lambda: make_bell(bell), partial(unlink_bell, bell))
        connection = DoorConnection()
        undo.by(connection.close)
        admission = door.knock(
            bus,
            connection,
            nonce=int(owner.nonce, 16),
            start_time=owner.start,
            began_ns=time_left.began,
            deadline_ns=time_left.deadline,
        )
        # The bus may have been made anew while we waited at the door.
        bus_segment = segments.attach(bus, of.bus_segment, SegmentKind.BUS)
        ready = segments.attach(bus, of.ready, SegmentKind.READY, writable=True)
        down = segments.attach(bus, of.down(admission.slot, admission.generation), SegmentKind.DOWN)
        seat = Seat(
            names=of,
            owner=owner,
            name=name,
            settings=settings,
            types=wanted.types,
            codec=wanted.codec,
            reconnect=wanted.reconnect,
            slot=admission.slot,
            generation=admission.generation,
            door=connection,
            log=log,
            bus=bus_segment.memory,
            ready=ready.memory,
            up=up.memory,
            down=down.memory,
            grant=grants.read(down.memory),
            bus_file=(names.SHM / of.bus_segment).stat().st_ino,
        )
        with uninterrupted():
            seated.append(Endpoint._seated(seat))
            undo.keep()
        for segment in (bus_segment, ready, up, down):
            segment.close()  # the connection keeps the mappings


def _make_up_segment(
    of: names.BusNames,
    owner: names.Owner,
    name: str,
    settings: Settings,
    limits: _Limits,
    *,
    stays: bool,
) -> Segment:
    """Our own segment, complete."""
    requests = settings.request_limit
    return segments.create(
        of.up(owner),
        up_size(settings.out_bytes, settings.reply_bytes, requests),
        SegmentKind.UP,
        lambda mapping: prepare_up(
            mapping,
            pid=owner.pid,
            uid=os.geteuid(),
            start_time=owner.start,
            pid_namespace=namespace("pid"),
            time_namespace=namespace("time"),
            nonce=int(owner.nonce, 16),
            stays=stays,
            name=name.encode(),
            in_bytes=settings.in_bytes,
            out_bytes=settings.out_bytes,
            reply_bytes=settings.reply_bytes,
            requests=requests,
            prefetch=limits.prefetch,
            pool_limit=limits.pool_bytes,
            loans=limits.loans,
        ),
    )


def _check_scope(settings: Settings, segment: Segment) -> None:
    """Raises `InvalidSetting` for what only a bus can be given, and this one was not."""
    theirs, ours = view(segment.memory, BUS)[0], settings.bus_words()
    for setting, word in OF_BUS.items():
        value = getattr(settings, setting)
        if value != getattr(Settings(), setting) and ours[word] != int(theirs[word]):
            raise errors.InvalidSetting(
                setting=setting,
                value=value,
                reason="it is the bus's, not of one endpoint",
                remedy="Give it to serve(settings=), or leave it out here",
            )


def _check_namespace(bus: str, segment: Segment) -> None:
    """Raises `Refused`. The dispatcher could not report this: it sees another pid of ours than our
    segment's name has, and so does not find the segment."""
    theirs = view(segment.memory, BUS)[0]["identity"]
    if int(theirs["pid_namespace"]) not in (0, namespace("pid")):
        raise errors.Refused(
            bus=bus,
            reason="its dispatcher is in another pid namespace than this process",
            remedy="Run both in one, or let the containers share it",
        )


def _too_late(bus: str, time_left: _Time) -> errors.AttachTimeout:
    """The error where a name of the bus is missing: it was removed, or there is no bus."""
    pid = removed_names.dispatcher_of_nameless(bus)
    return errors.AttachTimeout(
        bus=bus, seconds=time_left.seconds or 0.0, pid=pid, removed=pid is not None
    )


def _make_up(owner: names.Owner) -> str:
    """A name for an endpoint that was given none."""
    program = os.path.basename(sys.argv[0] or "python")[:24]
    program = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in program)
    return f"{program}-{owner.pid}-{owner.nonce[:6]}"


def _choose(bus: str | None, time_left: _Time) -> str:
    while bus is None:
        try:
            bus = discovery.choose(None)
        except errors.NoSuchBus as problem:
            if problem.running or time_left.is_over():
                raise
            time.sleep(0.01)
    return bus


def _await_bus(bus: str, of: names.BusNames, time_left: _Time) -> Segment:
    """The bus's segment, once it is there and served."""
    pause = 0.002
    while True:
        try:
            segment = Segment.attach(of.bus_segment, kind=SegmentKind.BUS, layout=LAYOUT)
            serves = _kernel.bus_facts(segment.memory).state != BusState.ENDED
            if (
                serves and of.complete()
            ):  # else we could be admitted, and then miss a name, for ever
                return segment
            segment.close()
        except (SegmentNotFound, SegmentNotReady):
            pass
        except RingbufError as problem:
            raise segments.error(bus, of.bus_segment, problem) from problem
        if time_left.is_over():
            raise _too_late(bus, time_left)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
