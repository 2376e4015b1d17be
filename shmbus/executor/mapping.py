"""A function applied to many items: with a bounded number of them under way, whatever is to come.

Nothing here is a future: an item costs its place in a deque, its request and its result.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from .line import Call

if TYPE_CHECKING:
    from .calls import Calls

LOOK_AHEAD = 1024
"""Items that are taken before their results are."""


def call_each(function: Callable[..., Any], items: list[tuple[Any, ...]]) -> list[Any]:
    """What a worker does with a chunk."""
    return [function(*item) for item in items]


class Item(Call):
    """One call of a map."""

    def __init__(self, function: Any, number: int, retries: int, told: deque[Item] | None) -> None:
        self._function = function
        self._number = number
        self._packed = None
        self._retries = retries
        self._sent = None
        self._over = False
        self._told = told

    def _ended(self) -> bool:
        return self._over

    def _end(self, error: BaseException | None) -> bool:
        if not self._over:
            self._packed = None
            self._error = error
            self._over = True
            if self._told is not None:
                self._told.append(self)
        return False

    def _cancel(self) -> bool | None:
        if self._over:
            return False
        self._end(CancelledError())
        return None

    def _invoke_callbacks(self) -> None:
        pass


class Mapping:
    """The results of one map, as they are taken."""

    def __init__(
        self,
        calls: Calls,
        function: Callable[..., Any],
        source: Iterator[tuple[Any, ...]],
        sized: bool,
        window: int,
        ordered: bool,
        end: float | None,
    ) -> None:
        self._calls = calls
        self._line = calls.line
        self._function = function
        self._source = source
        self._sized = sized
        self._window = window
        self._end = end
        self._ahead: deque[Item] = deque()  # in their order, where that matters
        self._any: set[Item] = set()  # else
        self._done: deque[Item] | None = None if ordered else deque()
        self._under_way = 0
        self._more = True
        self._fill(window)

    def _fill(self, window: float) -> None:
        while self._more and self._under_way < window:
            try:
                arguments = next(self._source)
            except StopIteration:
                self._more = False
                return
            item = self._calls.item(self._function, arguments, self._done)
            self._under_way += 1
            if self._done is None:
                self._ahead.append(item)
            else:
                self._any.add(item)

    def absorb(self) -> None:
        """Take all items that are to come, if they have an end: soon none are taken any more."""
        if self._sized:
            self._fill(float("inf"))

    def results(self) -> Generator[Any, None, None]:
        """The results, or what came instead, as `Executor.map` says."""
        try:
            while self._under_way:
                yield self._result()
        finally:
            self._more = False
            for item in (*self._ahead, *self._any):
                if not item._over:
                    self._line.cancel(item)

    def _result(self) -> Any:
        """That of the next one, of which nothing is kept here."""
        item = self._next()
        self._under_way -= 1
        if item._error is not None:
            try:
                raise item._error
            finally:
                del item
        if self._under_way <= self._window // 2:
            self._fill(self._window)
        result, item._result = item._result, None
        return result

    def _next(self) -> Item:
        """The next that has ended. Raises `TimeoutError`."""
        if self._done is not None:
            done = self._done
            if not done:
                self._line.wait_until(lambda: bool(done), self._left())
            item = self._done.popleft()
            self._any.discard(item)
            return item
        item = self._ahead[0]
        if not item._over:
            self._line.wait_for(item, self._left())
        return self._ahead.popleft()

    def _left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())


def chunks(items: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """The items, so many at a time."""
    source = iter(items)
    while chunk := list(itertools.islice(source, size)):
        yield chunk
