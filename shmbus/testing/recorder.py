"""What has arrived: :class:`Recorder`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

from shmbus.endpoint._kernel import Message
from shmbus.endpoint.endpoint import Endpoint

from .waiting import TIMEOUT


class Recorder:
    """Keeps what an endpoint of its own receives; made by the fixture `recorder`."""

    def __init__(
        self, endpoint: Endpoint, patterns: Iterable[str], handles: Iterable[str] = ()
    ) -> None:
        self.endpoint = endpoint
        self._messages: list[Message] = []
        self._changed = threading.Condition()
        for pattern in patterns:
            endpoint.subscribe(pattern, self._keep)
        for pattern in handles:
            endpoint.handle(pattern, self._keep)
        endpoint.start()

    def _keep(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    @property
    def messages(self) -> list[Message]:
        """What has come so far, in order."""
        with self._changed:
            return list(self._messages)

    @property
    def payloads(self) -> list[Any]:
        """Their payloads."""
        return [message.payload for message in self.messages]

    @property
    def types(self) -> list[str]:
        """Their types."""
        return [message.type for message in self.messages]

    def wait(
        self,
        n: int = 1,
        where: Callable[[Message], bool] | None = None,
        *,
        timeout: float = TIMEOUT,
    ) -> list[Message]:
        """Wait for `n` messages since the last `clear` (of those for which `where` is true), and
        return all that have come. Fails the test after `timeout` seconds."""

        def found() -> list[Message]:
            return [m for m in self._messages if where is None or where(m)]

        with self._changed:
            if not self._changed.wait_for(lambda: len(found()) >= n, timeout):
                raise AssertionError(
                    f"{len(found())} of {n} messages within {timeout:g} s; "
                    f"{len(self._messages)} came in all: {[m.type for m in self._messages][:20]}"
                )
            return found()

    async def wait_async(
        self,
        n: int = 1,
        where: Callable[[Message], bool] | None = None,
        *,
        timeout: float = TIMEOUT,
    ) -> list[Message]:
        """Like `wait`, for a test in an event loop, which has its turns meanwhile."""
        return await asyncio.to_thread(self.wait, n, where, timeout=timeout)

    def clear(self) -> None:
        """Forget what has come so far."""
        with self._changed:
            self._messages.clear()

    def __len__(self) -> int:
        return len(self.messages)
