"""Who may have another group message, command or request now, as the dispatcher decides it
(shmbus/dispatcher/native/choose.h)."""

from __future__ import annotations

from .facts import Clock, EndpointInfo

_LAG = 0.02
"""Seconds at one message after which no more than one other is put behind it."""


def why_not_free(endpoint: EndpointInfo, clock: Clock) -> str:
    """Why it may not have another one; empty where it may."""
    if endpoint.stopped:
        return "not fit: stopped"
    if endpoint.stalled or endpoint.slow:
        return "not fit: stalled or slow"
    if endpoint.overdue and len(endpoint.overdue) >= endpoint.receivers:
        return "not fit: overdue in all of its threads"
    untouched, in_hand = endpoint.untouched, endpoint.in_hand
    most = max(endpoint.receivers, endpoint.prefetch)
    if untouched + in_hand >= most:
        return f"not free: {untouched + in_hand} of at most {most} untouched and in hand"
    progress = endpoint.last_progress or 0.0
    if untouched and in_hand and clock.wall / 1e9 - progress > _LAG:
        return "not free: one waits already behind what it has in hand"
    return ""
