"""What the forwarding thread reports to the control plane."""

from __future__ import annotations

from typing import NamedTuple


class Notice(NamedTuple):
    """Something happened to an endpoint, or to its pool; `kind` is RECLAIMED, QUARANTINED, UNREAD,
    UNUSED_POOL or UNUSED_PAGES."""

    kind: int
    slot: int
    generation: int
    reason: int
    """A `layout.Reason`."""
    start: int
    size: int
    """UNUSED_PAGES: bytes of the pool."""
