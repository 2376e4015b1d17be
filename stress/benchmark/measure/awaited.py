"""The same measurements for what is awaited."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable
from itertools import repeat
from time import perf_counter_ns, process_time_ns

from .calls import PAYLOAD, WARM_CALLS, Latency, latency
from .floods import Flood
from .paced import Pace, Paced, stamped


async def time_calls(call: Callable[[bytes], Awaitable[bytes]], seconds: float) -> Latency:
    """Call one after the other, each waiting for its answer."""
    for _ in repeat(None, WARM_CALLS):
        if await call(PAYLOAD) != PAYLOAD:
            raise ValueError("the reply is not what was sent")
    took = array("q")
    after = perf_counter_ns()
    end = after + int(seconds * 1e9)
    while after < end:
        before = perf_counter_ns()
        await call(PAYLOAD)
        after = perf_counter_ns()
        took.append(after - before)
    return latency(took)


async def receive_rate(flood: Flood, take: Callable[[int], Awaitable[None]]) -> float:
    """Messages per second, where ``take(n)`` waits until n more have come to Python."""
    await take(flood.warm)
    start = perf_counter_ns()
    await take(flood.messages - flood.warm)
    return (flood.messages - flood.warm) * 1e9 / (perf_counter_ns() - start)


async def task_rate(work: Callable[[], Awaitable[object]], tasks: int, seconds: float) -> float:
    """How often per second so many tasks do it together; a fifth more warms up."""
    begin = perf_counter_ns() + int(seconds * 2e8)
    end = begin + int(seconds * 1e9)
    count = 0

    async def again_and_again() -> None:
        nonlocal count
        while (now := perf_counter_ns()) < end:
            await work()
            count += now >= begin

    await asyncio.gather(*(again_and_again() for _ in repeat(None, tasks)))
    return count * 1e9 / (perf_counter_ns() - begin)


async def sender_cpu(flood: Flood, send: Callable[[int], Awaitable[None]]) -> float:
    """CPU of the sending process per message, in microseconds."""
    await send(flood.warm)
    start = process_time_ns()
    await send(flood.messages - flood.warm)
    return (process_time_ns() - start) / 1e3 / (flood.messages - flood.warm)


async def warm_up(pace: Pace, send: Callable[[bytes], Awaitable[None]]) -> None:
    """One message that is not measured, and the pause after it."""
    await send(stamped(-1))
    await asyncio.sleep(pace.interval)


async def send_stamped(
    pace: Pace, send: Callable[[bytes], Awaitable[None]], warm: int = 0
) -> Paced:
    """Send 64 bytes with sequence number and time, after so many to warm up."""
    for _ in repeat(None, warm):
        await warm_up(pace, send)
    start = perf_counter_ns()
    number = 0
    for delay in pace.delays():
        await asyncio.sleep(delay)
        for _ in repeat(None, pace.chunk):
            await send(stamped(number))
            number += 1
    return Paced(pace.messages * 1e9 / (perf_counter_ns() - start))
