"""Payloads as they are given on a command line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypedDict, TypeVar, cast

import click
import msgspec

from .concatenated import Values
from .templates import Template

F = TypeVar("F", bound=Callable[..., Any])

_CHUNK = 64 * 1024
_STDIN = "standard input"


class Given(TypedDict):
    """What the options below say."""

    payload: str | None
    kind: str
    count: int
    template: bool | None


def payload_options(command: F) -> F:
    """The argument PAYLOAD, and the options for its format and how often it is sent."""
    for option in (
        click.option(
            "--count",
            "-n",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            metavar="N",
            help="Send each payload so many times.",
        ),
        click.option(
            "--template/--no-template",
            default=None,
            help="Replace {{count}}, {{time}} and {{uuid}} in each message, or do not; by default "
            "only in what is on the command line itself.",
        ),
        click.option(
            "--as",
            "kind",
            type=click.Choice(["json", "text", "bytes", "msgpack"]),
            default="json",
            show_default=True,
            help="What PAYLOAD is.",
        ),
        click.argument("payload", required=False),
    ):
        command = option(command)
    return command


PAYLOAD = """PAYLOAD is JSON (or, with --as, text, bytes or MessagePack): itself, @FILE for the
    content of a file, or - for the standard input, of which every line is a message of its own.
    With --as bytes all of the standard input is one, with --as msgpack every value. Without PAYLOAD
    the message has none.

    In a PAYLOAD on the command line itself {{count}} is replaced by the number of the message,
    {{time}} by the time in UTC and {{uuid}} by a random UUID, before it is read as JSON."""
"""What the commands' help says of them."""


def payloads(given: Given) -> Iterator[Any]:
    """The payloads of the messages that a command line asks for, one after the other.

    Raises ``UsageError`` at the first that cannot be read."""
    payload, kind, count = given["payload"], given["kind"], given["count"]
    typed = payload is not None and payload != "-" and not payload.startswith("@")
    templated = typed if given["template"] is None else given["template"]
    if kind == "msgpack" and templated:
        if given["template"]:
            raise click.UsageError("--template is for JSON, text and bytes, not for MessagePack")
        templated = False
    number = 0
    for content, where in _contents(payload, kind):
        template = Template(content) if templated and content is not None else None
        value = None if template and template.words else _parse(content, kind, where)
        for _ in range(count):
            number += 1
            if template and template.words:
                value = _parse(template.filled(number), kind, where)
            yield value


def _contents(payload: str | None, kind: str) -> Iterator[tuple[bytes | None, str]]:
    """Content as it is given, with where it is."""
    if payload is None:
        yield None, ""
    elif payload == "-":
        yield from _piped(kind)
    elif payload.startswith("@"):
        try:
            with open(payload[1:], "rb") as file:
                yield file.read(), payload[1:]
        except OSError as problem:
            raise click.UsageError(f"{payload[1:]}: {problem.strerror}") from None
    else:
        yield os.fsencode(payload), "PAYLOAD"


def _piped(kind: str) -> Iterator[tuple[bytes, str]]:
    """What comes on the standard input, each part when it is there."""
    stdin = cast("io.BufferedReader", sys.stdin.buffer)
    if kind == "bytes":
        yield _read(stdin.read), _STDIN
    elif kind == "msgpack":
        values, number = Values(), 0
        while chunk := _read(lambda: stdin.read1(_CHUNK)):
            try:
                for value in values.feed(chunk):
                    number += 1
                    yield value, f"value {number} of the {_STDIN}"
            except ValueError as problem:
                raise click.UsageError(
                    f"value {number + 1} of the {_STDIN} is not MessagePack: {problem}"
                ) from None
        if values.rest:
            raise click.UsageError(
                f"the {_STDIN} ends within value {number + 1}, {values.rest} bytes after it began"
            )
    else:
        number = 0
        while line := _read(stdin.readline):
            number += 1
            if line.strip():
                yield line.rstrip(b"\r\n"), f"line {number} of the {_STDIN}"


def _read(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except OSError as problem:
        problem.filename = _STDIN
        raise


def _parse(content: bytes | None, kind: str, where: str) -> Any:
    if content is None:
        return None
    try:
        if kind == "json":
            return msgspec.json.decode(content)
        if kind == "msgpack":
            msgspec.msgpack.decode(content)
            return msgspec.Raw(content)
        return content.decode() if kind == "text" else content
    except (ValueError, RecursionError) as problem:
        what, other = {
            "json": ("JSON", "give --as text"),
            "msgpack": ("one value of MessagePack", "give --as bytes, or - for several"),
            "text": ("UTF-8", "give --as bytes"),
        }[kind]
        if kind == "json" and where.startswith("line"):
            other = "each line is a message of its own (jq -c); of text give --as text"
        raise click.UsageError(f"{where} is not {what} ({problem}); {other}") from None
