"""Events and commands that tasks send: what finds no space waits in line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from shmbus.shared._kernel import seconds
from shmbus.shared.layout import Kind

from .lending import Loan
from .line import NO_LINE

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Batch as KernelBatch
    from shmbus.endpoint._kernel import Loan as KernelLoan
    from shmbus.endpoint._kernel import Looped

    from .turns import Turns

EVENT, SEND = int(Kind.EVENT), int(Kind.SEND)


class Posting:
    """That of one endpoint."""

    def __init__(self, looped: Looped, turns: Turns) -> None:
        self._looped, self._turns = looped, turns

    async def in_line(
        self,
        line: int,
        kind: int,
        flags: int,
        type: str,
        payload: object,
        timeout: float | None,
        number: int | None = None,
    ) -> None:
        """Send a message that found no space, once there is some. `number`: which it is of
        many."""
        await self._turns.lines[line].wait(
            lambda line: self._looped.post(kind, flags, type, payload, line),
            self._looped.patience(seconds(timeout), line),
            lambda: self._looped.full(type, timeout, number, line),
        )

    async def many(self, items: Iterable[tuple[str, object]], timeout: float | None) -> None:
        """Send events, portions of them at a time."""
        source, number = iter(items), 0
        while True:
            number, left, line = self._looped.post_many(source, number)
            if left is not None:
                await self.in_line(line, EVENT, 0, *left, timeout, number)
                number += 1
            elif number < 0:
                return
            else:
                await asyncio.sleep(0)

    async def batched(
        self,
        batch: KernelBatch,
        kind: int,
        flags: int,
        type: str,
        payload: object,
        timeout: float | None,
    ) -> None:
        """Send a message with that batch."""
        self._turns.here()
        line = self._looped.post(kind, flags, type, payload, NO_LINE, batch)
        if line != NO_LINE:
            await self.in_line(line, kind, flags, type, payload, timeout)

    async def together(self, items: Sequence[tuple[int, int, str, object]]) -> None:
        """Send messages, of kind, flags, type and payload, by one store: whoever is killed, all
        are sent or none. The first alone may go by the pool. Waits for as long as that takes."""
        self._turns.here()
        line = self._looped.post_together(items, NO_LINE)
        if line != NO_LINE:
            await self._turns.lines[line].wait(
                lambda line: self._looped.post_together(items, line),
                self._looped.patience(None, line),
                lambda: self._looped.full(items[0][2], None, None, line),
            )

    def loan(self, made: KernelLoan, timeout: float | None) -> Loan:
        """One that a task begins and publishes."""
        wait = seconds(timeout)

        async def in_line(attempt: Callable[[KernelLoan, int], int], loan: KernelLoan) -> None:
            self._turns.here()
            line = attempt(loan, NO_LINE)
            if line != NO_LINE:
                await self._turns.lines[line].wait(
                    lambda line: attempt(loan, line),
                    self._looped.patience(wait, line),
                    lambda: self._looped.full(loan.type, timeout, None, line),
                )

        return Loan(
            made,
            partial(in_line, self._looped.begin_loan),
            partial(in_line, self._looped.publish_loan),
        )
