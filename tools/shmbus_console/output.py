"""Standard output: bytes, lines for people, and JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import msgspec

from . import arrays
from .text import one_line


def to_json(value: object, hook: Callable[[Any], Any] = arrays.listed) -> bytes:
    """As one line of JSON. What JSON has not is text, or what `hook` makes of it."""
    try:
        return msgspec.json.encode(value, enc_hook=hook)
    except UnicodeEncodeError:  # bytes of a command line that are no text
        return json.dumps(msgspec.to_builtins(value, enc_hook=hook, str_keys=True)).encode()


def for_people(value: object) -> str:
    """As one line of JSON, with what arrays are and their first elements."""
    if arrays.is_array(value):
        return arrays.brief(value)
    return to_json(value, arrays.brief).decode()


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


def write_past(stream: TextIO, text: str) -> None:
    """Write at once, past the buffer of a stream and its lock: while a thread waits here until
    somebody reads that, others can flush the stream, and the program can end."""
    rest = text.encode(stream.encoding, stream.errors or "backslashreplace")
    while rest:
        rest = rest[os.write(stream.fileno(), rest) :]


def note(who: str, text: str) -> None:
    """A line for people, beside the output; never a reason to fail."""
    with contextlib.suppress(OSError):
        write_past(sys.stderr, one_line(f"shmbus {who}: {text}") + "\n")
