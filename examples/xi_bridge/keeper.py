"""Keeping a core running: one that ends, or hangs and is killed, is followed by another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .core_process import CoreProcess, Owner
from .errors import CoreDown

STEADY = 5.0
"""Seconds after which a core that ends is started again at once."""
PAUSES = 0.05, 2.0
"""Seconds before another start: the first time, and at most."""


class Keeper:
    """`restore` brings a new core to where the last one was, and raises :class:`CoreDown` where
    that ends meanwhile. `tell` is called with `xi.core.up` and `xi.core.down`."""

    def __init__(
        self,
        command: Sequence[str],
        owner: Owner,
        restore: Callable[[CoreProcess], Awaitable[None]],
        tell: Callable[[str, Any], object],
        patience: float,
    ) -> None:
        self.patience = patience
        self.core: CoreProcess | None = None
        self._command, self._owner = command, owner
        self._restore, self._tell = restore, tell
        self._up = asyncio.Event()
        self._reason = "the core has not been started yet"

    async def running(self) -> CoreProcess:
        """The core, once it is there with its views. Raises :class:`CoreDown`."""
        if self.core is not None and self.core.ended.done():
            self._up.clear()
        if not self._up.is_set():
            try:
                async with asyncio.timeout(self.patience):
                    await self._up.wait()
            except TimeoutError:
                raise CoreDown(self._reason) from None
        assert self.core is not None
        return self.core

    async def run(self) -> None:
        """Until cancelled; then the core is ended."""
        loop, pause = asyncio.get_running_loop(), 0.0
        try:
            while True:
                began = loop.time()
                await self._live()
                self._up.clear()
                steady = loop.time() - began > STEADY
                pause = 0.0 if steady else min(max(2 * pause, PAUSES[0]), PAUSES[1])
                await asyncio.sleep(pause)
        finally:
            self._up.clear()
            if self.core is not None and not self.core.ended.done():
                await self.core.close()

    async def _live(self) -> None:
        """One core's life, or the attempt to start one."""
        try:
            core = self.core = await CoreProcess.start(self._command, self._owner)
        except OSError as error:
            self._reason = f"the core could not be started: {error}"
            self._tell("xi.core.down", {"reason": self._reason, "exit": None, "stderr": ""})
            return
        try:
            await self._restore(core)
            self._up.set()
            self._tell("xi.core.up", {"pid": core.pid})
        except CoreDown:
            pass
        self._reason = await asyncio.shield(core.ended)
        down = {"reason": self._reason, "exit": core.exit, "stderr": core.stderr}
        self._tell("xi.core.down", down | {"pid": core.pid})
