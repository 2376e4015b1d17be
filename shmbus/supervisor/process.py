"""What is said of a process that is to run, before it does."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Literal, get_type_hints

import msgspec

from shmbus import errors
from shmbus.limits import MAX_NAME
from shmbus.shared import names, patterns
from shmbus.shared.grants import Grant

from . import order

SUPERVISOR = "supervisor"
"""The name of the supervisor's own endpoint, and of its service."""

STAND_IN = ".stand-in"
"""What the name of the endpoint ends with that stands in for a process that is asleep."""


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long a process that ends stays ended before it is started again, and how often."""

    first: float = 0.1
    """Seconds before the second restart in a row; the first is at once. It doubles each time."""
    longest: float = 10.0
    """Seconds at most."""
    limit: int = 10
    """Restarts within ``within`` seconds after which it is given up: it stays ``failed``."""
    within: float = 60.0
    """Seconds; who has run for so long begins anew."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process for `supervise`: what runs, and when it is started, restarted and stopped."""

    name: str
    """Unique among the processes of a bus. An endpoint of that name is expected in it, unless
    ``endpoints`` names others."""
    command: tuple[str, ...] = ()
    """The program and its arguments; or `target`."""
    target: str = ""
    """``module:function``, called in a new interpreter without arguments; or `command`."""
    needs: tuple[str, ...] = ()
    """Patterns that somebody has to handle before it is started."""
    restart: Literal["always", "on-failure", "never"] = "always"
    """When it is started again after it has ended."""
    backoff: Backoff = Backoff()
    """How soon, and how often."""
    group: str | None = None
    """Processes of a group are restarted together: where one of them ends and is to be started
    again, all others are stopped and all started in order. One that ends for good stops nobody."""
    start: Literal["now", "first message"] = "now"
    """Whether it is started with the bus, or by the first message for one of ``on``."""
    on: tuple[str, ...] = ()
    """The patterns that it handles: for ``start="first message"``, and so that processes that would
    wait for each other are found before they do."""
    overdue: Literal["tell", "restart"] = "tell"
    """What follows when a handler of it takes longer than its limit: with ``restart`` it is killed
    and started again."""
    grant: Grant | None = None
    """What its endpoints may do; None: all."""
    endpoints: tuple[str, ...] = ()
    """Names by which it may attach, as patterns of `fnmatch`; none: its own name."""
    environment: dict[str, str] = {}
    """Added to that of the supervisor. SHMBUS_BUS is always there, so `shmbus.attach()` needs no
    name."""
    directory: str | None = None
    """In which it runs; None: in that of the supervisor."""
    stop_timeout: float = 5.0
    """Seconds that it has to end by itself after SIGTERM, with which `Endpoint.run` finishes what
    it has and returns; and again after a second one, which all that it has started get, too. Then
    they are killed."""

    @property
    def digest(self) -> str:
        """Of what counts for a run: whoever has another has to be started anew."""
        run = (
            self.command,
            self.target,
            sorted(self.environment.items()),
            self.directory,
            self.grant,
            self.endpoints,
        )
        return hashlib.blake2b(msgspec.msgpack.encode(run), digest_size=8).hexdigest()


def check_processes(processes: Iterable[Process]) -> tuple[Process, ...]:
    """The processes themselves, if they can be supervised together. Raises `InvalidProcess`."""
    found = tuple(processes)
    seen = set[str]()
    for process in found:
        if not isinstance(process, Process):
            raise errors.InvalidProcess(
                process=repr(process),
                reason=f"it is of type {type(process).__name__}",
                remedy="Give shmbus.Process(name=..., command=...)",
            )
        _check_types(process, process)
        _check_types(process, process.backoff, "backoff.")
        _check(process)
        if process.name in seen:
            raise _invalid(process, "another has the same name", "Give each a name of its own")
        seen.add(process.name)
    needed = order.providers(
        {process.name: process.needs for process in found},
        {process.name: process.on for process in found if process.on},
    )
    if ring := order.cycle(needed):
        first = next(process for process in found if process.name == ring[0])
        raise _invalid(
            first,
            f"they wait for each other: {' -> '.join([*ring, ring[0]])}",
            "Let one of them need less",
        )
    return found


def _check_types(process: Process, part: Process | Backoff, where: str = "") -> None:
    for field, kind in get_type_hints(type(part)).items():
        value = getattr(part, field)
        try:
            if field in ("backoff", "grant") and isinstance(value, dict):
                raise msgspec.ValidationError("Expected a struct, got `dict`")
            msgspec.convert(value, kind, from_attributes=True)
        except msgspec.ValidationError as why:
            reason = f"{where}{field}={value!r}: {str(why).lower()}"
            raise _invalid(process, reason, "Give it as Process says") from None


def _check(process: Process) -> None:
    try:
        names.check_endpoint(process.name)
        patterns.check_type(f"{SUPERVISOR}.output.{process.name}")
        for pattern in (*process.needs, *process.on):
            patterns.check_pattern(pattern)
    except (errors.InvalidName, errors.InvalidType, errors.InvalidPattern) as why:
        reason, _, remedy = str(why).partition(". ")
        raise _invalid(process, reason, remedy) from None
    if process.name == SUPERVISOR:
        raise _invalid(process, "the supervisor's own endpoint has this name", "Choose another")
    if bool(process.command) == bool(process.target):
        given = "both a command and a target" if process.target else "no command and no target"
        raise _invalid(process, f"it has {given}", "Give one of both")
    if not isinstance(process.command, tuple):
        raise _invalid(process, "its command is no tuple", 'Give a tuple, ("python", "a.py")')
    module, _, function = process.target.partition(":")
    if process.target and (not module or not function or module == "__main__"):
        raise _invalid(
            process,
            f"{process.target!r} cannot be imported in another interpreter",
            "Give module:function, of a module that can be imported",
        )
    if process.start == "first message":
        if not process.on:
            raise _invalid(
                process,
                "nothing says which message starts it",
                "Give on=, patterns that it handles",
            )
        if len(process.name + STAND_IN) > MAX_NAME:
            reason = f"its name is too long for one that stands in for it ({STAND_IN} is added)"
            raise _invalid(process, reason, "Choose a shorter one")
    backoff = process.backoff
    times = (process.stop_timeout, backoff.first, backoff.longest, backoff.within)
    if not all(map(math.isfinite, times)):
        raise _invalid(process, "a time in it is not finite", "Give seconds")
    if min(*times, backoff.limit) < 0:
        raise _invalid(process, "a time or a number in it is below 0", "Give 0 or more")
    for name in process.environment:
        if not name or "=" in name:
            reason = f"the environment cannot have a variable {name!r}"
            raise _invalid(process, reason, "Give names without '='")
    environment = (text for pair in process.environment.items() for text in pair)
    texts = (*process.command, process.target, process.directory or "", *environment)
    if any("\0" in text for text in texts):
        raise _invalid(process, "a text in it has a NUL character", "Leave that out")


def _invalid(process: Process, reason: str, remedy: str) -> errors.InvalidProcess:
    return errors.InvalidProcess(process=process.name, reason=reason, remedy=remedy)
