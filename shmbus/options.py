"""Command lines: how times and sizes are written there, and the settings of a bus as options.
Public."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .settings import Settings, sized

__all__ = ["OPTIONS", "Option", "seconds", "size", "sized"]

LONGEST = 3e7
"""Seconds, about a year: more would overflow in the waiting call."""

_UNITS = {"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0}
_UNITS |= {"m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"(\d+\.?\d*|\.\d+)"
_PART = re.compile(_NUMBER + "(" + "|".join(_UNITS) + ")(?![a-zµμ])", re.ASCII)
_PLAIN = re.compile(_NUMBER + r"(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def seconds(text: str) -> float:
    """A time as it is written on a command line, in seconds: ``500ms``, ``2m``, ``1h30m``, ``1.5``.

    Raises ``ValueError``, which says how to write it.
    """
    if _PLAIN.fullmatch(text):
        value = float(text)
    elif (parts := _PART.findall(text)) and "".join(map("".join, parts)) == text:
        value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        raise ValueError(f"{text!r} is not a time: write 500ms, 2m, 1h30m or 1.5 (seconds)")
    if value > LONGEST:
        raise ValueError(f"{text!r} is longer than {LONGEST:.0f} seconds")
    return value


_SIZES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(_NUMBER + " ?(" + "|".join(_SIZES) + ")", re.ASCII)


def size(text: str) -> int:
    """Bytes as they are written in a file: ``512KiB``, ``16MiB``, ``65536``.

    Raises ``ValueError``, which says how to write it.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size: write 512KiB, 16MiB or 65536 (bytes)")
    return int(float(found[1]) * _SIZES[found[2]])


class Option(NamedTuple):
    """A setting of a bus that whoever serves it from a command line may give."""

    setting: str
    """A field of `Settings`."""
    unit: str
    """BYTES, TIME or N."""
    help: str

    @property
    def name(self) -> str:
        """On a command line."""
        return "--" + self.setting.replace("_", "-")

    @property
    def type(self) -> Callable[[str], float]:
        """What reads its value; raises ``ValueError``."""
        return seconds if self.unit == "TIME" else int

    @property
    def default(self) -> Any:
        """What `Settings` has where it is not given; None: that depends on other settings."""
        return getattr(Settings(), self.setting)

    @property
    def shown(self) -> str | None:
        """The default as it is written on a command line."""
        if self.default is None:
            return None
        return f"{self.default:g}s" if self.unit == "TIME" else str(self.default)


OPTIONS = (
    Option(
        "in_bytes",
        "BYTES",
        "Bytes of each endpoint's ring for what it gets; a power of two, like those below. A "
        "message takes at most a quarter of each ring that it passes.",
    ),
    Option("out_bytes", "BYTES", "Bytes of the ring for what it sends."),
    Option("reply_bytes", "BYTES", "Bytes of each of its two rings for replies."),
    Option("max_endpoints", "N", "Endpoints at a time."),
    Option(
        "max_requests",
        "N",
        "Requests of one endpoint in flight at a time; by default 512, or fewer where its rings "
        "for replies hold no more.",
    ),
    Option(
        "block_timeout", "TIME", "How long a receiver whose ring is full may delay its senders."
    ),
    Option(
        "stall_after",
        "TIME",
        "After how long an endpoint that takes nothing counts as stalled.",
    ),
    Option(
        "prefetch",
        "N",
        "Messages that an endpoint may have untouched and in hand while others could have them.",
    ),
    Option(
        "backlog_bytes",
        "BYTES",
        "Bytes of each backlog, where work waits until somebody is free; by default as --in-bytes.",
    ),
    Option(
        "mailbox_bytes",
        "BYTES",
        "Bytes of messages in each mailbox (drop_oldest, latest); by default as --in-bytes.",
    ),
    Option(
        "max_deliveries",
        "N",
        "Times that a group's message is begun, when those who began it die or give it back.",
    ),
    Option("history", "N", "Values of each type that are kept of those published to be retained."),
    Option(
        "retain_bytes", "BYTES", "Bytes for all of them; where that is full, the oldest go first."
    ),
    Option(
        "pool_bytes", "BYTES", "Bytes of each endpoint's pool, for what is too large for rings."
    ),
    Option("pool_total_bytes", "BYTES", "Bytes of all pools together."),
    Option("loans", "N", "Large payloads that an endpoint may look at, at a time, without a copy."),
)
"""Those of `python -m shmbus` and of `shmbus serve`."""
