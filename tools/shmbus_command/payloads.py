"""Payloads as they are given on a command line, and the pace at which they are sent."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])


def payload_options(command: F) -> F:
    """The argument PAYLOAD, and the option for its format."""
    command = click.option(
        "--as",
        "kind",
        type=click.Choice(["json", "text", "bytes"]),
        default="json",
        show_default=True,
        help="What PAYLOAD is.",
    )(command)
    return click.argument("payload", required=False)(command)


def payloads(payload: str | None, kind: str) -> Iterator[Any]:
    """The payloads that an argument stands for: one, or one for each line of standard input.

    Raises ``UsageError`` at the first that cannot be read."""
    if payload is None:
        yield None
    elif payload == "-":
        stdin = sys.stdin.buffer
        if kind == "bytes":
            yield stdin.read()
            return
        for number, line in enumerate(stdin, 1):
            if line.strip():
                yield _parse(line.rstrip(b"\r\n"), kind, f"line {number} of the standard input")
    elif payload.startswith("@"):
        try:
            with open(payload[1:], "rb") as file:
                content = file.read()
        except OSError as problem:
            raise click.UsageError(f"{payload[1:]}: {problem.strerror}") from None
        yield _parse(content, kind, payload[1:])
    else:
        yield _parse(payload.encode(errors="surrogateescape"), kind, "PAYLOAD")


def _parse(content: bytes, kind: str, where: str) -> Any:
    try:
        if kind == "json":
            return msgspec.json.decode(content)
        return content.decode() if kind == "text" else content
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        what = "JSON" if kind == "json" else "UTF-8"
        other = "--as text" if kind == "json" else "--as bytes"
        raise click.UsageError(f"{where} is not {what} ({problem}); give {other}") from None


class Pace:
    """So many a second, without bursts to catch up."""

    def __init__(self, rate: float | None) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._next = time.monotonic()

    def wait(self) -> None:
        if self._gap:
            time.sleep(max(self._next - time.monotonic(), 0.0))
            self._next = max(self._next + self._gap, time.monotonic())
