"""A message that was not accepted: what it has to pass is full, or too small."""

from __future__ import annotations

from shmbus.limits import MAX_TYPE

from .groups import NotAccepted
from .phrases import at, duration, standstill

_BESIDE_PAYLOAD = 64 + MAX_TYPE  # bytes that a message takes beside its payload: header, type

_LARGEST_POOL = 1 << 40  # that settings take

KEPT = "values that are kept"
"""Among the holders of a pool, what stands for these; no endpoint has such a name."""

LENT = "its own loans"
"""Likewise for what its endpoint fills, or still looks at."""


GONE = "endpoints that have gone"
"""Likewise for those whose pools are there still, since somebody holds something of them."""


def _sizes(found: tuple[tuple[str, int], ...]) -> str:
    """The largest of what somebody has, for a message."""
    return ", ".join(
        f"{name if name in (KEPT, LENT, GONE) else repr(name)} {size} bytes"
        for name, size in found[:4]
    )


class QueueFull(NotAccepted):
    """A ring, or a pool, stayed full: the message was not accepted."""

    type: str
    endpoint: str
    """Whose ring, or pool, is full; ``@link@paris``: what may wait to leave for that site is."""
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
    pools: tuple[tuple[str, int], ...] = ()
    """Where ``pool_total_bytes`` is what keeps a pool from growing: which endpoints' pools have how
    many bytes of that, by name, the largest first; also ``"endpoints that have gone"``."""

    def _explain(self) -> str:
        if self.setting in ("pool_bytes", "pool_total_bytes"):
            return self._pool_full()
        if self.setting == "buffer":
            return (
                f"{self.type!r} not accepted: {self.depth} bytes wait for {self.endpoint!r} to "
                f"take them, where {self.capacity} may. Send more slowly, look for what holds up "
                "that site (shmbus link --status), or enlarge buffer in the link's configuration"
            )
        if self.dispatcher is not None:
            return (
                f"{at(self.index)}{self.type!r} not accepted: the ring of endpoint "
                f"{self.endpoint!r} stayed full for {duration(self.seconds)}, since "
                f"{standstill(self.dispatcher, self.silent, self.stopped)}"
            )
        if self.setting == "backlog_bytes":
            return (
                f"{self.type!r} not accepted: nobody who handles it was free for "
                f"{duration(self.seconds)}, and the backlog was full. Send more slowly, start more "
                "endpoints that handle it, or enlarge "
                f"{self._by.whose}{self._by.setting(self.setting)}"
            )
        return (
            f"{at(self.index)}{self.type!r} not accepted: the ring of endpoint {self.endpoint!r} "
            f"stayed full for {duration(self.seconds)} ({self.depth} of {self.capacity} bytes). "
            f"Send more slowly, wait longer ({self._by.longer}), find the slow receiver (shmbus "
            f"ls), or enlarge {self._by.whose}{self._by.setting(self.setting)}"
        )

    def _pool_full(self) -> str:
        held = _sizes(self.holders)
        if self.dispatcher is not None:
            why = f", since {standstill(self.dispatcher, self.silent, self.stopped)}"
        elif held:
            why = f"; held by {held}"
        else:
            why = ", and no receiver holds any of it"
        if self.pools:
            why += f". Of what all pools of the bus may have together, {_sizes(self.pools)}"
        whose = self._by.whose if self.setting == "pool_bytes" else "the bus's "
        lacks = f"no space for it for {duration(self.seconds)}"
        last = f"enlarge {whose}{self._by.setting(self.setting)}"
        piece = f", {self.largest} free in one piece"
        if self.payloads:
            lacks = (
                f"{self.payloads} payloads under way, which are all, for {duration(self.seconds)}"
            )
            last, piece = "send several in one message", ""
        return (
            f"{at(self.index)}{self.type!r} not accepted: the pool of endpoint {self.endpoint!r} "
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
            f"in flight, none ended within {duration(self.seconds)}. Wait for replies, or enlarge "
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
    total: bool = False
    """Of a pool: whether ``pool_total_bytes`` has to be larger, too."""
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
            f"{at(self.index)}{self.type!r} takes {self.size} bytes, endpoint {self.endpoint!r} "
            f"carries at most {self.limit}: a quarter of its {self.setting}. Send less, or {remedy}"
        )

    def _beyond_pool(self) -> str:
        pool = 1 << (self.size - 1).bit_length()
        also = ["pool_total_bytes"] if self.total else []
        remedy = f"serve the bus with {self._by.setting(self.setting, *also, to=pool)}"
        if self.setting == "pool_bytes" and not self._by.whose:
            remedy = f"attach that endpoint with {self._by.setting(self.setting, to=pool)}"
            if self.total:
                remedy += f", and serve the bus with {self._by.setting(*also, to=pool)}"
        whose = (
            "its pool_bytes" if self.setting == "pool_bytes" else "the pool_total_bytes of its bus"
        )
        if self.total:
            whose += " and the pool_total_bytes of its bus"
        return (
            f"{at(self.index)}{self.type!r} takes {self.size} bytes, endpoint {self.endpoint!r} "
            f"carries at most {self.limit}: {whose}. {self._by.parts}"
            + (f", or {remedy}" if pool <= _LARGEST_POOL else "")
        )
