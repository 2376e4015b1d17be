"""Every error of the bus, in one tree under `BusError`.

Each class takes its facts by keyword and keeps them as attributes (endpoint, type, limit, setting,
seconds, ...); the message is built from them, names them, and ends with what to do. All of them can
be pickled.
"""

from __future__ import annotations

import dataclasses
from typing import Any, dataclass_transform
from uuid import UUID

from .limits import GROUPS, MAX_NAME, MAX_TYPE


class Wording:
    """How messages name what their readers can do: by the calls of this package. A program whose
    users have options and commands instead has a wording of its own, see `BusError.told`."""

    longer = "timeout="
    """What makes a call wait longer."""
    at_least = "at_least="
    """What says how many replies are wanted."""
    endpoints = "bus.endpoints()"
    """What lists the endpoints of a bus."""
    route = "bus.route()"
    """What says whom a type goes to."""
    whose = ""
    """Whose the settings are, where they are not the reader's own."""
    which_bus = ""
    """What names a bus where there are several."""
    traceback = True
    """Whether a traceback is of use."""

    def wait_for(self, type: str) -> str:
        """What waits until an endpoint receives this type."""
        return f"ep.wait_for({type!r})"

    def serve(self, bus: str) -> str:
        """What serves a bus."""
        return f"python -m shmbus {bus}"

    def reconnect(self, how: str) -> str:
        """That calls would wait for the next dispatcher, to be added to how to start it."""
        return {
            "": "",
            "True": "; with reconnect=True calls wait for that",
            "always": ' and attach anew; with reconnect="always" calls wait',
        }[how]

    def setting(self, *names: str, to: int | None = None) -> str:
        """Settings, with the value that they need, where it is known."""
        return "Settings(" + ", ".join(f"{name}={to or '...'}" for name in names) + ")"


@dataclass_transform(kw_only_default=True, eq_default=False)
class BusError(Exception):
    """Anything that went wrong on a bus. Subclasses declare their facts as fields."""

    _by = Wording()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # eq=False keeps exceptions hashable and compared by identity, as `raise ... from` and
        # loggers expect.
        dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)

    def __post_init__(self) -> None:
        self.args = (self._explain(),)

    def _explain(self) -> str:
        """The message: what happened, to whom, and what to do."""
        return str(vars(type(self)).get("__doc__") or type(self).__name__).splitlines()[0]

    def told(self, by: Wording) -> str:
        """The message in other words than those of this package's calls."""
        if type(self) is BusError:  # made by hand, with a plain message
            return str(self)
        self._by = by
        try:
            return self._explain()
        finally:
            del self._by

    @property
    def data(self) -> dict[str, Any]:
        """The facts by name, for logs and JSON."""
        return {name: getattr(self, name) for name in getattr(self, "__dataclass_fields__", ())}

    def __reduce__(self) -> tuple[Any, ...]:
        if type(self) is BusError:  # made by hand, with a plain message
            return BusError, self.args
        return _restore, (type(self), self.data), self.__dict__  # the notes, too


_BESIDE_PAYLOAD = 64 + MAX_TYPE  # bytes that a message takes beside its payload: header, type


def _restore(error: type[BusError], data: dict[str, Any]) -> BusError:
    return error(**data)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"


def _of(size: int | None) -> str:
    return "" if size is None else f" of {size} bytes"


def _at(index: int | None) -> str:
    return "" if index is None else f"message {index} of the batch: "


def _named_by(variable: str, remedy: str = "set that to another, or unset it") -> str:
    """That a name comes from the environment, to be added to a message."""
    return f". {variable} in the environment names it: {remedy}" if variable else ""


def _go_on(dispatcher: int, stopped: bool) -> str:
    """What to do about a dispatcher that does not get on."""
    if stopped:
        return f"Let it go on: kill -CONT {dispatcher}"
    return f"See what blocks that process: py-spy dump --pid {dispatcher}"


def _standstill(dispatcher: int, silent: float, stopped: bool) -> str:
    """That it does not get on, and what to do."""
    return (
        f"dispatcher {dispatcher} {'is stopped' if stopped else 'hangs'} and has forwarded nothing "
        f"for {_seconds(silent)}. {_go_on(dispatcher, stopped)}"
    )


# Not accepted: nothing was sent.


class NotAccepted(BusError):
    """A message was not accepted: no endpoint will get it."""


KEPT = "values that are kept"
"""Among the holders of a pool, what stands for these; no endpoint has such a name."""

LENT = "its own loans"
"""Likewise for what its endpoint fills, or still looks at."""


