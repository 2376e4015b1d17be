"""Processes of the test with kills."""

from __future__ import annotations

from xi_bridge.follower import Follower
from xi_bridge.front_end import FrontEnd

import shmbus.aio
from shmbus.testing import TIMEOUT

AT_ONCE = 4
"""Keys in an edit, of which one is always under way."""


async def typist(ep: shmbus.aio.Endpoint, view: str, start: list[str], text: str) -> None:
    """Types, some keys at once. Then it shows its lines to whoever asks, and how often it sent an
    edit again."""
    async with FrontEnd(ep, view) as front:
        for movement in start:
            front.press(movement)
        await ep.subscribe("typing")
        await ep.wait_for("typing", receivers=2, timeout=TIMEOUT)  # both begin together
        for at in range(0, len(text), AT_ONCE):
            front.type(text[at : at + AT_ONCE])
            await front.flush()
        ep.handle(f"retries.{ep.name}", lambda message: front.retries)
        ep.handle(f"text.{ep.name}", lambda message: front.text)
        await ep.run()


async def extension(ep: shmbus.aio.Endpoint, view: str) -> None:
    """Shows its lines to whoever asks."""
    async with Follower(ep, view) as follower:
        ep.handle(f"text.{ep.name}", lambda message: follower.text)
        await ep.run()
