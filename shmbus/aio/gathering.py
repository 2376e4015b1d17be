"""A question to all, asked by a task: `Endpoint.gather`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.endpoint.gathering import NEVER, Gathering, Result
from shmbus.shared._kernel import monotonic_ns

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Deadline, Looped, LoopReply

    from .turns import Turns


async def gather(
    looped: Looped,
    turns: Turns,
    gathering: Gathering,
    type: str,
    payload: object,
    deadline: Deadline,
    reply_type: Any,
) -> dict[str, Result]:
    """Ask all, and wait. Others in the loop have a turn meanwhile."""
    under_way: list[LoopReply] = []
    loop = asyncio.get_running_loop()
    try:
        while not gathering.over:
            progress = loop.create_future()
            for reply in under_way:
                reply.future = progress
            try:
                looped.ask_directed(
                    gathering.to_ask, under_way, progress, type, payload, deadline, reply_type
                )
            except errors.RequestTimeout:  # inherited, and over by now
                pass
            except errors.Disconnected as why:
                gathering.fail_rest(why)
            if gathering.take_ended(under_way):
                continue
            gathering.expire()
            if not gathering.over:
                await _wait(progress, gathering.wake_at())
        if turns.over:
            looped.require()
    finally:
        for reply in under_way:
            reply.cancel()
        if under_way:
            turns.again()  # others may have their entries
    return gathering.results()


async def _wait(progress: asyncio.Future[None], end: int) -> None:
    """Until a request has ended, or until `end` (ns by the monotonic clock)."""
    left = None if end == NEVER else max(0.0, (end - monotonic_ns()) / 1e9)
    await asyncio.wait([progress], timeout=left)