class QueueFull(NotAccepted):
    """A ring, or a pool, stayed full: the message was not accepted."""

    type: str
    endpoint: str
    """Whose ring, or pool, is full."""
    depth: int
    """Bytes waiting in it; of a pool: in use."""
    capacity: int
    """Bytes that it holds."""
    seconds: float
    setting: str = "out_bytes"
    index: int | None = None
    """Which message of a batch."""
    dispatcher: int | None = None
    """The dispatcher's pid, where that does not get on."""
    silent: float = 0.0
    """Of such a dispatcher: seconds since it last forwarded anything."""
    stopped: bool = False
    """Of such a dispatcher: whether its process is stopped."""
    holders: tuple[tuple[str, int], ...] = ()
    """Of a pool: which endpoints hold how many bytes of it, by name, the largest first: in their
    rings and not taken yet, or looked at; ``"values that are kept"`` (``retain=True``), which go
    when newer ones of their types replace them; and ``"its own loans"``, with what it still looks
    at of those that it has published."""
    payloads: int = 0
    """Of a pool: how many are under way, where it can have no more, however small; else 0."""
    largest: int = 0
    """Of a pool: bytes of its largest free piece. A payload needs one piece."""

    def _explain(self) -> str:
        if self.setting in ("pool_bytes", "pool_total_bytes"):
            return self._pool_full()
        if self.dispatcher is not None:
            return (
                f"{_at(self.index)}{self.type!r} not accepted: the ring of endpoint "
                f"{self.endpoint!r} stayed full for {_seconds(self.seconds)}, since "
                f"{_standstill(self.dispatcher, self.silent, self.stopped)}"
            )
        if self.setting == "backlog_bytes":
            return (
                f"{self.type!r} not accepted: nobody who handles it was free for "
                f"{_seconds(self.seconds)}, and the backlog was full. Send more slowly, start more "
                "endpoints that handle it, or enlarge "
                f"{self._by.whose}{self._by.setting(self.setting)}"
            )
        return (
            f"{_at(self.index)}{self.type!r} not accepted: the ring of endpoint {self.endpoint!r} "
            f"stayed full for {_seconds(self.seconds)} ({self.depth} of {self.capacity} bytes). "
            f"Send more slowly, wait longer ({self._by.longer}), find the slow receiver (shmbus "
            f"ls), or enlarge {self._by.whose}{self._by.setting(self.setting)}"
        )

    def _pool_full(self) -> str:
        held = ", ".join(
            f"{name if name in (KEPT, LENT) else repr(name)} {size} bytes"
            for name, size in self.holders[:4]
        )
        if self.dispatcher is not None:
            why = f", since {_standstill(self.dispatcher, self.silent, self.stopped)}"
        elif held:
            why = f"; held by {held}"
        else:
            why = ", and no receiver holds any of it"
        whose = self._by.whose if self.setting == "pool_bytes" else "the bus's "
        lacks = f"no space for it for {_seconds(self.seconds)}"
        last = f"enlarge {whose}{self._by.setting(self.setting)}"
        piece = f", {self.largest} free in one piece"
        if self.payloads:
            lacks = (
                f"{self.payloads} payloads under way, which are all, for {_seconds(self.seconds)}"
            )
            last, piece = "send several in one message", ""
        return (
            f"{_at(self.index)}{self.type!r} not accepted: the pool of endpoint {self.endpoint!r} "
            f"had {lacks} ({self.depth} of {self.capacity} bytes in use{piece}){why}. Send more "
            f"slowly, wait longer ({self._by.longer}), have receivers drop messages and arrays "
            f"sooner (Message.release()), or {last}"
        )


class RequestsFull(NotAccepted):
    """Too many requests of this endpoint are in flight."""

    type: str
    endpoint: str
    limit: int
    seconds: float
    setting: str = "max_requests"

    def _explain(self) -> str:
        return (
            f"{self.type!r} not accepted: {self.limit} requests of endpoint {self.endpoint!r} are "
            f"in flight, none ended within {_seconds(self.seconds)}. Wait for replies, or enlarge "
            f"{self._by.whose}{self._by.setting(self.setting)}"
        )


class MessageTooLarge(NotAccepted):
    """A message does not fit the rings it has to pass, or the pool of its sender."""

    type: str
    size: int
    """Bytes of its payload."""
    limit: int
    """Bytes of the largest payload that fits."""
    endpoint: str
    """Whose ring, or pool, is too small."""
    setting: str = "out_bytes"
    """Which has to be larger."""
    index: int | None = None
    """Which message of a batch."""

    def _explain(self) -> str:
        if self.setting in ("pool_bytes", "pool_total_bytes"):
            return self._beyond_pool()
        ring = max(1 << (4 * (self.size + _BESIDE_PAYLOAD) - 1).bit_length(), 4096)
        replies = self.setting == "reply_bytes"
        rings = ("reply_bytes",) if replies else ("in_bytes", "out_bytes")
        remedy = f"serve the bus with {self._by.setting(*rings, to=ring)}"
        if not self._by.whose:
            one = self._by.setting(self.setting, to=ring)
            remedy = f"attach that endpoint with {one}, or {remedy}"
        if ring > 1 << 31:
            remedy = "send a file's name, or parts"
        return (
            f"{_at(self.index)}{self.type!r} takes {self.size} bytes, endpoint {self.endpoint!r} "
            f"carries at most {self.limit}: a quarter of its {self.setting}. Send less, or {remedy}"
        )

    def _beyond_pool(self) -> str:
        pool = 1 << (self.size - 1).bit_length()
        remedy = f"serve the bus with {self._by.setting(self.setting, to=pool)}"
        if self.setting == "pool_bytes" and not self._by.whose:
            remedy = f"attach that endpoint with {self._by.setting(self.setting, to=pool)}"
        whose = (
            "its pool_bytes" if self.setting == "pool_bytes" else "the pool_total_bytes of its bus"
        )
        return (
            f"{_at(self.index)}{self.type!r} takes {self.size} bytes, endpoint {self.endpoint!r} "
            f"carries at most {self.limit}: {whose}. Send parts, or {remedy}"
        )


