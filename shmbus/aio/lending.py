"""Memory of the pool that a task fills in place and then publishes: `Loan`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from shmbus.endpoint._kernel import Loan as KernelLoan

_Kind = type[BaseException] | None


class Loan:
    """Memory that is filled in place and then published; see `shmbus.Endpoint.loan`. Use it in an
    `async with` block."""

    def __init__(
        self,
        inner: KernelLoan,
        begin: Callable[[KernelLoan], Awaitable[None]],
        publish: Callable[[KernelLoan], Awaitable[None]],
    ) -> None:
        self._inner, self._begin, self._publish = inner, begin, publish

    @property
    def type(self) -> str:
        """Of the event."""
        return self._inner.type

    @property
    def nbytes(self) -> int:
        """Of its payload."""
        return self._inner.nbytes

    @property
    def data(self) -> memoryview:
        """As with `shmbus.Endpoint.loan`."""
        return self._inner.data

    @property
    def array(self) -> np.ndarray[Any, np.dtype[Any]]:
        """As with `shmbus.Endpoint.loan_array`."""
        return self._inner.array

    @property
    def published(self) -> bool:
        """Whether it was."""
        return self._inner.published

    @property
    def lent(self) -> bool:
        """Whether it can be filled: it has begun, and is neither published nor given back."""
        return self._inner.lent

    async def publish(self) -> None:
        """Publish it now, rather than at the end of the block."""
        await self._publish(self._inner)

    def discard(self) -> None:
        """Give it back: nothing is published. Harmless if that is over."""
        self._inner.discard()

    async def __aenter__(self) -> Self:
        await self._begin(self._inner)
        return self

    async def __aexit__(
        self,
        kind: _Kind,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._inner.lent:
                await self.publish()
        finally:
            self.discard()

    def __repr__(self) -> str:
        return repr(self._inner)
