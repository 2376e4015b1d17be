"""``shmbus resend``: dead letters, sent anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Literal

import click
import msgspec
from shmbus_console import letters
from shmbus_console.options import (
    Number,
    bus_option,
    complete_type,
    json_option,
    seconds_option,
)
from shmbus_console.output import encoded, flush, note, print_json, write
from shmbus_console.text import one_line
from shmbus_console.wording import explain

from shmbus import Endpoint, errors
from shmbus.views import check_pattern, decode_plain, matches

from .attaching import attach_now, wait_for_bus
from .outcome import forwarded
from .pace import Pace


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter, as `shmbus sub --json` prints it."""

    type: str
    kind: Literal["event", "send", "request"]
    source: str
    reason: str
    format: Literal["msgpack", "raw", "framed", "none"]
    size: int
    payload_base64: bytes = b""

    @property
    def value(self) -> Any:
        """The payload, which is encoded to the same bytes again."""
        if self.format == "none":
            return None
        if self.format == "framed":
            return decode_plain(self.payload_base64, self.format)
        return self.payload_base64 if self.format == "raw" else msgspec.Raw(self.payload_base64)

    def obstacle(self, sender: str) -> str | None:
        """Why it cannot be sent anew; None where it can."""
        there = len(self.payload_base64)
        if there < self.size:
            return (
                f"only {there} of {self.size} bytes of its payload are in the letter: a subscriber "
                "to dead letters had too small a ring. Serve the bus with larger --in-bytes"
            )
        if self.kind == "request":
            return "it was a request, and its caller has got an error. Ask again: shmbus request"
        if self.source == sender:
            return "this command has sent it already, and it came back as a dead letter"
        try:
            _ = self.value
        except ValueError as problem:
            return f"its payload cannot be read ({problem})"
        return None


class _Document(msgspec.Struct):
    type: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw()
    """What sub ended with, instead of the others."""


@click.command(short_help="Send dead letters anew.")
@click.argument("file", metavar="FILE|-")
@bus_option
@click.option(
    "--type",
    "pattern",
    default=">",
    metavar="PATTERN",
    shell_complete=complete_type,
    help="Only messages whose type matches.",
)
@click.option("--reason", metavar="TEXT", help="Only letters in whose reason TEXT occurs.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent; needs no bus.")
@wait_for_bus
@click.option("--rate", type=Number(0.001), metavar="N", help="So many a second.")
@seconds_option("--timeout", "5s", help="How long to wait for each until the bus has taken it.")
@json_option
def resend(
    file: str,
    bus: str | None,
    pattern: str,
    reason: str | None,
    dry_run: bool,
    wait: float | None,
    rate: float | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Send dead letters anew: those that FILE, or - for the standard input, holds as

    \b
      shmbus sub '$bus.undeliverable' --json > FILE

    printed them; other events in it are passed over. Each is sent as what it was, an event or a
    command, with the same payload, and what became of it is shown; `jq -c 'select(...)'` selects
    more finely than the options. A handler may fail with it again: then there is another dead
    letter.

    An event here was one for a queue group, and a bus cannot publish to one group alone: all who
    subscribe to its type get it, those that had it already included. See who: shmbus route TYPE.

    Exit code 1 where one could not be sent or was not taken.
    """
    check_pattern(pattern)
    chosen = (
        letter
        for letter in _read(file)
        if matches(pattern, letter.type) and (reason is None or reason in letter.reason)
    )
    sent = failed = 0
    if dry_run:
        for letter in chosen:
            why = letter.obstacle("")
            _show(letter, "cannot be resent" if why else "would be resent", why, as_json)
            failed += why is not None
    else:
        with attach_now(bus, "resend", wait) as endpoint:
            pace = Pace(rate)
            for letter in chosen:
                why = letter.obstacle(endpoint.name)
                if why is None:
                    pace.wait()
                    why = _send(endpoint, letter, timeout)
                _show(letter, "not resent" if why else "resent", why, as_json)
                sent += why is None
                failed += why is not None
        note("resend", f"{sent} resent" + (f", {failed} not" if failed else ""))
    if failed:
        click.get_current_context().exit(1)


def _read(file: str) -> Iterator[Letter]:
    """The dead letters in a file, each when it is there. Raises ``UsageError``."""
    try:
        stream = sys.stdin.buffer if file == "-" else open(file, "rb")  # noqa: SIM115
    except OSError as problem:
        raise click.UsageError(f"{file}: {problem.strerror}") from None
    where = "the standard input" if file == "-" else file
    with stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                document = msgspec.json.decode(line, type=_Document)
                if document.type == letters.TYPE:
                    yield msgspec.json.decode(document.payload, type=Letter)
                elif not document.type and not document.error:
                    raise ValueError("Object missing required field `type`")
            except (ValueError, RecursionError) as problem:
                raise click.UsageError(
                    f"line {number} of {where} is not an event as shmbus sub --json prints it "
                    f"({problem})"
                ) from None


def _send(endpoint: Endpoint, letter: Letter, timeout: float) -> str | None:
    """Send it; returns why it was not taken, None where it was."""
    before = forwarded(endpoint, 0.0)
    post = endpoint.publish if letter.kind == "event" else endpoint.send
    try:
        post(letter.type, letter.value, timeout=timeout)
    except (errors.NotAccepted, errors.UsageError) as problem:
        return explain(problem)
    after = forwarded(endpoint, timeout)
    if before is None or after is None:
        return "this command's endpoint was ended"
    if after.unforwarded:
        return f"no receiver had space for it within {timeout:g} s"
    if after.undeliverable > before.undeliverable:
        return "it is a dead letter again; see which: shmbus sub '$bus.undeliverable'"
    if after.unrouted > before.unrouted:
        return f"nobody subscribes to it; see who would get it: shmbus route {letter.type}"
    return None


def _show(letter: Letter, outcome: str, why: str | None, as_json: bool) -> None:
    facts = {"type": letter.type, "kind": letter.kind, "source": letter.source}
    if as_json:
        reason = {"size": letter.size, "reason": letter.reason}
        print_json({**facts, **reason, "outcome": outcome.replace(" ", "_"), "why": why})
    else:
        about = f"{outcome}: {letter.kind} {letter.type} from {letter.source}, {letter.size} bytes"
        write(encoded(one_line(f"{about}: {why}" if why else f"{about} ({letter.reason})")))
    flush()
