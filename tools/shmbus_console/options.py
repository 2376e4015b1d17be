"""Options and arguments that several commands take, and what a shell completes for them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from shmbus import buses, observe
from shmbus.errors import BusError
from shmbus.options import seconds
from shmbus.views import EndpointInfo

VARIABLE = "SHMBUS_BUS"
"""Of the environment: it names the bus where a command line names none."""

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A number of at least so much; NaN is none, which compares as neither less nor more."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        found = super().convert(value, parameter, context)
        if found != found:
            self.fail(f"{value!r} is not a number", parameter, context)
        return found


class Seconds(click.ParamType):  # type: ignore[type-arg]  # a generic one only since click 8.3
    """A time, as `shmbus.options.seconds` reads it: 500ms, 2m, 1.5 (seconds)."""

    name = "TIME"

    def __init__(self, least: str = "0", most: str | None = None) -> None:
        self._least, self._most = least, most

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> float:
        try:
            found = seconds(str(value))
        except ValueError as problem:
            self.fail(str(problem), parameter, context)
        if found < seconds(self._least):
            self.fail(f"{value!r} is shorter than {self._least}", parameter, context)
        if self._most is not None and found > seconds(self._most):
            self.fail(f"{value!r} is longer than {self._most}", parameter, context)
        return found


class Size(click.ParamType):  # type: ignore[type-arg]  # a generic one only since click 8.3
    """A number of bytes, at least 1: 4096, 64K, 1M, 2G."""

    name = "SIZE"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> int:
        found = re.fullmatch(r"([0-9]+)([KMG]?)", str(value), re.IGNORECASE)
        size = int(found[1]) << 10 * "KMG".find(found[2].upper() or "?") + 10 if found else 0
        if not size:
            self.fail(f"{value!r} is not a size, as 4096, 64K, 1M are", parameter, context)
        return size


def seconds_option(
    name: str,
    default: str | None = None,
    *,
    least: str = "0",
    most: str | None = None,
    help: str,
) -> Callable[[F], F]:
    """An option for a time, with bounds; the value is in seconds."""
    return click.option(
        name,
        type=Seconds(least, most),
        default=default,
        show_default=default is not None,
        metavar=Seconds.name,
        help=help,
    )


# The bus ----------------------------------------------------------------------------------------


def complete_bus(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The buses of this user."""
    return [
        CompletionItem(info.name, help=f"{info.state}, {info.endpoints} endpoints")
        for info in buses()
        if info.name.startswith(incomplete)
    ]


def complete_endpoint(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The endpoints of the bus on the command line."""
    return [name for name in (e.name for e in _endpoints(context)) if name.startswith(incomplete)]


def complete_type(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The patterns that endpoints on the bus subscribe to or handle."""
    wanted = {pattern for e in _endpoints(context) for pattern in e.patterns}
    return sorted(pattern for pattern in wanted if pattern.startswith(incomplete))


def _endpoints(context: click.Context) -> list[EndpointInfo]:
    try:
        with observe(context.params.get("bus")) as bus:
            return bus.endpoints()
    except BusError:
        return []


_FROM_VARIABLE = "shmbus.variable"
"""Where it is kept whether the environment has named the bus."""


def named_by_variable(context: click.Context) -> bool:
    """Whether the environment has named the bus of this command line."""
    return bool(context.meta.get(_FROM_VARIABLE))


def _note_source(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    source = context.get_parameter_source(parameter.name or "")
    context.meta[_FROM_VARIABLE] = source is ParameterSource.ENVIRONMENT
    return value


bus_option: Callable[[F], F] = click.option(
    "--bus",
    "-b",
    envvar=VARIABLE,
    callback=_note_source,
    shell_complete=complete_bus,
    metavar="NAME",
    help="By default the only one running.",
)


_NAMED = "shmbus.bus"
"""Where the option -b keeps its value for the argument BUS."""


def bus_argument(command: F) -> F:
    """The argument BUS, which may be given as the option -b as well, as elsewhere."""

    def keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.meta[_NAMED] = value

    def take(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        named: str | None = context.meta.get(_NAMED)
        return _note_source(context, parameter, value) if named is None else named

    for add in (
        click.option(
            "--bus",
            "-b",
            "named",
            is_eager=True,
            expose_value=False,
            callback=keep,
            shell_complete=complete_bus,
            metavar="NAME",
            help="The same as BUS.",
        ),
        click.argument(
            "bus",
            required=False,
            envvar=VARIABLE,
            callback=take,
            shell_complete=complete_bus,
        ),
    ):
        command = add(command)
    return command


json_option: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one document a line."
)


# What is printed --------------------------------------------------------------------------------

_ESCAPED = re.compile(rb"\\([nrt0\\]|x[0-9A-Fa-f]{2})")
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


def raw_options(command: F) -> F:
    """The options for printing payloads alone."""

    def unescape(context: click.Context, parameter: click.Parameter, value: str) -> bytes:
        return _ESCAPED.sub(
            lambda found: _ESCAPES.get(found[1]) or bytes.fromhex(found[1][1:].decode()),
            os.fsencode(value),
        )

    for add in (
        click.option(
            "--delimiter",
            "-D",
            default="",
            callback=unescape,
            metavar="TEXT",
            help="With --raw, print this after each; \\n, \\t, \\0 and \\xNN are as in C.",
        ),
        click.option(
            "--raw",
            "as_raw",
            is_flag=True,
            help="Print payloads alone and nothing else, not even ends of lines (see --delimiter): "
            "bytes and text as they are, the rest as JSON.",
        ),
    ):
        command = add(command)
    return command


def refuse_both(as_json: bool, as_raw: bool, delimiter: bytes) -> None:
    """Refuse ``--json`` with ``--raw``, and ``--delimiter`` without."""
    if as_json and as_raw:
        raise click.UsageError("--json and --raw exclude each other")
    if delimiter and not as_raw:
        raise click.UsageError("--delimiter is for --raw")
