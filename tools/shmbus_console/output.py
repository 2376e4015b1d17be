"""Standard output: lines of bytes, and JSON."""

from __future__ import annotations

import sys

import click
import msgspec


def to_json(value: object) -> bytes:
    """As one line of JSON."""
    return msgspec.json.encode(value, enc_hook=repr)


def print_json(value: object) -> None:
    write(to_json(value))


def write(line: bytes) -> None:
    """Write a line to the buffer; call ``flush`` after the last."""
    sys.stdout.buffer.write(line + b"\n")


def flush() -> None:
    sys.stdout.buffer.flush()


def note(who: str, text: str) -> None:
    """A line for people, beside the output."""
    click.echo(f"shmbus {who}: {text}", err=True)
