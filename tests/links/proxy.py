"""A network that can be made bad: a TCP proxy between two links, which delays, throttles and holds
back what passes, and breaks connections."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Self

CHUNK = 1 << 16
UNDER_WAY = 1 << 24  # bytes each way that wait for their time; then a sender's socket fills


class Proxy:
    """Listens on a port of its own on loopback, and passes on what comes to the target's."""

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self.target = (host, target)
        self.delay = 0.0  # seconds for each way
        self.rate: float | None = None  # bytes a second for each way
        self.passed = 0  # bytes, both ways
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._end = asyncio.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def cut(self) -> None:
        """From now on nothing passes: both sides see silence, as of a cable that is pulled."""
        self._do(self._open.clear)

    def heal(self) -> None:
        """It passes again, what was held back first."""
        self._do(self._open.set)

    def reset(self) -> None:
        """Break all connections that are open, as a router that is started again does."""
        self._do(self._break)

    def close(self) -> None:
        """Break all, and listen no more."""
        self._do(self._end.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, what: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(what)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._socket, limit=CHUNK)
        await self._end.wait()
        server.close()
        self._break()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _break(self) -> None:
        for connection in self._connections:
            connection.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            await self._open.wait()
            there, to_there = await asyncio.open_connection(*self.target, limit=CHUNK)
            writers.append(to_there)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, to_there))
                both.create_task(self._pass(there, writer))
        except* (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            for each in writers:
                each.transport.abort()
            self._connections.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way, until it ends; then EOFError, which ends the other."""
        chunks = asyncio.Queue[tuple[float, bytes]](UNDER_WAY // CHUNK)

        async def read() -> None:
            while data := await reader.read(CHUNK):
                await chunks.put((self._loop.time() + self.delay, data))
            raise EOFError

        async def write() -> None:
            free = 0.0  # when the one before has passed
            while True:
                due, data = await chunks.get()
                if self.rate is not None:
                    free = max(free, self._loop.time()) + len(data) / self.rate
                await asyncio.sleep(max(due, free) - self._loop.time())
                await self._open.wait()
                writer.write(data)
                self.passed += len(data)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(read())
            both.create_task(write())
