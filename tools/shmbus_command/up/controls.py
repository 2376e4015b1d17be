"""``shmbus restart``, ``logs`` and ``reload``, and the status: what is asked of a supervisor over
its bus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click
import msgspec
from click.shell_completion import CompletionItem
from shmbus_console.options import bus_option, json_option, seconds_option
from shmbus_console.output import flush, note, print_json
from shmbus_console.run import Failure, usual_end

from shmbus import BusError, Endpoint
from shmbus.errors import BusDown, NoRoute, RemoteError
from shmbus.supervisor import Control, Line, ProcessStatus
from shmbus_command.arguments import near
from shmbus_command.attaching import attach_now

from .printed import ToTerminal
from .status import summary

OUTPUT = "supervisor.output"
"""What the types of events begin with that have a line each."""

_SETTLED = 0.5  # seconds for which a process has to run that attaches nothing
_PAUSE = 0.02  # seconds between two looks at a process that is to start


class Controlled(NamedTuple):
    """A supervisor, asked over its bus."""

    endpoint: Endpoint
    control: Control


@contextmanager
def controlled(bus: str | None) -> Iterator[Controlled]:
    """The supervisor of a bus. Ends the command where there is none."""
    try:
        with attach_now(bus, "up") as endpoint:
            yield Controlled(endpoint, endpoint.client(Control, "supervisor"))
    except NoRoute:
        name = endpoint.bus.name
        raise Failure(
            f"nothing supervises processes on bus {name!r}: start them with shmbus up FILE",
            bus=name,
        ) from None
    except BusDown as problem:
        remedy = "Start it again, with its processes: shmbus up FILE adopts those that run on"
        raise BusDown(**{**problem.data, "remedy": remedy}) from None


def _complete_process(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    try:
        with controlled(context.params.get("bus")) as (_, control):
            return [
                CompletionItem(one.name, help=one.state)
                for one in control.status()
                if one.name.startswith(incomplete)
            ]
    except (BusError, click.ClickException):
        return []


@click.command(short_help="Stop processes of shmbus up, and start them again.")
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete_process
)
@bus_option
@seconds_option("--timeout", "30s", help="For which each is waited for until it runs again.")
@json_option
def restart(names: tuple[str, ...], bus: str | None, timeout: float, as_json: bool) -> None:
    """Stop each process NAME that shmbus up runs, and start it again, with all of its group. Where
    one ends at once, otherwise than with 0, this fails."""
    with controlled(bus) as (_, control):
        for name in names:
            before = _status_of(control, name)
            control.restart(name)
            now = _await_restart(control, before, time.monotonic() + timeout)
            if as_json:
                print_json(now)
            else:
                runs = f"runs as process {now.pid}"
                click.echo(f"{name} {runs if now.state == 'running' else f'is {now.state} again'}")


def _status_of(control: Control, name: str) -> ProcessStatus:
    """Ends the command where there is no such process."""
    found = {one.name: one for one in control.status()}
    if name not in found:
        raise click.UsageError(f"shmbus up runs no process {name!r}: {near(name, found)}")
    return found[name]


def _await_restart(control: Control, before: ProcessStatus, end: float) -> ProcessStatus:
    """Until it has attached, or has run for a moment, or had little to do."""
    while True:
        now = _status_of(control, before.name)
        if now.state == "running" and now.pid != before.pid:
            if now.attached or time.time() - now.since >= _SETTLED:
                return now
        elif now.state in ("ended", "asleep") and now.since > before.since:
            if now.code in (0, None) and not now.signal:
                return now
            raise _failure(now, f"was started, and {now.ended}")
        elif now.state == "restarting":
            raise _failure(now, f"was started, and is to be once more: {now.reason}")
        if now.state == "failed":
            raise _failure(now, f"has failed: {now.reason}")
        if time.monotonic() >= end:
            raise Failure(
                f"{now.name} does not run yet: it is {now.state}. Wait longer: --timeout",
                timed_out=True,
                process=now.name,
                state=now.state,
            )
        time.sleep(_PAUSE)


def _failure(now: ProcessStatus, what: str) -> Failure:
    return Failure(f"{now.name} {what}", process=now.name, state=now.state)


@click.command(short_help="Have shmbus up read its file again.")
@bus_option
@json_option
def reload(bus: str | None, as_json: bool) -> None:
    """Have shmbus up read its file again: new processes are started, those that are gone from it
    stopped, changed ones restarted. Where the file cannot be used, all stays as it is, and this
    fails."""
    with controlled(bus) as (_, control):
        try:
            control.reload()
        except RemoteError as problem:
            told = f"all stays as it was: {problem.message}"
            raise Failure(told, error=problem.error) from None
        found = control.status()
        if as_json:
            print_json(found)
        else:
            click.echo(summary(found))


@click.command(short_help="Show what the processes of shmbus up have printed.")
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=_complete_process)
@bus_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what they print, until Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0, 1000),
    default=100,
    show_default=True,
    metavar="N",
    help="The last N lines of each.",
)
@json_option
def logs(names: tuple[str, ...], bus: str | None, follow: bool, lines: int, as_json: bool) -> None:
    """Show the last lines that each process NAME of shmbus up has printed, or all have. The last
    1,000 of each are kept, and 1 MiB, also where they go to files."""
    with controlled(bus) as (endpoint, control), usual_end():
        if follow:
            endpoint.subscribe(f"{OUTPUT}.>", overflow="drop_newest")  # who prints waits for nobody
        for name in names:
            _status_of(control, name)
        wanted = list(names) or [one.name for one in control.status()]
        show = LinesOnce(wanted, as_json, others=not names)
        kept = [line for name in wanted for line in control.logs(name, lines)]
        for line in sorted(kept, key=lambda line: (line.time, line.number)):
            show(line)
        while follow:
            message = endpoint.receive()
            assert message is not None  # it waits for ever
            show(msgspec.convert(message.payload, Line))


class LinesOnce:
    """Prints the lines of these processes, and of ``others`` that come: each line once, whether it
    was kept, has come, or both."""

    def __init__(self, names: list[str], as_json: bool, *, others: bool) -> None:
        self._last, self._others = dict.fromkeys(names, 0), others
        self._print = _print_json if as_json else ToTerminal(names)

    def __call__(self, line: Line) -> None:
        if line.name not in self._last and not self._others:
            return
        last = self._last.get(line.name, 0)
        if line.number > last:
            if last and line.number > last + 1:
                missed = line.number - last - 1
                note("logs", f"{missed} lines of {line.name} came faster than they were printed")
            self._last[line.name] = line.number
            self._print(line)


def _print_json(line: Line) -> None:
    print_json(line)
    flush()
