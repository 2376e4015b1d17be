"""What can be set on a bus, and for one of its endpoints: `Settings`.

A bus is served with settings, and its sizes hold for its endpoints, unless one attaches with
settings of its own. Errors name the field to change.
"""

from __future__ import annotations

import msgspec

from .errors import InvalidSetting
from .limits import HELD, MAX_REQUESTS, MAX_SLOTS, REQUEST_RESERVE, SHARES, URGENT_BYTES

PAGE = 4096
KIB = 1024
MIB = 1024 * KIB

_MOST = (1 << 31) - 1  # of what the C kernel counts in 32 bits


def largest_record(ring_bytes: int) -> int:
    """Bytes of the largest message in a ring of that size, header and type included."""
    return ring_bytes // 4


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a batch is flushed: whichever comes first. ``None`` sets no such limit."""

    max_messages: int = 256
    """Messages. Lower it where the first of a batch must not wait for the last."""
    max_bytes: int | None = None
    """Bytes of payload and headers; at most a quarter of the ring in any case. Lower it so that
    receivers get large messages evenly."""
    max_delay: float | None = None
    """Seconds since the first message of the batch, also while the caller computes. Give it where
    messages come now and then: without it they wait until the batch is full or ends."""

    def __post_init__(self) -> None:
        _between("batch.max_messages", self.max_messages, 1, _MOST, "messages")
        if self.max_bytes is not None:
            _between("batch.max_bytes", self.max_bytes, 1, _MOST, "bytes")
        if self.max_delay is not None:
            _positive("batch.max_delay", self.max_delay)


OF_BUS = {
    "max_endpoints": "slots",
    "block_timeout": "block_timeout_ns",
    "stall_after": "stall_after_ns",
    "backlog_bytes": "backlog_bytes",
    "mailbox_bytes": "mailbox_bytes",
    "max_deliveries": "max_deliveries",
    "history": "history",
    "retain_bytes": "retain_bytes",
    "pool_total_bytes": "pool_total_bytes",
    "batch_per_pass": "batch_per_pass",
}
"""Settings of which an endpoint has none of its own, and the words of the bus that have them."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes, limits and times of a bus or of one endpoint. Raises `InvalidSetting`.

    ``in_bytes``, ``out_bytes``, ``reply_bytes``, ``max_requests``, ``prefetch``, ``pool_bytes`` and
    ``loans`` of a bus are the defaults of its endpoints. ``hold_limit``, ``batch``, ``spin`` and
    ``spin_us`` apply to the endpoint that is given them; ``spin`` and ``spin_us`` of a bus apply to
    its dispatcher. The rest applies to the bus: `attach` refuses what is neither the default nor
    the bus's own.
    """

    # Sizes

    in_bytes: int = 512 * KIB
    """Bytes of an endpoint's ring for the events, commands and requests that it gets: a power of
    two, like those below. A message takes at most a quarter of each ring that it passes; a larger
    one, over 128 KiB with the default, goes through its sender's pool. Raise it where bursts make
    senders wait; lower it where /dev/shm is small."""
    out_bytes: int = 512 * KIB
    """Bytes of an endpoint's ring for the events, commands and requests that it sends. Raise it
    where ``QueueFull`` names it."""
    reply_bytes: int = 256 * KIB
    """Bytes of each of an endpoint's two rings for replies: one for those that it gets, one for
    those that it sends. A reply takes at most a quarter: 64 KiB with the default. Raise it for
    larger replies and for more requests in flight."""
    max_endpoints: int = 256
    """Endpoints of the bus at a time, 1024 at most; one more gets ``BusFull``. Raise it for more
    endpoints: each place costs the bus 260 bytes, and every endpoint 32."""
    max_requests: int | None = None
    """Requests of one endpoint in flight at a time. ``None``: 512, or fewer where
    ``reply_bytes`` holds no more. Raise it, and ``reply_bytes`` as the error says, where
    ``RequestsFull`` names it."""

    # Flow

    block_timeout: float = 1.0
    """Seconds for which a receiver whose ring is full may delay its senders, counted from its last
    progress. Then the message is counted as lost there, and no sender waits for it until it takes
    messages again. Lower it where senders have deadlines of their own; raise it where a receiver
    may pause for long and must lose nothing."""
    stall_after: float = 2.0
    """Seconds after which an endpoint that has messages, none in hand, and takes none counts as
    stalled. Raise it where programs do other work between two calls of ``receive``."""
    prefetch: int | None = None
    """Messages that an endpoint may have untouched and in hand while others could have them too:
    messages of a group, and commands and requests that several handle. One that receives with more
    threads than that may have one for each. Untouched are one for each thread that has nothing in
    hand, one at least, and as many as were finished in the last 10 to 30 ms. What nobody may
    have now waits in a backlog, and goes to whoever is free first. ``None``: 16 of a bus, and of an
    endpoint what its bus has. Lower it to 1 where jobs take long and none may wait behind another;
    raise it (128) for floods of tiny events and commands."""
    backlog_bytes: int | None = None
    """Bytes of each backlog, which is made when it is first needed: a power of two. Where it is
    full, senders wait as at a full ring. ``None``: ``in_bytes``; never less than the largest
    ``out_bytes`` of an endpoint. Raise it where more work comes at times than is done in time."""
    mailbox_bytes: int | None = None
    """Bytes of messages in each mailbox, which a subscription with ``overflow="drop_oldest"``
    or ``"latest"`` has: a power of two. Where they do not suffice for its ``depth``, what has
    waited longest goes. ``None``: ``in_bytes``; never less than ``in_bytes`` of its endpoint, nor
    than half a KiB for each message of its depth. Raise it where such messages are large."""
    hold_limit: int = HELD
    """Group messages and commands that one endpoint may have begun and not done; beyond that the
    oldest is no longer kept for handing on. At most 64. Lower it where a worker that begins many at
    a time needs the space of its ring for new ones."""
    max_deliveries: int = 2
    """Times that a group message is begun, when those who began it die or give it back, before it
    becomes a dead letter; 1 to 255. Raise it where jobs fail now and then for reasons that pass; 1
    hands on nothing that was begun."""

    # What is kept

    history: int = 10
    """Values of each type that the bus keeps of those that are published with ``retain=True``, for
    who subscribes later with ``history``; 1 to 65536. Lower it to 1 where only the last one counts;
    raise it where who comes late needs more of the past."""
    retain_bytes: int = 64 * MIB
    """Bytes of /dev/shm for all of them, taken as they are needed: a value takes what it has,
    header and type included, in steps of some 240, and a large one its payload in its publisher's
    pool. Where it is full, values go that newer ones of their type have replaced, then the oldest,
    counted (``Health.evicted``); what is larger alone is not kept. Raise it where that counts up;
    lower it where /dev/shm is small."""

    # What is too large for rings

    pool_bytes: int | None = None
    """Bytes of an endpoint's pool at the most: memory of /dev/shm for what it sends and what is too
    large for rings. It is taken as it is needed and given back when it is idle. ``None``: 64 MiB of
    a bus, and of an endpoint what its bus has. Raise it for payloads that are larger, and where
    ``QueueFull`` names it."""
    pool_total_bytes: int = 1024 * MIB
    """Bytes of all pools of the bus together at the most. Lower it where /dev/shm is small."""
    loans: int | None = None
    """Large payloads of others that an endpoint may look at, at a time, without having copied them;
    of what comes beyond that it gets copies, as of what makes several hold more than half of a
    pool. ``None``: 64 of a bus, and of an endpoint what its bus has; at most 512. Lower it where
    few blocks are large and senders wait for them; raise it where many are kept for long."""

    # Speed

    batch_per_pass: int = 256
    """Records that the dispatcher takes from one endpoint before it looks at the next. Lower it
    where one endpoint floods the bus and others must not wait for it."""
    batch: BatchLimits | None = None
    """Batching of everything that an endpoint publishes. ``None``: each message is in the ring when
    ``publish`` returns, and the bell is rung only where a thread sleeps. Give it where an endpoint
    publishes tiny messages by the thousand, one by one."""
    spin: bool = True
    """Look for messages for a moment before sleeping, while they have lately come close
    together. Switch it off where processes need every core, or CPU time has a quota."""
    spin_us: int = 40
    """How long that moment is, at most: microseconds, 0 to 1000. It is twice as long while every
    message has lately come within it. Raise it where messages come a little more seldom and cores
    are free; lower it to save CPU."""

    def __post_init__(self) -> None:
        for setting in ("in_bytes", "out_bytes", "reply_bytes"):
            _power_of_two(setting, getattr(self, setting), PAGE)
        _between("max_endpoints", self.max_endpoints, 1, MAX_SLOTS, "endpoints")
        if self.max_requests is not None:
            _between("max_requests", self.max_requests, 1, MAX_REQUESTS, "requests")
            if self.max_requests * REQUEST_RESERVE > self.reply_bytes // 2:
                enough = _power_above(2 * REQUEST_RESERVE * self.max_requests)
                raise InvalidSetting(
                    setting="max_requests",
                    value=self.max_requests,
                    reason=f"a ring for replies of {self.reply_bytes} bytes keeps space for the "
                    f"errors of {self.reply_bytes // 2 // REQUEST_RESERVE} requests",
                    remedy=f"Lower it, or set reply_bytes={enough}",
                )
        _positive("block_timeout", self.block_timeout, zero=True)
        _positive("stall_after", self.stall_after)
        if self.prefetch is not None:
            _between("prefetch", self.prefetch, 1, _MOST, "messages")
        if self.backlog_bytes is not None:
            _power_of_two("backlog_bytes", self.backlog_bytes, PAGE)
        if self.mailbox_bytes is not None:
            _power_of_two("mailbox_bytes", self.mailbox_bytes, PAGE)
        _between("hold_limit", self.hold_limit, 1, HELD, "messages")
        _between("history", self.history, 1, 65536, "values")
        _between("retain_bytes", self.retain_bytes, PAGE, 1 << 36, "bytes")
        if self.pool_bytes is not None:
            _between("pool_bytes", self.pool_bytes, PAGE, 1 << 40, "bytes")
        _between("pool_total_bytes", self.pool_total_bytes, PAGE, 1 << 46, "bytes")
        if self.loans is not None:
            _between("loans", self.loans, 0, SHARES, "payloads")
        _between("max_deliveries", self.max_deliveries, 1, 255, "deliveries")
        if not isinstance(self.batch, BatchLimits | None):
            raise InvalidSetting(
                setting="batch",
                value=self.batch,
                reason=f"it is of type {type(self.batch).__name__}",
                remedy="Give shmbus.BatchLimits(max_messages=...)",
            )
        _between("batch_per_pass", self.batch_per_pass, 1, _MOST, "records")
        _between("spin_us", self.spin_us, 0, 1000, "microseconds")

    @property
    def prefetch_limit(self) -> int:
        """``prefetch`` of a bus, with the default worked out."""
        return 16 if self.prefetch is None else self.prefetch

    @property
    def request_limit(self) -> int:
        """Requests of one endpoint in flight at a time, with the default worked out."""
        if self.max_requests is not None:
            return self.max_requests
        return min(512, self.reply_bytes // 2 // REQUEST_RESERVE)

    @property
    def backlog_limit(self) -> int:
        """Bytes of each backlog, with the default worked out."""
        return self.backlog_bytes or self.in_bytes

    @property
    def pool_limit(self) -> int:
        """Bytes of each pool of a bus at the most, with the default worked out."""
        return 64 * MIB if self.pool_bytes is None else self.pool_bytes

    @property
    def payload_limit(self) -> int:
        """Bytes of the largest payload on a bus: what is too large for rings travels by a pool."""
        return min(self.pool_limit, self.pool_total_bytes // PAGE * PAGE)

    @property
    def loan_limit(self) -> int:
        """``loans`` of a bus, with the default worked out."""
        return 64 if self.loans is None else self.loans

    @property
    def mailbox_limit(self) -> int:
        """Bytes of messages in each mailbox, with the default worked out."""
        return self.mailbox_bytes or self.in_bytes

    def bus_words(self) -> dict[str, int]:
        """What a bus says of its settings, by the words of its segment."""
        return {
            "slots": self.max_endpoints,
            "in_bytes": self.in_bytes,
            "out_bytes": self.out_bytes,
            "reply_bytes": self.reply_bytes,
            "max_requests": self.request_limit,
            "block_timeout_ns": int(self.block_timeout * 1e9),
            "stall_after_ns": int(self.stall_after * 1e9),
            "prefetch": self.prefetch_limit,
            "backlog_bytes": self.backlog_limit,
            "mailbox_bytes": self.mailbox_limit,
            "max_deliveries": self.max_deliveries,
            "history": self.history,
            "retain_bytes": self.retain_bytes,
            "pool_bytes": self.pool_limit,
            "pool_total_bytes": self.pool_total_bytes,
            "loans": self.loan_limit,
            "batch_per_pass": self.batch_per_pass,
        }

    @property
    def spin_ns(self) -> int:
        """The longest spin in nanoseconds, 0 where there is to be none."""
        return self.spin_us * 1000 if self.spin else 0

    @property
    def record_limit(self) -> int:
        """Bytes of the largest event, command or request that it can both send and get: header,
        type and payload together."""
        return largest_record(min(self.in_bytes, self.out_bytes))

    @property
    def reply_limit(self) -> int:
        """Bytes of the largest reply: header, type and payload together."""
        return largest_record(self.reply_bytes)

    @property
    def endpoint_bytes(self) -> int:
        """Bytes of /dev/shm that one endpoint takes, approximately: its rings and its tables."""
        # State on both sides, interests; an entry per request on both sides; a fan-out's targets.
        tables = 10 * PAGE + 64 * self.request_limit + 32 * self.max_endpoints
        rings = self.in_bytes + self.out_bytes + 2 * self.reply_bytes + URGENT_BYTES
        return rings + _pages(tables)

    def bytes_for(self, endpoints: int) -> int:
        """Bytes of /dev/shm that a bus with so many endpoints reserves, approximately; each backlog
        takes `backlog_limit` more, from when it is first needed until it has been empty for a
        second, each mailbox a little more than `mailbox_limit`, what is kept `retain_bytes` at
        most, and all pools together `pool_total_bytes` at most."""
        bus = 4 * PAGE + 260 * self.max_endpoints
        return _pages(bus) + endpoints * self.endpoint_bytes

    def describe(self) -> str:
        """A table of what a bus with these settings takes of /dev/shm."""
        lines = [
            f"payloads up to {sized(self.payload_limit)}; through rings",
            f"messages up to {sized(self.record_limit)}, replies up to {sized(self.reply_limit)}",
        ]
        counts = [n for n in (1, 4, 16, 64, 256, 1024) if n < self.max_endpoints] + [
            self.max_endpoints
        ]
        lines += [
            f"{n:5} endpoint{'s' if n > 1 else ' '}  {sized(self.bytes_for(n)):>9}" for n in counts
        ]
        lines.append(f"each backlog, while it is needed  {sized(self.backlog_limit)}")
        lines.append(f"each mailbox                      {sized(self.mailbox_limit)}")
        lines.append(f"each pool, at most                {sized(self.pool_limit)}")
        lines.append(f"all pools together, at most       {sized(self.pool_total_bytes)}")
        lines.append(f"values that are kept, at most     {sized(self.retain_bytes)}")
        return "\n".join(lines)


def check_settings(settings: Settings | None) -> Settings | None:
    """The settings themselves, if they are that. Raises `InvalidSetting`."""
    if isinstance(settings, Settings | None):
        return settings
    raise InvalidSetting(
        setting="settings",
        value=settings,
        reason=f"it is of type {type(settings).__name__}",
        remedy="Give shmbus.Settings(in_bytes=...)",
    )


def check_count(setting: str, value: object, *, least: int = 1) -> int:
    """A number of things, for an argument of that name. Raises `InvalidSetting`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise InvalidSetting(
        setting=setting, value=value, reason="no such number", remedy=f"Give at least {least}"
    )


