"""Processes of the test with kills."""

from __future__ import annotations

from xi_bridge.follower import Follower
from xi_bridge.front_end import FrontEnd

import shmbus.aio


async def typist(ep: shmbus.aio.Endpoint, view: str, start: list[str], text: str) -> None:
    """Types, key by key. Then it shows its lines to whoever asks."""
    async with FrontEnd(ep, view) as front:
        for movement in start:
            front.press(movement)
        for key in text:
            front.type(key)
            await front.flush()
        ep.handle(f"text.{ep.name}", lambda message: front.text)
        await ep.run()


async def extension(ep: shmbus.aio.Endpoint, view: str) -> None:
    """Shows its lines to whoever asks."""
    async with Follower(ep, view) as follower:
        ep.handle(f"text.{ep.name}", lambda message: follower.text)
        await ep.run()
