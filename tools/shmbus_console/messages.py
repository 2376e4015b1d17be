"""Printing a message: for people, and as JSON."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from shmbus import Message, Tap
from shmbus.views import Retained

from . import arrays, letters
from .output import encoded, flush, for_people, print_json, to_json, write
from .text import measured, one_line


def raw(payload: object) -> bytes:
    """A payload alone, for programs: bytes and text as they are, the rest as JSON with all of each
    array."""
    if isinstance(payload, bytes):
        return payload
    return payload.encode() if isinstance(payload, str) else to_json(payload, arrays.whole)


def payload_alone(message: Message[Any]) -> bytes:
    """The payload of a message, or nothing where it has none."""
    return raw(_payload(message)) if message.size else b""


def print_parts(
    parts: Iterable[Message[Any]], began: float, delimiter: bytes, as_json: bool
) -> None:
    """Print each part of a reply as it comes; `began`: when it was asked for, monotonic."""
    for part in parts:
        if as_json:
            print_json({**envelope(part), "seconds": time.monotonic() - began})
        else:
            write(payload_alone(part), delimiter)
        flush()


def _payload(message: Message[Any]) -> Any:
    """Its payload, of a dead letter with that of the message decoded."""
    if message.type == letters.TYPE and isinstance(message.payload, dict):
        return letters.document(message.payload)
    return message.payload


def shown(message: Message[Any]) -> str:
    """A message's payload for people, on one line."""
    return one_line(_shown(message))


def _shown(message: Message[Any] | Retained) -> str:
    payload = message.payload
    if payload is None:
        return ""
    if isinstance(payload, bytes):
        return letters.text_or_bytes(payload)
    if isinstance(message, Retained):
        return for_people(payload)
    if message.type == letters.TYPE and isinstance(payload, dict):
        return letters.line(payload)
    if message.tap is not None and message.tap.kind == "error" and isinstance(payload, list):
        return ": ".join(map(str, payload[:2]))  # what a handler raised, without its traceback
    return for_people(payload)


def envelope(message: Message[Any]) -> dict[str, Any]:
    """A message as a JSON document."""
    payload = _payload(message)
    document = {
        "type": message.type,
        "kind": message.kind,
        "source": message.source,
        "time": _sent(message),
        "payload": payload,
    }
    if message.site is not None:
        document["site"] = message.site
        document["time_error_seconds"] = (message.sent_error_ns or 0) / 1e9
    if isinstance(payload, bytes):
        document["payload"] = None
        document["payload_base64"] = base64.b64encode(payload).decode()
    if message.correlation_id is not None:
        document["correlation_id"] = str(message.correlation_id)
    if message.redelivered:
        document["redelivered"], document["attempt"] = True, message.attempt
    if message.retained:
        document["retained"] = True
    if message.urgent:
        document["urgent"] = True
    if message.lost:
        document["lost"] = message.lost
    return document


def kept_document(value: Retained) -> dict[str, Any]:
    """A value that a bus keeps, as a JSON document like that of a message."""
    document = {
        "type": value.type,
        "source": value.source,
        "time": value.sent,
        "number": value.number,
        "payload": value.payload,
    }
    if value.site is not None:
        document["site"], document["time_error_seconds"] = value.site, value.sent_error
    if isinstance(value.payload, bytes):
        document["payload"] = None
        document["payload_base64"] = base64.b64encode(value.payload).decode()
    return document


def kept(value: Retained) -> bytes:
    """A value that a bus keeps, as a line for people like that of a message."""
    parts = [
        click.style(_time(value.sent), dim=True),
        click.style(value.type, fg="cyan", bold=True),
        click.style(value.source, fg="green"),
        one_line(_shown(value)),
    ]
    return encoded(_plain(" ".join(parts)).rstrip())


def pretty(message: Message[Any]) -> bytes:
    """A message as a line for people, in colour where that is wanted."""
    again = f" (attempt {message.attempt})" if message.redelivered else ""
    parts = [
        click.style(_clock(message), dim=True),
        click.style(message.type, fg="cyan", bold=True),
        click.style(message.source + again, fg="green"),
        shown(message),
    ]
    return encoded(_plain(" ".join(parts)).rstrip())


_OUTCOMES = {"nobody": "yellow", "lost": "red", "dropped": "magenta", "forbidden": "red"}


def tapped(
    message: Message[Any],
    seen: Tap,
    took: float | None,
    after: float | None,
    after_error: float | None = None,
) -> bytes:
    """A message that passed between others, as a line for people."""
    outcome = "" if seen.outcome == "delivered" else seen.outcome
    later = None if after is None else measured(after, after_error)
    parts = [
        click.style(_clock(message), dim=True),
        f"{seen.kind:7}",
        click.style(message.type, fg="cyan", bold=True),
        click.style(f"{message.source} -> {seen.target or '-'}", fg="green"),
        *([click.style(outcome, fg=_OUTCOMES.get(outcome))] if outcome else []),
        *([click.style(f"in {since_sent(message, took)}", dim=True)] if took is not None else []),
        *([click.style(f"after {later}", dim=True)] if later is not None else []),
        shown(message),
    ]
    return encoded(_plain(" ".join(parts)).rstrip())


def since_sent(message: Message[Any], seconds: float) -> str:
    """A time since it was sent, and how well that is known."""
    error = message.sent_error_ns
    return measured(seconds, None if error is None else error / 1e9)


def _plain(text: str) -> str:
    return text if sys.stdout.isatty() else click.unstyle(text)


def _clock(message: Message[Any]) -> str:
    return _time(_sent(message))


def _time(sent: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(sent)) + f".{int(sent * 1e3) % 1000:03}"


def _sent(message: Message[Any]) -> float:
    """When it was sent: seconds since the epoch."""
    return float(time.time_ns() - time.monotonic_ns() + message.sent_ns) / 1e9
