"""Facts about a bus and its endpoints in words, as several commands show them."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from shmbus_console.text import duration
from shmtop.states import SEVERITY

from shmbus.options import sized
from shmbus.views import BusInfo, EndpointInfo, Health, Losses

LOSSES = {
    "dropped": "dropped as chosen",
    "slow": "while a ring was full",
    "too_large": "too large for a ring",
    "ended": "as the receiver ended",
    "abandoned": "as the sender was quarantined",
}


def trouble(condition: str) -> int:
    """How little wrong is with an endpoint: to sort by, in the order of shmtop."""
    return -SEVERITY.get(condition, 0)


def lost(count: int, by: Losses) -> str:
    """What was lost, and why."""
    reasons = msgspec.structs.asdict(by).items()
    why = ", ".join(f"{number} {LOSSES[word]}" for word, number in reasons if number)
    return f"{count}: {why}" if why else str(count)


def deaths(health: Health) -> str:
    return ", ".join(f"{n} {word}" for word, n in health.deaths.items()) or "none"


def ring_limits(info: BusInfo) -> str:
    """What travels through rings, unless an endpoint has settings of its own."""
    return f"messages up to {sized(info.record_limit)}, replies up to {sized(info.reply_limit)}"


def when(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return f"{clock}, {duration(max(time.time() - seconds, 0.0))} ago"


def ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{duration(seconds)} ago"


def facts_of(facts: dict[str, Any]) -> list[str]:
    width = max(map(len, facts))
    return [f"  {name:{width}}  {value}" for name, value in facts.items()]


def fields(struct: Any) -> dict[str, Any]:
    """A struct as a document, with its computed condition."""
    document: dict[str, Any] = msgspec.to_builtins(struct)
    if isinstance(struct, EndpointInfo):
        document["condition"] = struct.condition
    return document
