"""What the commands that print what comes, sub and tap, have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
from shmbus_console.options import bus_option, complete_type, json_option, seconds_option
from shmbus_console.output import flush, note
from shmbus_console.run import TIMED_OUT, usual_end
from shmbus_console.text import duration

from shmbus import Endpoint, Message, errors

from .attaching import wait_for_bus

_AT_ONCE = 256  # messages that are printed before the output is flushed
_DOZE = 0.2  # seconds that a receive waits; so long a closed pipe may go unnoticed


def receiving_options(command: Any) -> Any:
    """What sub and tap have in common."""
    for option in (
        json_option,
        click.option(
            "--reconnect", is_flag=True, help="Wait for the next dispatcher where one dies."
        ),
        wait_for_bus,
        seconds_option(
            "--timeout",
            help="End after so long; with exit code 4 if --count is given and fewer came.",
        ),
        click.option(
            "--count", "-n", type=click.IntRange(1), metavar="N", help="End after so many."
        ),
        bus_option,
        click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=complete_type),
    ):
        command = option(command)
    return command


def stream(
    who: str,
    endpoint: Endpoint,
    count: int | None,
    timeout: float | None,
    each: Callable[[Message[Any]], object],
    tick: Callable[[], None] | None = None,
    *,
    copies: bool = False,
    one_by_one: bool = False,
    tell_lost: bool = True,
) -> None:
    """Pass on what comes until there are ``count``, ``timeout`` seconds have passed, or Ctrl-C.
    What ``each`` returns False for does not count. ``copies``: more may be received than are passed
    on, since others have got them. ``one_by_one``: each is let go of before the next is taken,
    since they are large."""
    left = count
    end = None if timeout is None else time.monotonic() + timeout
    with usual_end():
        while left != 0 and (end is None or time.monotonic() < end):
            most = _AT_ONCE if left is None or copies else min(left, _AT_ONCE)
            if one_by_one:
                most = 1
            for message in endpoint.receive_many(most, _doze(end)):
                if message.lost and tell_lost:
                    note(who, f"{message.lost} lost here")
                try:
                    counts = each(message) is not False
                except errors.DecodeError as problem:
                    note(who, str(problem))
                    counts = True
                left = left - 1 if left is not None and counts else left
                if left == 0:
                    break
                del message  # its payload may lie in its sender's pool
            if tick is not None:
                tick()
            flush()
        if left:
            assert count is not None
            note(who, f"{count - left} of {count} came within {duration(timeout)}")
            click.get_current_context().exit(TIMED_OUT)
    flush()


def _doze(end: float | None) -> float:
    return _DOZE if end is None else max(min(_DOZE, end - time.monotonic()), 0.0)
