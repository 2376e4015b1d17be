"""A bus, its endpoints and their requests, as structs of plain values."""

from __future__ import annotations

import time
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from shmbus.settings import PAGE, largest_record, sized
from shmbus.shared import layout, names
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.grants import Grant
from shmbus.shared.methods import MethodInfo
from shmbus.shared.patterns import Interest, Overflow
from shmbus.shared.sites import SiteState

from .plain import Format

State = Literal["attached", "leaving", "dead"]
Condition = Literal[
    "dead", "leaving", "stopped", "stalled", "overdue", "slow", "full", "busy", "idle"
]
_LOSSES = layout.words(layout.Loss)
FULL = 0.75
"""A ring this full may delay its producer: a record takes a quarter of it at most."""


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """How full one ring is."""

    depth: int
    """Bytes in it now."""
    capacity: int
    """Bytes that it holds."""
    high: int
    """The most bytes that were ever in it."""

    @property
    def fill(self) -> float:
        """The part of it that is in use, 0 to 1."""
        return self.depth / self.capacity if self.capacity else 0.0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Messages by kind."""

    events: int = 0
    """Published with ``publish``."""
    sends: int = 0
    """Commands, sent with ``send``."""
    requests: int = 0
    """Made with ``request``."""
    replies: int = 0
    """Answers to requests, errors included, and the ends of those that came in parts."""
    parts: int = 0
    """Parts of answers."""

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.events + self.sends + self.requests + self.replies + self.parts


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that a receiver should have got and did not, by the reason. Each counter is right by
    itself; they are not read at one moment."""

    dropped: int = 0
    """As it chose: there was no space, with ``drop_newest`` or a tap; or it was written over before
    it was taken, with ``drop_oldest`` or ``latest``."""
    slow: int = 0
    """Its ring, or because of what it did not take the pool of a sender, stayed full for the whole
    ``block_timeout``; or its ring was full at one of the bus's own events, which never wait."""
    too_large: int = 0
    """They are larger than its ring takes, which is a quarter of its ``in_bytes``."""
    ended: int = 0
    """It ended before it had taken them."""
    abandoned: int = 0
    """Their sender was quarantined before they were delivered."""

    @classmethod
    def of(cls, counters: Any) -> Losses:
        """What a copy of DOWN or BUS says."""
        by = counters["lost_by"].tolist()
        return cls(**{word: by[number] for number, word in _LOSSES.items()})

    @property
    def unchosen(self) -> int:
        """All but what it chose to lose."""
        return self.slow + self.too_large + self.ended + self.abandoned


