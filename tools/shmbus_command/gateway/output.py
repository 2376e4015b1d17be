"""The lines to a client: written in order, and no faster than it reads."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from shmbus_console import arrays
from shmbus_console.output import to_json

AHEAD = 64 * 1024
"""Bytes that are kept for a client that does not read; beyond, whoever writes waits."""


class Output:
    """The lines to one client. Whoever writes waits while it does not read, until `leave`."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._leaving = asyncio.get_running_loop().create_future()

    def put(self, document: dict[str, Any]) -> None:
        """Write a line, without waiting."""
        if not self._writer.is_closing():
            self._writer.write(to_json(document, arrays.whole) + b"\n")

    async def write(self, document: dict[str, Any]) -> None:
        """Write a line, once the client has read nearly all before it."""
        await self.space()
        self.put(document)

    async def space(self) -> None:
        """Wait until the client has read nearly all."""
        while self._full() and not self._leaving.done():
            drained = asyncio.ensure_future(self._drained())
            try:
                await asyncio.wait((drained, self._leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                drained.cancel()

    def _full(self) -> bool:
        waiting = self._writer.transport.get_write_buffer_size()
        return waiting > AHEAD and not self._writer.is_closing()

    async def _drained(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def leave(self) -> None:
        """Nobody waits any more."""
        if not self._leaving.done():
            self._leaving.set_result(None)

    async def close(self, patience: float | None) -> None:
        """Close the connection once the client has read all, or after `patience` seconds."""
        self._writer.close()
        try:
            async with asyncio.timeout(patience):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