class EncodeError(NotAccepted):
    """A payload cannot be encoded; raised where it was to be sent."""

    type: str
    reason: str
    size: int | None = None
    """Bytes, where known."""
    index: int | None = None
    """Which message of a batch."""

    def _explain(self) -> str:
        return (
            f"{_at(self.index)}payload{_of(self.size)} of {self.type!r} cannot be encoded: "
            f"{self.reason}. Send bytes, plain values or msgspec Structs; for other types attach "
            "with encode="
        )


# The peer failed.


class PeerFailed(BusError):
    """What another endpoint had to do was not done, or not in time."""


class RequestError(PeerFailed):
    """A request ended without a reply."""

    type: str


class NoRoute(RequestError):
    """No endpoint handles this type."""

    def _explain(self) -> str:
        return (
            f"no endpoint handles {self.type!r}. Start one that does, wait for it "
            f"({self._by.wait_for(self.type)}), or see who would get it ({self._by.route})"
        )


class RequestTimeout(RequestError, TimeoutError):
    """The reply did not come in time."""

    seconds: float
    endpoint: str | None = None
    """The handler, where it was chosen."""
    pid: int | None = None
    """Its process, where it is known."""
    begun: bool | None = None
    """Whether it had begun the request; None: not known."""
    hint: str = ""
    """The reason, if it is known."""
    dispatcher: int | None = None
    """The dispatcher's pid, where that does not get on."""
    silent: float = 0.0
    """Of such a dispatcher: seconds since it last forwarded anything."""
    stopped: bool = False
    """Of such a dispatcher: whether its process is stopped."""
    inherited: str | None = None
    """Where another deadline was sooner than the timeout: the type of the request whose handler
    made this one, or nothing where it is that of `within`."""
    sent: bool = True
    """False: that deadline had passed before, and nothing was sent."""
    parts: int = 0
    """Of a reply in parts: how many had come."""

    def _explain(self) -> str:
        if self.inherited is None:
            return self._unanswered(_seconds(self.seconds))
        whose, giver = "shmbus.within", "within"
        if self.inherited:
            whose, giver = f"the request {self.inherited!r} that it serves", repr(self.inherited)
        remedy = (
            f"Give {giver} more time ({self._by.longer}), or let this request outlive it "
            "(inherit_deadline=False)"
        )
        if not self.sent:
            return f"{self.type!r} was not sent: the deadline of {whose} has passed. {remedy}"
        left = f"{_seconds(self.seconds)}, what was left of the deadline of {whose}"
        return self._unanswered(left, remedy)

    def _unanswered(self, time: str, remedy: str = "") -> str:
        pid = "" if self.pid is None else f" (process {self.pid})"
        who = "" if self.endpoint is None else f" from endpoint {self.endpoint!r}{pid}"
        begun = {None: "", True: ", which had begun it", False: ", which had not begun it"}
        hint = f": {self.hint}" if self.hint else ""
        what = f"no part after {self.parts} of the reply to" if self.parts else "no reply to"
        lead = f"{what} {self.type!r}{who}{begun[self.begun] if who else ''} within "
        if self.dispatcher is not None:
            still = _standstill(self.dispatcher, self.silent, self.stopped)
            return f"{lead}{time}: {still}"
        return (
            f"{lead}{time}{hint}. {remedy or f'Wait longer ({self._by.longer})'}, or see that "
            "its handlers are run (start() or run()), enough of them at a time (threads=, on "
            "asyncio concurrency=), and by enough endpoints"
        )


class HandlerTimeout(RequestError, TimeoutError):
    """The handler took longer than its limit, `handle(limit=...)`. It may still finish."""

    endpoint: str
    seconds: float
    """For which the handler had run."""
    pid: int | None = None

    def _explain(self) -> str:
        pid = "" if self.pid is None else f" (process {self.pid})"
        where = "" if self.pid is None else f" (py-spy dump --pid {self.pid})"
        return (
            f"the handler of {self.type!r} at endpoint {self.endpoint!r}{pid} has taken "
            f"{_seconds(self.seconds)}, more than its limit; it goes on, and its reply will be "
            f"dropped. See where it hangs{where}, shorten it, or let it take longer: "
            "handle(limit=...)"
        )


