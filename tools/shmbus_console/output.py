"""Standard output: bytes, lines for people, and JSON."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click
import msgspec


def to_json(value: object) -> bytes:
    """As one line of JSON. What JSON has not is text."""
    try:
        return msgspec.json.encode(value, enc_hook=repr)
    except (TypeError, RecursionError):  # a key of a map that is no text, or nested too deep
        return msgspec.json.encode(_plain(value, 100), enc_hook=repr)


def _plain(value: object, depth: int) -> Any:
    """The same with text as keys, and cut off at a depth."""
    if depth == 0:
        return "..."
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else repr(key): _plain(each, depth - 1)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, depth - 1) for each in value]
    return value


def print_json(value: object) -> None:
    write(to_json(value))


def write(content: bytes, end: bytes = b"\n") -> None:
    """Write a line, or bytes with another end, to the buffer; call ``flush`` after the last."""
    sys.stdout.buffer.write(content + end)


def encoded(text: str) -> bytes:
    """Text for people as standard output takes it."""
    return text.encode(sys.stdout.encoding, sys.stdout.errors or "backslashreplace")


def flush() -> None:
    sys.stdout.buffer.flush()


def note(who: str, text: str) -> None:
    """A line for people, beside the output; never a reason to fail."""
    with contextlib.suppress(OSError):
        click.echo(f"shmbus {who}: {text}", err=True)
