"""The command that answers requests: reply."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from typing import Any

import click
import msgspec
from shmbus_console.messages import envelope, pretty, raw
from shmbus_console.options import bus_option, json_option
from shmbus_console.output import flush, note, print_json, write
from shmbus_console.run import usual_end

from shmbus import Message

from .attaching import attach_now, wait_for_bus


@click.command()
@click.argument("pattern")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@bus_option
@wait_for_bus
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Answer so many at a time.",
)
@click.option(
    "--count", "-n", type=click.IntRange(1), metavar="N", help="End after so many requests."
)
@click.option("--quiet", "-q", is_flag=True, help="Do not print what comes.")
@json_option
def reply(
    pattern: str,
    command: tuple[str, ...],
    bus: str | None,
    wait: float | None,
    threads: int,
    count: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Answer the requests that match PATTERN, until Ctrl-C.

    Without a COMMAND the reply is the payload of the request. With one it is run for each request
    and gets the payload (JSON, bytes as they are) on its standard input, the type and the source in
    SHMBUS_TYPE and SHMBUS_SOURCE. What it prints is the reply: JSON if it is that, else text. If it
    ends with another exit code than 0, the request fails with what it printed on standard error.
    Options of the COMMAND come after --.
    """
    answered = 0
    lock = threading.Lock()
    logging.getLogger("shmbus").addFilter(_brief)
    with attach_now(bus, "reply", wait) as endpoint, usual_end():

        def answer(message: Message[Any]) -> Any:
            nonlocal answered
            with lock:
                answered += 1
                last = answered == count
                if not quiet:
                    if as_json:
                        print_json(envelope(message))
                    else:
                        write(pretty(message))
                    flush()
            if last:
                threading.Thread(target=endpoint.drain, daemon=True).start()
            return _run(command, message) if command else message.payload

        endpoint.handle(pattern, answer)
        note("reply", f"answering {pattern} on {endpoint.bus.name}")
        endpoint.run(threads=threads, reconnect=False)


class CommandFailed(Exception):
    """The command that a request was answered with failed."""


def _brief(record: logging.LogRecord) -> bool:
    """Log a failed command without this process's traceback: what it printed is enough."""
    if record.exc_info and isinstance(record.exc_info[1], CommandFailed):
        record.exc_info = None
    return True


def _run(command: tuple[str, ...], message: Message[Any]) -> Any:
    given = {**os.environ, "SHMBUS_TYPE": message.type, "SHMBUS_SOURCE": message.source}
    done = subprocess.run(command, input=raw(message.payload), capture_output=True, env=given)
    if done.returncode:
        printed = done.stderr.decode(errors="replace").strip()
        raise CommandFailed(f"{command[0]} ended with {done.returncode}: {printed}")
    try:
        return msgspec.json.decode(done.stdout)
    except (ValueError, RecursionError):
        return done.stdout.decode(errors="replace").removesuffix("\n")