class EndpointDied(RequestError):
    """The endpoint that handled the request is gone."""

    endpoint: str
    pid: int | None = None
    reason: str = "died"
    """In one of the words of `shmbus.Death.reason`."""
    begun: bool = True
    """False: nobody had begun it, so sending it again is harmless."""

    def _explain(self) -> str:
        pid = "" if self.pid is None else f" (process {self.pid})"
        if not self.begun:
            return (
                f"endpoint {self.endpoint!r}{pid} is gone ({self.reason}) and had not begun "
                f"{self.type!r}, which nobody else could take. Send it again once somebody "
                "handles it: that is harmless"
            )
        return (
            f"endpoint {self.endpoint!r}{pid} is gone ({self.reason}) with {self.type!r} in hand; "
            "it may have been done in part. Send it again if that is harmless, and look at that "
            "process's log"
        )


class RemoteError(RequestError):
    """The handler raised: its exception's type, message and traceback, as text."""

    endpoint: str
    error: str
    """The exception's type, by its qualified name."""
    message: str
    traceback: str = ""

    def _explain(self) -> str:
        trace = ""
        if self.traceback and self._by.traceback:
            trace = f"\n\nRemote traceback:\n{self.traceback.rstrip()}"
        return (
            f"the handler of {self.type!r} at endpoint {self.endpoint!r} raised {self.error}: "
            f"{self.message}. Fix it there{trace}"
        )


class InvalidArguments(RemoteError):
    """A service refused a call, because its arguments are not of the types that it expects."""

    def _explain(self) -> str:
        return (
            f"{self.type}: {self.message} (refused by endpoint {self.endpoint!r}). Make the caller "
            "and its class agree with the service (shmbus describe), or restart the older of both"
        )


class Withdrawn(RequestError):
    """One of those that were asked together was not waited for any more, since enough had
    replied, or too few still could."""

    endpoint: str
    replies: int
    """From others, by then."""
    enough: bool
    """Whether those were as many as were wanted."""

    def _explain(self) -> str:
        why = "as many as were wanted" if self.enough else "and too few others still could"
        return (
            f"{self.type!r} was withdrawn from endpoint {self.endpoint!r}, which had not replied: "
            f"{self.replies} had, {why}. To wait for all, leave out {self._by.at_least}"
        )


class TooFewReplies(RequestError):
    """Of those that were asked together, fewer replied than were wanted. `results` has what became
    of each; when it is pickled, the errors among it."""

    endpoint: str
    """That asked."""
    wanted: int
    replies: int
    results: dict[str, Any]
    """By the name of the endpoint that was asked: its reply, a `Message`, or the error that came
    instead."""

    def _explain(self) -> str:
        failures = [f"{name}: {type(r).__name__}" for name, r in self._failures().items()]
        more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        why = f" ({', '.join(failures[:3])}{more})" if failures else ""
        return (
            f"endpoint {self.endpoint!r} wanted {self.wanted} replies to {self.type!r} and has "
            f"{self.replies}, of {len(self.results)} that it asked{why}. Start more of them "
            f"({self._by.wait_for(self.type)}), give them more time ({self._by.longer}), or want "
            f"fewer ({self._by.at_least})"
        )

    def _failures(self) -> dict[str, Any]:
        return {name: r for name, r in self.results.items() if isinstance(r, BusError)}

    def __reduce__(self) -> tuple[Any, ...]:
        make, (error, data), state = super().__reduce__()
        failures = self._failures()
        return make, (error, data | {"results": failures}), state | {"results": failures}


class ReplyLost(RequestError):
    """The request was handled, but its reply could not be delivered."""

    endpoint: str
    reason: str

    def _explain(self) -> str:
        whose = self._by.whose or "this endpoint's "
        return (
            f"{self.type!r} was handled by endpoint {self.endpoint!r}, but its reply was lost: "
            f"{self.reason}. Enlarge {whose}{self._by.setting('reply_bytes')}, or make fewer "
            "requests at a time"
        )


class CorrelationCollision(RequestError):
    """A correlation id is in use by another request."""

    correlation_id: UUID | None

    def _explain(self) -> str:
        return (
            f"{self.type!r} was refused: correlation id {self.correlation_id} belongs to another "
            "request in flight. Let request() make the ids; attach anew if it did"
        )


class DecodeError(PeerFailed):
    """A payload is not what its receiver expects; raised at the receiver. Where a handler raises
    it, its requester gets it as a `RemoteError`."""

    type: str
    reason: str
    size: int | None = None
    """Bytes, where known."""

    def _explain(self) -> str:
        return (
            f"payload{_of(self.size)} of {self.type!r} cannot be decoded: {self.reason}. Make "
            "sender and receiver agree: the annotation, payload_type= or attach(types=...)"
        )


