"""Who types into an editor's core, on a bus or on its pipes; each function is a role (stage.py)."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Protocol

from xi_bridge.direct import Direct
from xi_bridge.front_end import FrontEnd, open_view
from xi_bridge.lines import LineCache

import shmbus
import shmbus.aio
from benchmark.measure.calls import Latency, latency
from benchmark.stage import Stage

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
LINES = 1000
"""Of the file that is typed into, in its middle."""
KEYS = "the quick brown fox jumps over the lazy dog "
PAUSE = 5e-3
"""Seconds from when a key is seen to the next."""


class Front(Protocol):
    cache: LineCache
    on_change: Callable[[], object]

    def press(self, method: str, params: object = None) -> None: ...
    async def flush(self) -> None: ...


def host(stage: Stage, bus: str, directory: str, settings: shmbus.Settings) -> None:
    """A process that serves the bus and has the core."""
    command = [sys.executable, "-m", "xi_bridge", bus, "--state", str(Path(directory, "state"))]
    command += ["--block-timeout", str(settings.block_timeout)]
    with subprocess.Popen(command, cwd=EXAMPLES) as process:
        try:
            stage.ready_before_others()
            stage.wait_until_stopped()
        finally:
            process.terminate()


def typist(stage: Stage, bus: str, directory: str, seconds: float) -> Latency:
    """From a key to its line in the front-end, through bus and host."""

    async def run() -> Latency:
        async with shmbus.aio.attach(bus, name="typist", timeout=20.0) as endpoint:
            view = await open_view(endpoint, _file(directory))
            async with FrontEnd(endpoint, view) as front:
                return await _type(stage, front, seconds)

    return asyncio.run(run())


def direct_typist(stage: Stage, directory: str, seconds: float) -> Latency:
    """The same with the core's pipes in the front-end's own process, and no bus between."""

    async def run() -> Latency:
        async with Direct(_file(directory)) as front:
            return await _type(stage, front, seconds)

    return asyncio.run(run())


def _file(directory: str) -> str:
    path = Path(directory, "typed.txt")
    path.write_text("a line of the file, as long as such lines are\n" * LINES)
    return str(path)


async def _type(stage: Stage, front: Front, seconds: float) -> Latency:
    """Nanoseconds from each key to when the front-end shows it."""
    line, written = LINES // 2, ""
    seen = asyncio.Event()
    at = 0

    def look() -> None:
        nonlocal at
        shown = front.cache.lines[line] if line < len(front.cache.lines) else None
        if shown is not None and shown.text == f"{written}\n" and not seen.is_set():
            at = perf_counter_ns()
            seen.set()

    front.press("goto_line", {"line": line})
    front.press("insert_newline")
    front.press("move_left")
    await front.flush()
    front.on_change = look
    took = array("q")
    stage.ready()
    began = perf_counter_ns()
    while perf_counter_ns() - began < seconds * 1e9:
        key = KEYS[len(took) % len(KEYS)]
        if len(written) == len(KEYS):
            line, written, key = line + 1, "", "\n"
        seen.clear()
        before = perf_counter_ns()
        if key == "\n":
            front.press("insert_newline")
        else:
            written += key
            front.press("insert", {"chars": key})
        async with asyncio.timeout(20.0):
            await seen.wait()
        took.append(at - before)
        await asyncio.sleep(PAUSE)
    front.on_change = lambda: None
    with contextlib.suppress(TimeoutError):
        await front.flush()
    return latency(took)
