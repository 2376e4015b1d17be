"""What ``shmbus link`` does until it is ended: it has the link run, starts it again, and keeps what
is sent meanwhile."""

from __future__ import annotations

import select
import signal
import time
from contextlib import ExitStack

from shmbus_console.output import note
from shmbus_console.run import FAILED

from shmbus import BusError
from shmbus.host import awaited
from shmbus.links import Keep, Keeper, LinkConfig

from .child import Child, Told

_END = 12.0  # seconds that a link has to end by itself: a little more than `Link.close` takes

_FIRST, _LONGEST = 0.1, 10.0
"""Seconds until it is started once more; the first time at once, then doubled each time."""

_SOUND = 60.0  # seconds after which a link that ends is the first to have ended


def run(bus: str, config: LinkConfig, *, quiet: bool = False) -> int:
    """Run it until SIGINT or SIGTERM; then, or where it could not be started, its exit code."""
    with ExitStack() as block:
        signalled = block.enter_context(awaited())
        keeper = None
        if config.delivery == "confirmed":
            keeper = block.enter_context(Keeper(bus, config.name))
        was_up, in_a_row = False, 0
        while True:
            began = time.monotonic()
            former = () if keeper is None else keeper.sites
            child = Child(Told(bus, config, quiet, former))
            up = _follow(child, signalled, keeper)
            code = child.end(_END)
            if _readable(signalled):
                return 0
            was_up |= up
            if not was_up:
                return code if code > 0 else FAILED
            in_a_row = 0 if time.monotonic() - began >= _SOUND else in_a_row + 1
            note("link", f"{_ended(code)}, and is started again")
            if _readable(signalled, _pause(in_a_row)):
                return 0


def _pause(in_a_row: int) -> float:
    if in_a_row <= 1:
        return 0.0
    return min(_FIRST * 2.0 ** min(in_a_row - 2, 64), _LONGEST)


def _follow(child: Child, signalled: int, keeper: Keeper | None) -> bool:
    """Do what it says until it ends, or is to end. Whether it was up."""
    up = False
    come = select.poll()  # select() takes no descriptor above 1023
    for descriptor in (signalled, child.fileno()):
        come.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in come.poll()}
        if signalled in ready:
            return up
        said = child.said()
        if said is None:
            return up
        if isinstance(said, Keep):
            if keeper is not None:
                _keep(keeper, said)
            child.kept()
        else:
            up = True


def _keep(keeper: Keeper, said: Keep) -> None:
    try:
        keeper.keep(said)
    except BusError as problem:  # it goes on, and is told again of the next change
        note("link", f"what is sent while the link is started again is not kept: {problem}")


def _readable(descriptor: int, seconds: float = 0.0) -> bool:
    come = select.poll()
    come.register(descriptor, select.POLLIN)
    return bool(come.poll(seconds * 1000))


def _ended(code: int) -> str:
    if code >= 0:
        return f"it has ended with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:  # a real-time one
        return f"it was ended by signal {-code}"
