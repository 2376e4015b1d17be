"""How messages and figures are printed."""

from __future__ import annotations

import base64
import sys
import time
from typing import Any

import click
import msgspec

from shmbus import Tap


def to_json(value: object) -> bytes:
    """As one line of JSON."""
    return msgspec.json.encode(value, enc_hook=repr)


def print_json(value: object) -> None:
    write(to_json(value))


def write(line: bytes) -> None:
    """A line of output; call ``flush`` when no more is at hand."""
    sys.stdout.buffer.write(line + b"\n")


def flush() -> None:
    sys.stdout.buffer.flush()


def raw(payload: object) -> bytes:
    """A payload alone: bytes and text as they are, the rest as JSON."""
    if isinstance(payload, bytes):
        return payload
    return payload.encode() if isinstance(payload, str) else to_json(payload)


def shown(message: Any) -> str:
    """A message's payload for people."""
    payload = message.payload
    if payload is None:
        return ""
    if isinstance(payload, bytes):
        text = payload.decode("ascii", "replace").rstrip("\n")
        if text.isprintable() and "\ufffd" not in text:
            return text
        return (
            f"<{len(payload)} bytes: {payload[:16].hex(' ')}{' ..' if len(payload) > 16 else ''}>"
        )
    if message.tap is not None and message.tap.kind == "error" and isinstance(payload, list):
        return ": ".join(map(str, payload[:2]))  # what a handler raised, without its traceback
    return to_json(payload).decode()


def envelope(message: Any) -> dict[str, Any]:
    """A message as a JSON document."""
    payload = message.payload
    document = {
        "type": message.type,
        "kind": message.kind,
        "source": message.source,
        "time": _sent(message),
        "payload": payload,
    }
    if isinstance(payload, bytes):
        document["payload"] = None
        document["payload_base64"] = base64.b64encode(payload).decode()
    if message.correlation_id is not None:
        document["correlation_id"] = str(message.correlation_id)
    if message.redelivered:
        document["redelivered"], document["attempt"] = True, message.attempt
    if message.lost:
        document["lost"] = message.lost
    return document


def pretty(message: Any) -> bytes:
    """A message as a line for people, in colour where that is wanted."""
    again = f" (attempt {message.attempt})" if message.redelivered else ""
    parts = [
        click.style(_clock(message), dim=True),
        click.style(message.type, fg="cyan", bold=True),
        click.style(message.source + again, fg="green"),
        shown(message),
    ]
    return _plain(" ".join(parts)).rstrip().encode()


_COLOURS = {"nobody": "yellow", "lost": "red", "dropped": "magenta"}


def tapped(message: Any, seen: Tap, took: float, after: float | None) -> bytes:
    """A message that passed between others, as a line for people."""
    outcome = "" if seen.outcome == "delivered" else seen.outcome
    parts = [
        click.style(_clock(message), dim=True),
        f"{seen.kind:7}",
        click.style(message.type, fg="cyan", bold=True),
        click.style(f"{message.source} -> {seen.target or '-'}", fg="green"),
        *([click.style(outcome, fg=_COLOURS.get(outcome))] if outcome else []),
        click.style(f"in {duration(took)}", dim=True),
        *([click.style(f"after {duration(after)}", dim=True)] if after is not None else []),
        shown(message),
    ]
    return _plain(" ".join(parts)).rstrip().encode()


def _plain(text: str) -> str:
    return text if sys.stdout.isatty() else click.unstyle(text)


def _clock(message: Any) -> str:
    sent = _sent(message)
    return time.strftime("%H:%M:%S", time.localtime(sent)) + f".{int(sent * 1e3) % 1000:03}"


def _sent(message: Any) -> float:
    """When it was sent: seconds since the epoch."""
    return float(time.time_ns() - time.monotonic_ns() + message.sent_ns) / 1e9


def columns(heads: list[str], rows: list[list[str]], indent: str = "") -> list[str]:
    """Lines of a table without lines: numbers to the right, nothing cut off."""
    table = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = [
        i > 0 and all(row[i][:1].isdigit() or row[i] in ("", "-") for row in rows)
        for i in range(len(heads))
    ]

    def line(row: list[str]) -> str:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        return indent + "  ".join(cells).rstrip()

    return [line(row) for row in table]


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "-"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