class PastDeath(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that did not end in good order, and what it left undone then. The bus keeps the
    last 16, also across its dispatchers."""

    name: str
    """The endpoint's."""
    pid: int
    """Its process."""
    generation: int
    """A number that no other endpoint of this bus has or had."""
    reason: str
    """How it ended, in one of the words of `Death.reason`."""
    at: float
    """When that was confirmed: seconds since the epoch."""
    in_hand: int
    """Messages that it had begun and not done."""
    untouched: int
    """Messages that waited for it."""
    pending: int
    """Its own requests under way."""


class PastLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver did not get for one reason, and had not chosen so. The bus keeps the last 16
    of them, also when the receiver has gone and across its dispatchers."""

    name: str
    """The endpoint, or ``backlog of`` a group."""
    pid: int
    """Its process; 0: it is a backlog."""
    slot: int
    """Its place on the bus, which others get after it."""
    generation: int
    """A number that no other endpoint of this bus has or had."""
    reason: str
    """Why, in one of the words of `Losses`."""
    count: int
    """How many messages it has lost for this reason."""
    at: float
    """When it lost the last of them: seconds since the epoch."""
    type: str
    """Of the last; empty where that is not known, as are the facts below."""
    source: str
    """The endpoint that sent it; of another site as ``camera@paris``."""
    size: int
    """Bytes of its payload."""
    limit: int
    """Bytes of the largest payload of that type that the receiver's ring takes."""


class Overdue(msgspec.Struct, frozen=True, kw_only=True):
    """A message whose handler or callback has taken longer than its limit, and has not returned."""

    type: str
    """Of the message."""
    kind: str
    """event, send or request."""
    seconds: float
    """For how long it has run."""
    limit: float
    """Seconds that it may take, by `handle(limit=...)` or `subscribe(limit=...)`."""


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """What has come for a subscription that would rather have the newest than all."""

    pattern: str
    """Of the subscription."""
    overflow: Overflow
    """drop_oldest or latest."""
    depth: int
    """How many messages may wait; with latest, of how many types."""
    slot: int
    """Its place, beyond those of endpoints and backlogs."""
    generation: int
    """A number that no other mailbox of this bus has or had."""
    came: int
    """Messages that came for it."""
    received: int
    """Of these, those that were taken."""
    waiting: int
    """Those that wait; with latest, so many at the most."""
    lost: int
    """All others: they were written over."""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Large payloads that an endpoint looks at and has not copied: they stay where they are until
    it looks no more."""

    endpoint: str | None
    """Of `EndpointInfo.holds`, in whose pool they are; of `Pool.holders`, who looks at them, and of
    `Pool.untaken` for whom they wait. None: an endpoint that has gone."""
    count: int
    """How many these are."""
    bytes: int
    """Bytes of these payloads."""

    def __str__(self) -> str:
        return f"{self.endpoint or 'one that has gone'} ({self.count}: {sized(self.bytes)})"


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of an endpoint for payloads that it sends and that are too large for rings. It is made
    when it is first needed: to send, or to hold what others sent."""

    endpoint: str | None
    """Whose it is; None: that one has gone, and the pool goes when nobody looks at it any more."""
    slot: int
    """That endpoint's."""
    generation: int
    """That endpoint's."""
    limit: int
    """Bytes that it may have: ``Settings.pool_bytes``."""
    asked: int
    """Bytes that its endpoint wants of /dev/shm now."""
    granted: int
    """Bytes that it may take of these now: fewer where the pools of the bus together would have
    more than ``Settings.pool_total_bytes``."""
    reserved: int
    """Bytes that it takes, for payloads that come next included."""
    in_use: int
    """Bytes of these that are not free: of payloads that are written, on their way, kept, or looked
    at."""
    waiting: bool
    """Whether a sender waits for space in it now."""
    waits: int
    """How often one has waited."""
    holders: tuple[Holding, ...] = ()
    """Who looks at what of it, the largest first. What waits for somebody, or is kept, is not among
    these."""
    untaken: tuple[Holding, ...] = ()
    """Who has what of it in its rings and has not taken it, requests and replies too, or in a
    mailbox; found out while a sender waits, and else only where that is asked for: it is dear."""
    kept: int = 0
    """Bytes of it in values that the bus keeps (``publish(..., retain=True)``); found out likewise,
    and of one that has gone."""

    @property
    def fill(self) -> float:
        """The part of what it may have that is in use, 0 to 1."""
        return min(self.in_use / self.limit, 1.0) if self.limit else 0.0


class EndpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as shared memory shows it. Or one of another site, as a link noted it: of that
    no more is known than its name, process, `site`, `host`, and of its interests those that the
    rules of both links let through; it has no place on this bus (``slot`` is -1), its rings have no
    bytes, and whatever is counted is 0."""

    name: str
    """Its name, the only one of that name on the bus; ``camera@paris``: that of camera on the bus
    of the site paris."""
    pid: int
    """Its process; where it has a `site`, that is of another machine."""
    slot: int
    """Its place on the bus, which others get after it; -1: it is on another one."""
    generation: int
    """A number that no other endpoint of this bus has or had; 0: it is on another one."""
    state: State
    """attached, leaving or dead, as the dispatcher sees it."""
    reason: str
    """Why it is leaving or dead, in one of the words of `Death.reason`; empty while it is
    attached."""
    stalled: bool
    """It has messages, none in hand, and takes none; or its process is stopped."""
    stopped: bool
    """Its process is stopped: SIGSTOP, Ctrl-Z, a debugger."""
    slow: bool
    """A sender waited for it for the whole ``block_timeout``, and it has not moved since."""
    since: float
    """When it was admitted: seconds since the epoch."""
    last_progress: float | None
    """When it last took a message, to about 10 ms: seconds since the epoch."""

    patterns: tuple[str, ...]
    """What it subscribes to and handles, each once."""
    groups: tuple[str, ...]
    """The groups that it is a member of."""
    interests: tuple[Interest, ...]
    """Each on its own, taps among them."""
    routed: bool
    """Whether the dispatcher routes by all of these interests already."""

    incoming: Ring
    """Its ring for the events, commands and requests that it gets."""
    incoming_replies: Ring
    """Its ring for the replies that it gets."""
    incoming_urgent: Ring
    """Its ring for the urgent events that it gets."""
    outgoing: Ring
    """Its ring for the events, commands and requests that it sends."""
    outgoing_replies: Ring
    """Its ring for the replies that it sends."""
    untouched: int
    """Events, commands and requests in its incoming rings that it has not taken."""
    oldest: float | None
    """For how long the oldest of these has been on its way: seconds since it was sent; None where
    none waits."""
    unforwarded: int
    """Messages in its outgoing rings that the dispatcher has not taken."""
    oldest_unforwarded: float | None
    """For how long the oldest of these has waited: seconds; None where none does. Where it is more
    than a moment, a receiver has no space for it."""
    in_hand: int
    """Messages begun and not done."""
    in_hand_seconds: float
    """For how long something has been in hand without a break."""
    overdue: tuple[Overdue, ...]
    """Of these, those whose handler has taken longer than its limit, the longest first."""
    overruns: int
    """How many there have been of those."""
    held: int
    """Of these, how many are kept for handing on."""
    prefetch: int
    """Messages that it may have untouched and in hand while others could have them too."""
    receivers: int
    """Threads that receive, iterate or run; tasks likewise. 0: its messages are not taken, its
    handlers are not run, unless `looped`."""
    looped: bool
    """An event loop is woken for it: by `fileno()`, or it is of `shmbus.aio`."""
    pending: int
    """Its requests under way."""
    pending_limit: int
    """How many there may be: ``Settings.max_requests``."""

    sent: Counts
    """Messages that it has sent."""
    received: Counts
    """Messages that it has taken."""
    forwarded: int
    """Messages that the dispatcher took from it."""
    lost: int
    """Messages that it should have got and did not."""
    lost_by: Losses
    """The same by the reason."""
    redelivered: int
    """Messages handed on to it when another endpoint ended, or gave them back."""
    undeliverable: int
    """Its sends that no endpoint handled, and its dead letters."""
    unrouted: int
    """Its events that no subscription matched, and that the bus does not keep either."""
    orphans: int
    """Replies to it that no request waited for."""
    expired: int
    """Requests that it did not begin because their deadline was over."""
    withdrawn: int
    """Requests that it did not begin because their requesters had withdrawn them."""
    streaming: int
    """Replies in parts that it has begun and not ended."""
    handler_errors: int
    """Messages whose handler or callback raised."""
    decode_errors: int
    """Messages whose payload was not of the expected type."""
    timeouts: int
    """Its requests that ended because their own timeout was over."""
    let_go: int
    """Held messages that left its ring undone, to free space."""
    nacked: int
    """Messages that it gave back for others to have (`Message.nack`, ``on_error="retry"``)."""
    grant: Grant | None = None
    """What it may do; None: everything."""
    forbidden: int = 0
    """How often it tried what its grant does not cover."""
    last_forbidden: str = ""
    """What that was last: the right that it lacked, and the type or pattern; empty: nothing."""
    mailboxes: tuple[Mailbox, ...] = ()
    """Of its subscriptions with ``drop_oldest`` or ``latest``."""
    pool: Pool | None = None
    """Its memory for what is too large for rings; None: it has needed none."""
    pool_limit: int = 0
    """Bytes that this may have: ``Settings.pool_bytes``."""
    holds: tuple[Holding, ...] = ()
    """What it looks at in the pools of others, the largest first."""
    loans: int = 0
    """How many payloads it may look at so; of more it makes copies: ``Settings.loans``."""
    copied: int = 0
    """Of how many it has made copies."""
    note: str = ""
    """What could not be read, and why."""
    site: str | None = None
    """The site on whose bus it is; None: it is on this one."""
    host: str = ""
    """The machine of that site; empty: this one."""

    @property
    def condition(self) -> Condition:
        """Its most important condition now."""
        if self.state != "attached":
            return self.state
        if self.stopped:
            return "stopped"
        if self.stalled:
            return "stalled"
        if self.overdue:
            return "overdue"
        if self.slow:
            return "slow"
        to_it = (self.incoming, self.incoming_replies, self.incoming_urgent)
        for ring in (*to_it, self.outgoing, self.outgoing_replies):
            if ring.depth >= FULL * ring.capacity > 0:
                return "full"
        return "busy" if self.in_hand else "idle"

    @property
    def passes_on(self) -> bool:
        """Whether it is a link, which takes messages for other sites, or stands in for one."""
        return names.rank(self.name) != layout.Rank.HERE

    @property
    def lossy(self) -> bool:
        """Whether all of its interests lose messages rather than delay senders: taps, and
        subscriptions with another ``overflow`` than ``block``."""
        return bool(self.interests) and all(
            i.role in ("tap", "match") or i.overflow != "block" for i in self.interests
        )


class SiteInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A site, which is a bus that is joined to others, as a link of this bus sees it: this bus
    itself or another one. Where several links see it, there is one for each."""

    name: str
    """The site's."""
    link: str
    """The endpoint of this bus that sees it so: ``@link`` unless it was named otherwise."""
    space: str
    """The name of what both are joined to."""
    run: str
    """Of the link there: 16 hex digits, others each time that link starts; empty: not known."""
    state: SiteState
    """here: it is this bus; up: messages cross; down: its link cannot be reached; left: it has
    ended in good order; refused: it is there, and `reason` says why nothing crosses."""
    since: float
    """Since when it is in this state: seconds since the epoch."""
    reason: str
    """Why nothing crosses."""
    round_trip: float | None
    """Seconds from here to there and back, lately; None: not measured."""
    clock_offset_ns: int | None
    """What is to be added to CLOCK_MONOTONIC here for that there; None: not measured."""
    clock_error_ns: int | None
    """By how much that may be wrong."""
    sent: int
    """Messages that went there."""
    sent_bytes: int
    """Bytes of their payloads."""
    received: int
    """Messages that came from there."""
    received_bytes: int
    """Bytes of their payloads."""
    lost_to: int
    """Messages that should have gone there and were lost."""
    lost_from: int
    """Messages that should have come from there and were lost, as far as it told."""
    waiting_bytes: int
    """Bytes that wait here to be sent there."""
    garbage: int
    """What came from there, or in its name, and is nothing that a link sends."""


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Methods that an endpoint offers under one prefix (`Endpoint.offer`)."""

    name: str
    """The prefix: ``calc`` of ``calc.add``."""
    endpoint: str
    """Who offers them."""
    interface: str
    """The class whose methods they are."""
    methods: tuple[MethodInfo, ...]
    """What they take and return, by name."""


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that wait in the dispatcher until somebody who may take them is free. It is made
    when it is first needed, and removed when it has been empty for a second. Or what was kept, for
    a subscription that catches up, and what came since: until that has it all."""

    group: str | None
    """The queue group whose events wait; None: commands and requests, or it is for a
    subscription."""
    subscriber: str | None = None
    """The endpoint that catches up; None: work waits."""
    type: str
    """The type of the message for which it was made. Others wait there, too, where the same
    endpoints may take them. Of a subscription that catches up, its pattern."""
    slot: int
    """Its place on the bus, which others get after it."""
    generation: int
    """A number that no other backlog or endpoint of this bus has or had."""
    takers: tuple[str, ...]
    """The attached endpoints that may take that type from it."""
    waiting: int
    """Messages in it."""
    oldest: float | None
    """For how long the first of these has been on its way: seconds since it was sent; None where
    none waits."""
    ring: Ring
    """Where they wait, and how full that is."""
    lost: int
    """Messages that should have waited here and were lost."""
    lost_by: Losses
    """The same by the reason."""

    @property
    def what(self) -> str:
        """What waits there, in words."""
        if self.subscriber is not None:
            return f"{self.subscriber}, which catches up with {self.type}"
        if self.group is not None:
            return f"group {self.group}"
        return f"commands and requests such as {self.type}"

    @property
    def full(self) -> bool:
        """Whether senders may have to wait for space in it."""
        return self.ring.fill >= FULL


class Retained(msgspec.Struct, frozen=True, kw_only=True):
    """A value that a bus keeps: an event that was published with ``retain=True``. It is no
    `Message`: that belongs to an endpoint, by whose types it decodes, and a view has none."""

    type: str
    """Of the event."""
    payload: Any
    """As its receivers get it where they name no type; None where it is not `whole`."""
    source: str
    """The endpoint that published it, which may have gone since; on another bus ``NAME@SITE``."""
    site: str | None = None
    """The site of the bus on which it was published, from where a link brought it; None: this
    bus."""
    number: int
    """In what order values were published on this bus: each has a higher one."""
    sent: float
    """When it was published: seconds since the epoch."""
    sent_error: float | None = None
    """By how many seconds `sent` may be wrong, where it has a `site`; None: it is exact."""
    stamp_ns: int
    """Likewise, as its source stamped it, by the CLOCK_MONOTONIC of its machine: no other event of
    that source has this."""
    size: int
    """Bytes of the encoded payload."""
    format: Format
    """What `raw` is: raw, the bytes that were given; msgpack; framed, MessagePack with arrays
    behind it."""
    raw: bytes
    """The payload as it was sent."""
    whole: bool = True
    """False: there is no payload, because it was replaced while it was copied, and those that came
    in its place, for half a second, were so, too: large ones, of a type that is published all the
    time. Who subscribes with ``history`` gets them whole."""


class PendingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request under way."""

    correlation_id: UUID
    """As its `Message.correlation_id`."""
    deadline: float
    """Seconds until its deadline; negative where that is over."""
    handler: str | None
    """The endpoint that was chosen; None: none yet."""


class BusInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A bus found on this machine."""

    name: str
    """The bus's."""
    state: Literal["starting", "serving", "closing", "ended", "handover", "dead", "unreadable"]
    """As its dispatcher wrote it; ``dead`` where the dispatcher is dead and did not end the bus."""
    alive: bool
    """Whether its dispatcher's process is alive."""
    pid: int | None = None
    """The dispatcher's."""
    since: float | None = None
    """When this dispatcher began: seconds since the epoch."""
    package: str = ""
    """The version of the package that serves."""
    layout: str = ""
    """Of its shared memory: versions of this package that agree in it work together."""
    endpoints: int = 0
    """Endpoints that are on it now."""
    slots: int = 0
    """Endpoints that may be on it at a time: ``Settings.max_endpoints``."""
    in_bytes: int = 0
    """Bytes of an endpoint's ring for what it gets, unless that has settings of its own."""
    out_bytes: int = 0
    """Bytes of that for what it sends, likewise."""
    reply_bytes: int = 0
    """Bytes of each of its two for replies, likewise."""
    prefetch: int = 0
    """Messages that an endpoint may have untouched and in hand while others could have them too."""
    backlog_bytes: int = 0
    """Bytes of each backlog."""
    history: int = 0
    """Values of each type that it keeps."""
    retain_bytes: int = 0
    """Bytes for all of them, at most."""
    retained: int = 0
    """Values that it keeps now."""
    retained_bytes: int = 0
    """Bytes that these take, in pools included."""
    evicted: int = 0
    """Values that went, or were not kept, for want of space, since the bus was made."""
    pool_bytes: int = 0
    """Bytes that an endpoint's pool may have, unless that has settings of its own."""
    pool_total_bytes: int = 0
    """Bytes that all of them together may have."""
    pools_granted: int = 0
    """Bytes that they may take now, together."""
    pools_left: int = 0
    """Pools whose endpoints have gone, and of which somebody holds something."""
    loans: int = 0
    """Payloads in the pools of others that an endpoint may look at without having copied them,
    unless it has settings of its own."""
    serial: int = 0
    """How many dispatchers it has had."""
    heartbeat_age: float | None = None
    """Seconds since the forwarding plane's last heartbeat."""
    control_age: float | None = None
    """Seconds since the control plane last ran."""
    note: str = ""
    """What could not be read, and why."""

    @property
    def payload_limit(self) -> int:
        """Bytes of the largest payload: what is too large for rings travels by a pool."""
        return min(self.pool_bytes, self.pool_total_bytes // PAGE * PAGE)

    @property
    def record_limit(self) -> int:
        """Bytes of the largest event, command or request that travels through rings: what an
        endpoint can both send and get so."""
        return largest_record(min(self.in_bytes, self.out_bytes))

    @property
    def reply_limit(self) -> int:
        """Bytes of the largest reply, likewise."""
        return largest_record(self.reply_bytes)


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process, as the system shows it."""

    cpu: float
    """Of one CPU, in percent, since the look before."""
    memory: int
    """Resident bytes."""
    stopped: bool = False


class Clock(NamedTuple):
    """One moment on both clocks, in nanoseconds."""

    monotonic: int
    wall: int

    @classmethod
    def now(cls) -> Clock:
        return cls(monotonic_ns(), time.time_ns())

    def at(self, monotonic: int) -> float:
        """Seconds since the epoch of a moment on the monotonic clock."""
        return (self.wall - self.monotonic + monotonic) / 1e9

    def age(self, monotonic: int) -> float:
        """Seconds since a moment on the monotonic clock."""
        return max(self.monotonic - monotonic, 0) / 1e9