def check_flag(setting: str, value: object) -> None:
    """Yes or no, for an argument of that name. Raises `InvalidSetting`."""
    if not isinstance(value, bool):
        raise InvalidSetting(
            setting=setting,
            value=value,
            reason=f"it is of type {type(value).__name__}",
            remedy="Give True or False",
        )


def sized(size: float) -> str:
    """Bytes for people: 512 B, 1.67 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}" if size < 999.5 else f"{size:.0f} {unit}"


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _power_above(size: int) -> int:
    return 1 << max(size - 1, 1).bit_length()


def _whole(setting: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidSetting(
            setting=setting, value=value, reason="not a whole number", remedy="Give an int"
        )
    return value


def _between(setting: str, value: int, least: int, most: int, unit: str) -> None:
    if not least <= _whole(setting, value) <= most:
        raise InvalidSetting(
            setting=setting,
            value=value,
            reason="out of range",
            remedy=f"Give {least} to {most} {unit}",
        )


def _positive(setting: str, value: float, *, zero: bool = False) -> None:
    # The C kernel counts nanoseconds in 64 bits; more than a year is taken for a mistake, and NaN
    # compares as false.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 3.2e7 or (value == 0 and not zero):
        raise InvalidSetting(
            setting=setting,
            value=value,
            reason="not a usable time",
            remedy=f"Give seconds, {'0' if zero else 'above 0'} to 3.2e7",
        )


def _power_of_two(setting: str, value: int, least: int) -> None:
    most = 1 << 31
    if least <= _whole(setting, value) <= most and value & (value - 1) == 0:
        return
    if not least <= value <= most:
        raise InvalidSetting(
            setting=setting,
            value=value,
            reason="out of range",
            remedy=f"Give a power of two from {least} to {most} bytes",
        )
    above = _power_above(value)
    remedy = f"Set {above // 2} or {above} bytes"
    raise InvalidSetting(setting=setting, value=value, reason="not a power of two", remedy=remedy)
