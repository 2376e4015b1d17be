"""An extension: it counts the words of a view, in a process of its own.

    python examples/xi_bridge/word_count.py BUS FILE

Whoever asks `words.VIEW` gets the count, and hears each new one as an event of that type. It reads
the view as a front-end does, and may come and go.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import shmbus.aio

if not __package__:  # started by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from xi_bridge.follower import Follower
from xi_bridge.front_end import open_view


async def count_words(ep: shmbus.aio.Endpoint, view: str) -> None:
    """Until the endpoint is closed."""
    async with Follower(ep, view) as follower:
        ep.handle(f"words.{view}", lambda message: len(follower.text.split()))
        ep.start()
        counted = -1
        while True:
            await follower.step()
            words = len(follower.text.split())
            if words != counted:
                counted = words
                await ep.publish(f"words.{view}", words, retain=True)


async def main(bus: str, file: str) -> None:
    try:
        async with shmbus.aio.attach(bus, name="word-count", reconnect="always") as ep:
            await count_words(ep, await open_view(ep, file))
    except shmbus.RemoteError as why:  # its file cannot be opened, or its view was closed
        sys.exit(f"word_count: {why.message}")
    except shmbus.errors.Disconnected:
        pass


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2]))
