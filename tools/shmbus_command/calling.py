"""The command that calls a method of a service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem
from shmbus_console.messages import print_parts
from shmbus_console.options import bus_option, json_option, raw_options, refuse_both, seconds_option
from shmbus_console.schemas import signature, type_text

from shmbus import BusView, errors, observe
from shmbus.views import MethodInfo

from .arguments import Unfit, near, read, values
from .attaching import attach_to


def _offered(context: click.Context, pattern: str = ">") -> Iterator[MethodInfo]:
    try:
        with observe(context.params.get("bus")) as bus:
            for service in bus.services(pattern):
                yield from service.methods
    except errors.BusError:
        return


def _complete_method(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    found = {method.type: method for method in _offered(context)}
    return [
        CompletionItem(type, help=method.summary or signature(method))
        for type, method in sorted(found.items())
        if type.startswith(incomplete)
    ]


def _complete_argument(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Arguments that are not given yet; of one whose value is typed the values, if they are few."""
    method = next(_offered(context, context.params.get("method") or ">"), None)
    if method is None:
        return []
    properties = method.arguments.get("properties")
    if not isinstance(properties, dict):
        return []
    given = {word.partition("=")[0] for word in context.params.get("arguments") or ()}
    found = []
    for name, schema in properties.items():
        if name in given:
            continue
        if incomplete.startswith(f"{name}="):
            found += [CompletionItem(f"{name}={value}") for value in values(schema)]
        else:
            found.append(CompletionItem(f"{name}=", help=type_text(schema)))
    return [item for item in found if item.value.startswith(incomplete)]


@click.command()
@click.argument("method", shell_complete=_complete_method)
@click.argument("arguments", nargs=-1, shell_complete=_complete_argument)
@bus_option
@seconds_option("--timeout", "5s", help="For which the result is waited for, or each part of it.")
@seconds_option(
    "--wait", help="First wait so long at most until the bus runs and an endpoint offers it."
)
@raw_options
@json_option
def call(
    method: str,
    arguments: tuple[str, ...],
    bus: str | None,
    timeout: float,
    wait: float | None,
    as_raw: bool,
    delimiter: bytes,
    as_json: bool,
) -> None:
    """Call a METHOD that an endpoint offers, and print what it returns. What comes in parts is
    printed as it comes.

    ARGUMENTS are NAME=VALUE each, as in: shmbus call calc.add a=1 b=2. A VALUE is text where the
    method takes text, else JSON: 'point={"x": 1}'. Or they are one JSON object with all of them.
    They are checked before anything is sent: shmbus describe shows what a method takes.

    Exit code 2 where they do not fit or nobody offers the method, 4 where no result comes in time,
    1 where the method fails.
    """
    refuse_both(as_json, as_raw, delimiter)
    with attach_to(bus, "call", method, "handle", wait) as endpoint:
        payload = _checked(endpoint.bus, method, arguments)
        began = time.monotonic()
        with endpoint.stream(method, payload, timeout=timeout) as parts:
            print_parts(parts, began, delimiter if as_raw else b"\n", as_json)


def _checked(bus: BusView, method: str, words: tuple[str, ...]) -> dict[str, Any]:
    """The arguments, as one of those who offer the method takes them."""
    route = bus.route(method)  # raises where that is no type
    problem: Unfit | None = None
    for service in bus.services(method):
        for info in service.methods:
            try:
                return read(info, words)
            except Unfit as why:
                problem = problem or why
    if problem is not None:
        raise click.UsageError(str(problem))
    if handler := next((r.endpoint for r in route.receivers if r.role == "handle"), None):
        raise click.UsageError(
            f"{handler} handles {method!r} and does not say what it takes: shmbus request {method}"
        )
    offered = [m.type for service in bus.services() for m in service.methods]
    raise click.UsageError(f"no endpoint offers {method!r}: {near(method, offered)}")