class InvalidResult(DecodeError):
    """What a service returned is not of the type that the caller's class names."""

    endpoint: str
    """That served it."""

    def _explain(self) -> str:
        return (
            f"{self.type}: {self.reason} (payload{_of(self.size)} from endpoint "
            f"{self.endpoint!r}). Make the service and the caller's class agree, or restart the "
            "older of both"
        )


class WaitTimeout(PeerFailed, TimeoutError):
    """Too few endpoints came that would receive a pattern."""

    pattern: str
    receivers: int
    """How many were wanted."""
    found: int
    seconds: float

    def _explain(self) -> str:
        return (
            f"{self.found} of {self.receivers} receivers of {self.pattern!r} within "
            f"{_seconds(self.seconds)}. Start those that subscribe to it or handle it, or wait "
            f"longer ({self._by.longer})"
        )


# Disconnected: the endpoint or the view is of no use, for now or for good.


class Disconnected(BusError):
    """An endpoint or a view is not connected to its bus any more."""


class BusDown(Disconnected):
    """The dispatcher is gone, or has ended the bus."""

    bus: str
    reason: str
    pid: int | None = None
    remedy: str = ""
    """By default, to start the bus again."""
    reconnect: str = ""
    """The `attach(reconnect=)` with which calls would wait for the next dispatcher: True or always;
    empty where none would."""

    def _explain(self) -> str:
        pid = "" if self.pid is None else f" (dispatcher {self.pid})"
        start = f"Start it again ({self._by.serve(self.bus)})"
        remedy = self.remedy or start + self._by.reconnect(self.reconnect)
        return f"bus {self.bus!r} is down{pid}: {self.reason}. {remedy}"


class EndpointClosed(Disconnected):
    """This process closed the endpoint."""

    endpoint: str

    def _explain(self) -> str:
        return f"endpoint {self.endpoint!r} has been closed here. Attach anew"


class Evicted(Disconnected):
    """The dispatcher evicted this endpoint (`Bus.evict`) or quarantined it."""

    endpoint: str
    reason: str

    def _explain(self) -> str:
        return f"the dispatcher ended endpoint {self.endpoint!r}: {self.reason}. Attach anew"


class RingCorrupt(Disconnected):
    """A ring of this endpoint holds what the dispatcher never writes."""

    endpoint: str
    ring: str
    position: int
    reason: str

    def _explain(self) -> str:
        return (
            f"{self.ring} ring of endpoint {self.endpoint!r} is corrupt at position "
            f"{self.position}: {self.reason}. Find what writes past its buffers in that process, "
            "and restart it"
        )


class ViewClosed(Disconnected, ValueError):
    """This process closed the view of the bus, or the bus that it served."""

    bus: str

    def _explain(self) -> str:
        return f"this view of bus {self.bus!r} has been closed here. Look anew: shmbus.observe()"


class SupervisorClosed(Disconnected):
    """This process closed the supervisor."""

    bus: str

    def _explain(self) -> str:
        return (
            f"the supervisor of bus {self.bus!r} has been closed here, and its processes with it. "
            "Start them anew: shmbus.supervise()"
        )


# Attaching and serving.


class SetupError(BusError):
    """A bus could not be attached to, served or observed."""


class AttachError(SetupError):
    """The bus could not be attached to."""

    bus: str | None


class NoSuchBus(AttachError):
    """No bus was named, and there is not exactly one; or the bus that was named does not run."""

    running: tuple[str, ...] = ()
    """The buses that do run."""
    variable: str = ""
    """The environment variable that named the bus, if one did."""

    def _explain(self) -> str:
        others = ", ".join(self.running)
        if self.bus is not None:
            seen = f"; running: {others}" if self.running else ""
            return (
                f"no bus {self.bus!r} runs on this machine{seen}. Start it: "
                f"{self._by.serve(self.bus)}{_named_by(self.variable)}"
            )
        if self.running:
            return (
                f"several buses run on this machine: {others}. Name the one that you mean"
                f"{self._by.which_bus}, or set SHMBUS_BUS to it"
            )
        return f"no bus runs on this machine. Start one: {self._by.serve('NAME')}"


