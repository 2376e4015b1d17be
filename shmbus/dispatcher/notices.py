"""What the forwarding thread reports to the control plane."""

from __future__ import annotations

from typing import NamedTuple


class Notice(NamedTuple):
    """Something happened to an endpoint, or to its pool; `kind` is RECLAIMED, QUARANTINED, UNREAD
    or UNUSED_POOL."""

    kind: int
    slot: int
    generation: int
    reason: int
    """A `layout.Reason`."""
