"""Where messages wait until a task works on them, or an iteration takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shmbus import errors
from shmbus.endpoint._kernel import Gate, LoopIteration
from shmbus.settings import check_count

from .subscribing import Callback, is_asynchronous

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Job, Looped
    from shmbus.endpoint.subscribing import Subscribing

    from .turns import Turns


class Gates:
    """Those of one endpoint, whose jobs are at most `concurrency` at a time."""

    def __init__(
        self, subscribing: Subscribing, looped: Looped, turns: Turns, concurrency: int
    ) -> None:
        self._subscribing, self._looped, self._turns = subscribing, looped, turns
        self._concurrency = concurrency

    def of_callback(self, function: Callback, concurrency: int | None) -> Gate | None:
        """Where the jobs of a callback or handler begin; None of a plain function. Raises
        `InvalidSetting`."""
        if concurrency is not None:
            check_count("concurrency", concurrency)
        if is_asynchronous(function):
            return self.of_jobs(concurrency)
        if concurrency not in (None, 1):
            raise errors.InvalidSetting(
                setting="concurrency",
                value=concurrency,
                reason="a plain function works on one message at a time",
                remedy="Give an async function, or leave it out",
            )
        return None

    def of_jobs(
        self, concurrency: int | None, begin: Callable[[Job], object] | None = None
    ) -> Gate:
        """Where jobs begin, of a function whose results are to be awaited; `begin` begins them."""
        if self._turns.runs:
            self._turns.start(self._concurrency)
        return Gate(
            min(concurrency or self._concurrency, self._concurrency),
            begin or self._turns.jobs.begin,
        )

    def of_iteration(self, concurrency: int | None) -> Gate:
        """Where the messages wait of a subscription without a callback. Raises
        `InvalidSetting`."""
        if concurrency is not None:
            raise errors.InvalidSetting(
                setting="concurrency",
                value=concurrency,
                reason="there is no callback that could work at the same time",
                remedy="Give a callback, or leave it out",
            )
        return Gate(0, self._turns.receivers.arrived)

    def iterate(self, gate: Gate) -> LoopIteration:
        """Messages wait there from now on; this takes them."""
        self._turns.here()
        if not gate.iterated:
            gate.iterated = gate.late = True
            self._turns.receivers.iterate(gate)
            self._subscribing.forget_callbacks()
            self._looped.claim()
            self._looped.leave_mailbox(gate)
            gate.late = False
        return LoopIteration(self._looped, gate, self._turns.message)
