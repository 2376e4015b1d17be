"""Many requests, pipelined: while one waits for a reply, others are under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.settings import check_count

from ._kernel import PendingReply

if TYPE_CHECKING:
    from ._kernel import Deadline, EndpointCore, Message

WINDOW = 128
"""Requests under way, where the caller does not say."""


def window_of(window: int | None, limit: int) -> int:
    """How many may be under way, of an endpoint with `limit` entries. Raises `InvalidSetting`."""
    if window is None:
        return min(WINDOW, max(1, limit // 2))
    return min(check_count("window", window), limit)


def ask_many(
    endpoint: EndpointCore,
    items: Iterable[tuple[str, object]],
    timeout: float | None,
    outer: Deadline | None,
    window: int,
    reply_type: Any,
) -> Iterator[Message | errors.BusError]:
    """Their replies, or the errors that came instead, in the order of the items."""
    requests, source = endpoint._requests, iter(items)
    under_way: deque[PendingReply | errors.BusError] = deque()
    more, failure = True, None
    try:
        while True:
            if more and len(under_way) <= window // 2:  # so that many go with one bell
                try:
                    more = requests.begin_many(
                        source, under_way, window - len(under_way), timeout, outer, reply_type
                    )
                except Exception as why:  # of the items: first the replies of those before
                    more, failure = False, why
            if not under_way:
                break
            first = under_way.popleft()
            yield first._ended() if isinstance(first, PendingReply) else first
        if failure is not None:
            raise failure
    finally:
        for one in under_way:
            if isinstance(one, PendingReply):
                one.cancel()