class AttachTimeout(AttachError, TimeoutError):
    """The dispatcher did not admit this endpoint in time."""

    seconds: float
    pid: int | None = None
    """The dispatcher's, if there is one."""
    silent: float | None = None
    """Seconds since its control plane last ran."""
    removed: bool = False
    """Somebody removed its names from /dev/shm."""
    stopped: bool = False
    """The dispatcher's process is stopped."""
    variable: str = ""
    """The environment variable that named the bus, if one did."""

    def _explain(self) -> str:
        if self.removed:
            return (
                f"bus {self.bus!r}: not admitted within {_seconds(self.seconds)}: somebody has "
                f"removed its names from /dev/shm: its dispatcher {self.pid} is alive, those "
                "attached go on, no other can attach. Restart it, and keep cleaners and logind "
                "(RemoveIPC=no) from /dev/shm"
            )
        if self.pid is None:
            return (
                f"bus {self.bus!r}: no dispatcher within {_seconds(self.seconds)}. Start it "
                f"({self._by.serve(self.bus or 'NAME')}), or attach with a longer timeout"
                f"{_named_by(self.variable)}"
            )
        silent = (
            ""
            if self.silent is None
            else f", its control plane has not run for {_seconds(self.silent)}"
        )
        if self.stopped:
            return (
                f"bus {self.bus!r}: dispatcher {self.pid} is stopped{silent}; it did not answer "
                f"within {_seconds(self.seconds)}. {_go_on(self.pid, self.stopped)}"
            )
        return (
            f"bus {self.bus!r}: dispatcher {self.pid} is alive{silent}; it did not answer within "
            f"{_seconds(self.seconds)}. See what blocks that process (GIL held by native code?): "
            f"py-spy dump --pid {self.pid}; or attach with a longer timeout"
        )


class NameTaken(AttachError):
    """Another live endpoint has this name."""

    name: str
    pid: int

    def _explain(self) -> str:
        return (
            f"bus {self.bus!r}: endpoint name {self.name!r} is held by live process {self.pid}. "
            "Choose another name, end that process, or evict it: bus.evict(name)"
        )


class BusFull(AttachError):
    """The bus has as many endpoints as it was made for."""

    limit: int
    setting: str = "max_endpoints"

    def _explain(self) -> str:
        return (
            f"bus {self.bus!r} is full: {self.limit} endpoints. Close some, or serve it with a "
            f"larger {self._by.setting(self.setting)}"
        )


class LayoutMismatch(AttachError):
    """The bus was made by a version of shmbus whose shared memory has another layout."""

    mine: str
    theirs: str
    pids: tuple[int, ...] = ()
    """Processes that use the other layout."""

    def _explain(self) -> str:
        who = f" (processes {', '.join(map(str, self.pids))})" if self.pids else ""
        return (
            f"bus {self.bus!r} has layout {self.theirs}{who}, this process {self.mine}. Install "
            "the same version of shmbus everywhere and restart them, or start the dispatcher with "
            "--replace"
        )


class Refused(AttachError):
    """The dispatcher refused to admit this endpoint."""

    reason: str
    remedy: str
    pid: int | None = None

    def _explain(self) -> str:
        by = "" if self.pid is None else f" by dispatcher {self.pid}"
        return f"bus {self.bus!r}: admission refused{by}: {self.reason}. {self.remedy}"


class BusExists(SetupError):
    """This bus has a dispatcher already."""

    bus: str
    pid: int

    def _explain(self) -> str:
        return (
            f"bus {self.bus!r} is served by process {self.pid}. Attach to it, end that process, or "
            "choose another name"
        )


class SegmentError(SetupError):
    """A shared-memory segment, or a doorbell, could not be made, reserved or trusted. Raised from
    ringbuf's own error."""

    name: str
    reason: str
    remedy: str
    size: int | None = None
    """Bytes asked for."""
    free: int | None = None
    """Bytes free in /dev/shm."""

    def _explain(self) -> str:
        size = "" if self.size is None else f" ({self.size} bytes)"
        free = "" if self.free is None else f", {self.free} bytes are free"
        return f"segment {self.name!r}{size}: {self.reason}{free}. {self.remedy}"


class NoResource(SetupError):
    """The system gives this process no more descriptors, memory or address space."""

    bus: str | None
    what: str
    """What could not be had."""
    reason: str
    remedy: str

    def _explain(self) -> str:
        bus = "" if self.bus is None else f"bus {self.bus!r}: "
        return f"{bus}no {self.what} could be had: {self.reason}. {self.remedy}"


class NotSupported(SetupError):
    """This platform, interpreter or build cannot do it."""

    feature: str
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"{self.feature} is not supported: {self.reason}. {self.remedy}"


class NoThread(SetupError, RuntimeError):
    """The system gives this process no further thread."""

    endpoint: str | None = None
    task: str
    """What the thread was for."""
    reason: str
    bus: str | None = None
    """Whose dispatcher's, where it is no endpoint's."""

    def _explain(self) -> str:
        bus = "" if self.bus is None else f"bus {self.bus!r}: "
        endpoint = "" if self.endpoint is None else f"endpoint {self.endpoint!r}: "
        return (
            f"{bus}{endpoint}no thread could be started for its {self.task}: "
            f"{self.reason}. Raise the limit of threads (ulimit -u, pids.max of the container) or "
            "of memory (ulimit -v), then call again"
        )


