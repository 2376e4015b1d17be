"""The commands that send: pub, send and request."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import click
from rich.progress import TaskID
from shmbus_console.messages import print_parts
from shmbus_console.options import (
    Number,
    Size,
    bus_option,
    complete_type,
    json_option,
    raw_options,
    refuse_both,
    seconds_option,
)
from shmbus_console.output import print_json
from shmbus_console.run import Failure

from shmbus import Endpoint, errors

from . import from_file
from .attaching import attach_to
from .gathering import ask_all
from .outcome import forwarded
from .pace import Pace
from .payloads import PAYLOAD, Given, payload_options, payloads


def _common(command: Any) -> Any:
    """What pub, send and request have in common."""
    for option in (
        json_option,
        seconds_option(
            "--wait",
            help="First wait so long at most until the bus runs and an endpoint would get it.",
        ),
        click.option("--rate", type=Number(0.001), metavar="N", help="So many a second."),
        payload_options,
        click.argument("type", shell_complete=complete_type),
        bus_option,
    ):
        command = option(command)
    return command


class _Given(Given):
    """What pub and send hand on of it."""

    rate: float | None
    timeout: float
    as_json: bool


def _with_payload(command: Callable[..., Any]) -> Callable[..., Any]:
    command.__doc__ = (command.__doc__ or "").replace("{PAYLOAD}", PAYLOAD)
    return command


@click.command()
@_common
@seconds_option("--timeout", "5s", help="How long to wait while the ring is full.")
@click.option(
    "--retain",
    is_flag=True,
    help="Have the bus keep it for who subscribes later (shmbus get); without a payload: let go of "
    "what it kept.",
)
@click.option("--urgent", is_flag=True, help="Let it overtake what waits at its receivers.")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Publish the bytes of FILE (-: of standard input), however many, instead of a PAYLOAD.",
)
@click.option(
    "--chunk",
    type=Size(),
    help="With --file: in pieces of so many bytes (as 64K, 1M), each an event of its own.",
)
@_with_payload
def pub(
    bus: str | None,
    type: str,
    wait: float | None,
    retain: bool,
    urgent: bool,
    file: str | None,
    chunk: int | None,
    **given: Unpack[_Given],
) -> None:
    """Publish an event of TYPE, to all who subscribe to it.

    {PAYLOAD}
    """
    if file is not None and given["payload"] is not None:
        raise click.UsageError("--file stands instead of PAYLOAD")
    if chunk is not None and file is None:
        raise click.UsageError("--chunk is for --file")
    with attach_to(bus, "pub", type, "subscribe", wait) as endpoint:
        if file is None:
            publish = partial(endpoint.publish, retain=retain, urgent=urgent)
            _post(publish, "published", type, given)
        else:
            ways = {"retain": retain, "urgent": urgent, "timeout": given["timeout"]}
            _post_file(endpoint, type, file, chunk, ways, given)


@click.command()
@_common
@seconds_option("--timeout", "5s", help="How long to wait while the ring is full.")
@_with_payload
def send(bus: str | None, type: str, wait: float | None, **given: Unpack[_Given]) -> None:
    """Send a command of TYPE to the one endpoint that handles it.

    {PAYLOAD}

    Exit code 1 where no endpoint takes it.
    """
    with attach_to(bus, "send", type, "handle", wait) as endpoint:
        _post(endpoint.send, "sent", type, given)
        _require_taken(endpoint, type, given["timeout"])


def _require_taken(endpoint: Endpoint, type: str, timeout: float) -> None:
    """Fail where commands that were sent have become dead letters; wait until that is known."""
    mine = forwarded(endpoint, timeout)
    if mine is None or not (mine.undeliverable or mine.unforwarded):
        return
    handled = any(r.role == "handle" for r in endpoint.bus.route(type).receivers)
    if not handled and mine.sent.sends == 1:
        raise errors.NoRoute(type=type)
    if not handled:
        why = "no endpoint handles them. Start one that does, or wait for it: --wait"
    elif mine.undeliverable:
        why = "each is a dead letter, which says why: shmbus sub '$bus.undeliverable'"
    else:
        why = (
            "no handler had space for them. Wait longer (--timeout), or see who is full: shmbus ls"
        )
    missed = mine.undeliverable or mine.unforwarded
    raise Failure(
        f"{missed} of {mine.sent.sends} commands of {type!r} were not taken: {why}",
        type=type,
        sent=mine.sent.sends,
        not_taken=missed,
    )


def _post(post: Callable[..., None], done: str, type: str, given: _Given) -> None:
    number, pace, began = 0, Pace(given["rate"]), time.monotonic()
    try:
        for value in payloads(given):
            pace.wait()
            post(type, value, timeout=given["timeout"])
            number += 1
    finally:  # also before a failure
        if given["as_json"]:
            print_json({done: number, "seconds": time.monotonic() - began})


def _post_file(
    endpoint: Endpoint,
    type: str,
    path: str,
    chunk: int | None,
    ways: dict[str, Any],
    given: _Given,
) -> None:
    number, sent, pace, times = 0, 0, Pace(given["rate"]), given["count"]
    with from_file.opened(path, times) as source, from_file.progress(source, times) as shown:
        began = time.monotonic()
        try:
            for _ in range(times):
                if number:
                    source.file.seek(0)
                for size in from_file.publish(endpoint, type, source, chunk, pace, **ways):
                    number, sent = number + 1, sent + size
                    shown.update(TaskID(0), completed=sent)
        finally:  # also before a failure
            if given["as_json"]:
                seconds = time.monotonic() - began
                print_json({"published": number, "bytes": sent, "seconds": seconds})


@click.command()
@_common
@seconds_option("--timeout", "5s", help="For which each reply is waited for, or each part.")
@click.option(
    "--all",
    "to_all",
    is_flag=True,
    help="Ask every endpoint that handles TYPE; print a table of what each answered.",
)
@click.option(
    "--at-least", type=click.IntRange(1), metavar="N", help="With --all: so many replies do."
)
@raw_options
@_with_payload
def request(
    bus: str | None,
    type: str,
    rate: float | None,
    wait: float | None,
    timeout: float,
    to_all: bool,
    at_least: int | None,
    as_json: bool,
    as_raw: bool,
    delimiter: bytes,
    **given: Unpack[Given],
) -> None:
    """Make a request of TYPE and print the payload of the reply; of one in parts each as it comes.

    {PAYLOAD}

    Exit code 4 where no reply comes in time, 1 where no endpoint handles it or its handler fails.
    With --all, 0 where all have replied, or --at-least so many; 4 where what is missing did not
    come in time, 1 where some failed otherwise.
    """
    refuse_both(as_json, as_raw, delimiter)
    if to_all and as_raw:
        raise click.UsageError("--all prints a table, or with --json a document: leave out --raw")
    if at_least is not None and not to_all:
        raise click.UsageError("--at-least is for --all")
    with attach_to(bus, "request", type, "handle", wait) as endpoint:
        pace = Pace(rate)
        for value in payloads(given):
            pace.wait()
            if to_all:
                ask_all(endpoint, type, value, timeout, at_least, as_json=as_json)
                continue
            began = time.monotonic()
            with endpoint.stream(type, value, timeout=timeout) as parts:
                print_parts(parts, began, delimiter if as_raw else b"\n", as_json)
