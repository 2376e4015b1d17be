"""``shmbus wait``."""

from __future__ import annotations

import time
from typing import Literal

import click
from shmbus_console.options import bus_option, complete_type, json_option, seconds_option
from shmbus_console.output import print_json

from shmbus import errors, observe
from shmbus.views import EndpointInfo

_Role = Literal["any", "subscribe", "handle"]
_PAUSE = 0.02


@click.command("wait", short_help="Wait until somebody receives what matches a pattern.")
@click.argument("pattern", shell_complete=complete_type)
@bus_option
@click.option(
    "--role",
    type=click.Choice(["any", "subscribe", "handle"]),
    default="any",
    show_default=True,
    help="What they do: subscribe to events, or handle requests and commands.",
)
@click.option(
    "--receivers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Wait for so many endpoints.",
)
@seconds_option(
    "--timeout", "30s", help="Exit code 4 after so long (3 without a bus); 0: look once."
)
@json_option
def wait(
    pattern: str,
    bus: str | None,
    role: _Role,
    receivers: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Wait until an endpoint would get what matches PATTERN (or a type); for scripts.

    \b
      shmbus wait calc.add --role handle && shmbus request calc.add '[1, 2]'

    It waits for the bus, too, and for its next dispatcher where that is dead; it observes, and does
    not attach. Prints nothing; with --json, who was found.
    """
    began = time.monotonic()
    end = began + timeout
    while True:
        try:
            found = _found(bus, pattern, role)
            problem: errors.BusError | None = None
        except (errors.NoSuchBus, errors.BusDown) as missing:
            if isinstance(missing, errors.NoSuchBus) and missing.bus is None and missing.running:
                raise  # several run: it is not known which one is meant
            found, problem = [], missing
        if len(found) >= receivers:
            break
        if time.monotonic() >= end:
            raise problem or errors.WaitTimeout(
                pattern=pattern, receivers=receivers, found=len(found), seconds=timeout
            )
        time.sleep(max(min(_PAUSE, end - time.monotonic()), 0.0))
    if as_json:
        names = [endpoint.name for endpoint in found]
        print_json({"pattern": pattern, "endpoints": names, "seconds": time.monotonic() - began})


def _found(bus: str | None, pattern: str, role: _Role) -> list[EndpointInfo]:
    """The endpoints by which the dispatcher routes what matches."""
    with observe(bus) as view:
        if not (info := view.info()).alive:
            raise errors.BusDown(bus=info.name, reason="its dispatcher is dead", pid=info.pid)
        wanted = None if role == "any" else role
        return [endpoint for endpoint in view.find(pattern, role=wanted) if endpoint.routed]
