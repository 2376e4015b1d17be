"""``shmbus ping``: the way to a site and back, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
import msgspec
from shmbus_console.options import bus_argument, json_option, seconds_option
from shmbus_console.output import flush, print_json, write
from shmbus_console.run import usual_end
from shmbus_console.text import duration

from shmbus import Endpoint, errors
from shmbus_command.attaching import attach_now

from .status import pinged


class Measured(msgspec.Struct):
    """What so many pings have found; seconds."""

    site: str
    sent: int = 0
    received: int = 0
    least: float | None = None
    mean: float | None = None
    most: float | None = None

    @property
    def lost(self) -> float:
        """The part of them that had no answer."""
        return 1 - self.received / self.sent if self.sent else 0.0


@click.command(short_help="Measure the way to another site and back.")
@click.argument("site")
@bus_argument
@click.option("--count", "-n", type=click.IntRange(1), metavar="N", help="End after so many.")
@seconds_option("--interval", "1s", help="Between two pings.")
@seconds_option("--timeout", "2s", help="For which each is waited for.")
@json_option
@click.pass_context
def ping(
    context: click.Context,
    site: str,
    bus: str | None,
    count: int | None,
    interval: float,
    timeout: float,
    as_json: bool,
) -> None:
    """Measure how long the link of BUS takes to the link of SITE and back, until Ctrl-C.

    What a request takes beside that is the way on both buses. Exit code 1 if nothing came back.
    """
    times: list[float] = []
    sent = 0
    with attach_now(bus, "ping") as endpoint:
        with usual_end():
            while True:
                began = time.monotonic()
                sent += 1
                took = _one(endpoint, site, timeout, met=sent > 1)
                if took is not None:
                    times.append(took)
                _tell(site, sent, took, as_json)
                if sent == count:
                    break
                time.sleep(max(0.0, interval - (time.monotonic() - began)))
    found = measured(site, sent, times)
    if as_json:
        print_json(found)
    else:
        click.echo(summary(found))
    context.exit(0 if times else 1)


def _one(endpoint: Endpoint, site: str, timeout: float, *, met: bool) -> float | None:
    """Seconds; None: no answer came. `met`: it was up before, and may be again."""
    try:
        return pinged(endpoint, site, timeout)
    except errors.NoSuchSite:
        if not met:
            raise
    except (errors.RequestTimeout, errors.EndpointDied):
        pass
    return None


def _tell(site: str, number: int, took: float | None, as_json: bool) -> None:
    if as_json:
        print_json({"site": site, "number": number, "seconds": took})
    else:
        what = "no answer" if took is None else duration(took)
        write(f"{site}: {number}: {what}".encode())
    flush()


def measured(site: str, sent: int, times: Sequence[float]) -> Measured:
    """What these pings have found."""
    if not times:
        return Measured(site, sent)
    mean = sum(times) / len(times)
    return Measured(site, sent, len(times), min(times), mean, max(times))


def summary(found: Measured) -> str:
    """The last line."""
    told = f"{found.sent} sent, {found.received} came back, {found.lost:.0%} lost"
    if found.mean is None:
        return told
    times = "/".join(map(duration, (found.least, found.mean, found.most)))
    return f"{told}; min/avg/max {times}"