# Wrong use: the code that calls has to change.


class UsageError(BusError):
    """The bus was used in a way that cannot work."""


class InvalidName(UsageError, ValueError):
    """A bus, endpoint or group name that cannot be used."""

    name: str
    what: str = "endpoint"
    """Whose name: bus, endpoint or group."""
    reason: str
    variable: str = ""
    """The environment variable that gave it, if one did."""

    def _explain(self) -> str:
        return (
            f"{self.name!r} cannot name a{'n' if self.what[0] in 'aeiou' else ''} {self.what}: "
            f"{self.reason}. Use 1 to {MAX_NAME} of A-Z a-z 0-9 '_' '-' '.'"
            f"{_named_by(self.variable)}"
        )


class InvalidType(UsageError, ValueError):
    """A message type that cannot be published, sent or requested."""

    type: str
    reason: str

    def _explain(self) -> str:
        return (
            f"{self.type!r} is not a message type: {self.reason}. Use tokens of A-Z a-z 0-9 _ - "
            f"between dots, at most {MAX_TYPE} bytes, as in 'buffer.12.changed'"
        )


class InvalidPattern(UsageError, ValueError):
    """A pattern that cannot be subscribed to or handled."""

    pattern: str
    reason: str

    def _explain(self) -> str:
        return (
            f"{self.pattern!r} is not a pattern: {self.reason}. Use a message type in which a "
            "token may be '*' (any one token) and the last may be '>' (one or more), as in "
            "'buffer.*.changed' or 'buffer.>'"
        )


class InvalidSetting(UsageError, ValueError):
    """A setting out of its range."""

    setting: str
    value: object
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"{self.setting}={self.value!r}: {self.reason}. {self.remedy}"


class InvalidPayloadType(UsageError, TypeError):
    """A payload type that msgspec cannot decode to."""

    payload_type: str
    reason: str

    def _explain(self) -> str:
        return (
            f"no payload can be decoded to {self.payload_type}: {self.reason}. Use a msgspec "
            "Struct, a dataclass, or plain types such as dict[str, int]"
        )


class InvalidService(UsageError, TypeError):
    """A class or a method that cannot be offered to others, or called through a bus."""

    service: str
    """The prefix under which it was to be offered or called."""
    method: str | None = None
    reason: str
    remedy: str

    def _explain(self) -> str:
        what = self.service if self.method is None else f"{self.service}.{self.method}"
        return f"{what} cannot be offered or called: {self.reason}. {self.remedy}"


class HandlerConflict(UsageError):
    """One endpoint handles the same pattern twice."""

    endpoint: str
    pattern: str

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r} handles {self.pattern!r} already. Remove one of both "
            "handlers, or make one pattern more specific"
        )


class ReceiveConflict(UsageError):
    """An endpoint's messages are received in two ways that exclude each other."""

    endpoint: str
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"endpoint {self.endpoint!r}: {self.reason}. {self.remedy}"


class TooManyGroups(UsageError):
    """One endpoint is a member of too many groups."""

    endpoint: str
    group: str
    limit: int = GROUPS - 1

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r} cannot join group {self.group!r}: it is in {self.limit} "
            "groups. Attach a second endpoint for more"
        )


class GroupConflict(UsageError):
    """An endpoint would be a member of a group whose others have another key, or none."""

    endpoint: str
    group: str
    key: str | None
    """Which it gave."""
    theirs: str | None = None
    """That of the other members."""
    limit: int | None = None
    """There are so many groups with a key, and no more can be; None: that is not it."""

    def _explain(self) -> str:
        if self.limit is not None:
            why = f"there are {self.limit} groups with a key on this bus, and no more can be"
            remedy = "Let members of some of them share a group"
        else:
            why = f"its members have {self._said(self.theirs)}, this one {self._said(self.key)}"
            remedy = "Give all members the same pattern and key, or this one another group"
        return f"endpoint {self.endpoint!r} cannot join group {self.group!r}: {why}. {remedy}"

    @staticmethod
    def _said(key: str | None) -> str:
        return "no key" if key is None else f"the key {key!r}"


class TooManyMailboxes(UsageError):
    """No mailbox is left for a subscription that is to lose what has waited longest."""

    endpoint: str
    pattern: str
    limit: int
    what: str
    """Whose limit that is: endpoint or bus."""

    def _explain(self) -> str:
        remedy = "Let fewer patterns cover more types"
        if self.what == "endpoint":
            remedy += ", or attach a second endpoint for more"
        return (
            f"endpoint {self.endpoint!r} gets no mailbox for {self.pattern!r}: "
            f"{'it' if self.what == 'endpoint' else 'its bus'} has {self.limit} of them. {remedy}"
        )


class NotARequest(UsageError):
    """An event or a command cannot be answered."""

    type: str
    kind: str
    """Event or send."""

    def _explain(self) -> str:
        return (
            f"{self.type!r} came as {self.kind}, which takes no reply. Let its sender use request()"
        )


class PayloadReleased(UsageError):
    """The payload of a message was let go of before."""

    type: str
    size: int
    """Bytes that it had."""

    def _explain(self) -> str:
        return (
            f"the payload of {self.type!r} ({self.size} bytes) has been released. Read "
            "message.payload before message.release(), and copy what is needed for longer"
        )


class AlreadyReplied(UsageError):
    """A request has been answered before."""

    type: str
    correlation_id: UUID | None = None

    def _explain(self) -> str:
        return (
            f"{self.type!r} ({self.correlation_id}) has been answered already. Reply once: by "
            "returning, by reply() or by fail(); call defer() in the handler to answer later"
        )


class CannotNack(UsageError):
    """A message cannot be given back."""

    endpoint: str
    type: str
    reason: str
    remedy: str

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r} cannot give {self.type!r} back: {self.reason}. "
            f"{self.remedy}"
        )


class NoSuchEndpoint(UsageError, LookupError):
    """No endpoint of that name is on the bus."""

    bus: str
    endpoint: str
    there: tuple[str, ...] = ()
    """Endpoints that are."""

    def _explain(self) -> str:
        there = ", ".join(self.there) or "none"
        return (
            f"no endpoint {self.endpoint!r} on bus {self.bus!r}; attached: {there}. "
            f"Name one of those that {self._by.endpoints} lists"
        )


class InvalidProcess(UsageError, ValueError):
    """A process that cannot be supervised."""

    process: str
    """Its name."""
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"process {self.process!r} cannot be supervised: {self.reason}. {self.remedy}"


class NoSuchProcess(UsageError, LookupError):
    """The supervisor has no process of that name."""

    bus: str
    process: str
    there: tuple[str, ...] = ()
    """Those that it has."""

    def _explain(self) -> str:
        there = ", ".join(self.there) or "none"
        return (
            f"the supervisor of bus {self.bus!r} has no process {self.process!r}; it has: {there}. "
            "Name one of those"
        )


class ForkedEndpoint(UsageError):
    """An endpoint was used in a forked child."""

    endpoint: str
    pid: int
    """Of the process that attached it."""

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r} belongs to process {self.pid}, not to its forked child. "
            "Attach in the child"
        )


class WrongLoop(UsageError):
    """An endpoint of one event loop was used outside of it."""

    endpoint: str
    closed: bool
    """Whether its loop is closed."""

    def _explain(self) -> str:
        if self.closed:
            return (
                f"endpoint {self.endpoint!r} belongs to an event loop that is closed. "
                "Attach in the loop that runs now"
            )
        return (
            f"endpoint {self.endpoint!r} belongs to another event loop, or none runs here. Call it "
            "there by asyncio.run_coroutine_threadsafe(ep.publish(...), loop), or attach here"
        )


# In no group: no peer failed, and the endpoint is closed as it should be.


class DrainTimeout(BusError, TimeoutError):
    """An endpoint could not finish in time what it had accepted."""

    endpoint: str
    left: int
    """Messages."""
    seconds: float

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r}: {self.left} messages not done within "
            f"{_seconds(self.seconds)}; they were handed on or counted. Drain with a longer "
            "timeout, or shorten its handlers"
        )


# Nor is this in a group: any call may meet it, attach as well as publish.


class Forbidden(BusError):
    """An endpoint may not do this: the grant that the bus's host gave it does not cover it, or the
    host does not admit it. What such a call sent, no endpoint gets. A host raises it in the
    function that it gave `serve`, with `reason` and `remedy`."""

    reason: str = ""
    """Why, where the host says so."""
    remedy: str = ""
    """What to do about that, likewise."""
    bus: str | None = None
    endpoint: str | None = None
    right: str | None = None
    """What it lacks: publish, subscribe, handle or request (which includes commands); None: it is
    not admitted at all."""
    type: str = ""
    """The message type, or the pattern."""
    granted: tuple[str, ...] = ()
    """The patterns for which it has that right."""
    index: int | None = None
    """Which message of a batch; those before it are accepted."""

    def _explain(self) -> str:
        who = "this endpoint" if self.endpoint is None else f"endpoint {self.endpoint!r}"
        where = "" if self.bus is None else f" on bus {self.bus!r}"
        what, reason = f"{who} is not admitted{where}", "its host refuses it"
        if self.right is not None:
            what = f"{_at(self.index)}{who} may not {self.right} {self.type!r}{where}"
            granted = ", ".join(map(repr, self.granted)) or "nothing"
            reason = f"its grant has {granted} for that"
        places = "serve(grants=...), the grant of its Process, or grant in its [process.NAME]"
        remedy = self.remedy or f"Let the host grant it: {places}"
        return f"{what}: {self.reason or reason}. {remedy}"
