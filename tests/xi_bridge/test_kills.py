"""What was typed is in every front-end and in the file, whoever was killed meanwhile."""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from xi_bridge.follower import Follower
from xi_bridge.front_end import FrontEnd, open_view

import shmbus
import shmbus.aio
from shmbus.testing import TIMEOUT, kill, run_async
from shmbus.testing.fixtures import StartWorker
from shmbus.testing.options import WorkerOptions

from .roles import extension, typist

BRIDGE = Path(__file__).parents[2] / "examples" / "xi_bridge"
SOURCE = BRIDGE.parent / "work_queue.py"


class HostProcess:
    """The host, in a process of its own that is killed and started again."""

    def __init__(self, bus: str, state: Path) -> None:
        self._command = [sys.executable, str(BRIDGE), bus, "--state", str(state)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, process_group=0)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT)

    @property
    def core(self) -> int:
        """The pid of its core."""
        (core,) = psutil.Process(self._process.pid).children()
        return int(core.pid)

    def limit_files(self, size: int | None) -> None:
        """Let it write no file beyond so many bytes, as if the disk were full."""
        limit = resource.RLIM_INFINITY if size is None else size
        hard = resource.RLIM_INFINITY
        psutil.Process(self._process.pid).rlimit(resource.RLIMIT_FSIZE, (limit, hard))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(TIMEOUT)
        finally:
            self._process.kill()


@pytest.fixture
def host(bus_name: str, tmp_path: Path) -> Iterator[HostProcess]:
    process = HostProcess(bus_name, tmp_path / "state")
    try:
        yield process
    finally:
        process.stop()


@pytest.mark.slow
def test_two_type_a_file_while_core_extension_and_host_are_killed(
    host: HostProcess, bus_name: str, worker: StartWorker, tmp_path: Path
) -> None:
    source = SOURCE.read_text()
    lines = source.splitlines(keepends=True)
    half, last = len(lines) // 2, lines[-1]
    first, second = "".join(lines[:half])[:-1], "".join(lines[half:-1])
    file = tmp_path / "typed.py"
    file.write_text("\n" + last)  # one types before the line feed, one behind it

    @run_async
    async def main() -> None:
        again: WorkerOptions = {"timeout": TIMEOUT, "reconnect": "always"}
        async with shmbus.aio.attach(bus_name, name="tests", **again) as ep:
            await ep.wait_for("xi.new_view", timeout=TIMEOUT)
            view = await open_view(ep, str(file))
            async with Follower(ep, view) as follower:
                counter = worker(extension, view, name="extension", **again)
                worker(typist, view, [], first, name="ann", **again)
                to_last = ["move_to_end_of_document", "move_up"]
                worker(typist, view, to_last, second, name="bob", **again)

                async def typed(part: float) -> None:
                    await follower.until(lambda: len(follower.text) > part * len(source), TIMEOUT)

                await typed(0.2)
                kill(host.core)
                await typed(0.4)
                counter.kill()
                restart = asyncio.to_thread(worker, extension, view, name="extension", **again)
                restarting = asyncio.create_task(restart)
                await typed(0.6)
                host.kill()
                assert len(follower.text) < len(source)  # it was in the midst of it
                host.start()
                await restarting
                await follower.until(lambda: follower.text == source, TIMEOUT)

            await ep.wait_for("xi.save", timeout=TIMEOUT)
            await ep.request("xi.save", {"view_id": view}, timeout=TIMEOUT)
            assert file.read_text() == source
            core = await ep.request("xi.debug_get_contents", {"view_id": view}, timeout=TIMEOUT)
            assert core.payload == source
            async with Follower(ep, view) as fresh:
                assert fresh.text == source  # the host's
            for name in ("ann", "bob", "extension"):
                while await ask(ep, f"text.{name}") != source:
                    await asyncio.sleep(0.01)
            assert await ask(ep, "retries.ann") + await ask(ep, "retries.bob") > 0


@pytest.mark.slow
def test_what_the_disk_has_no_space_for_is_refused_and_what_was_accepted_stays(
    host: HostProcess, bus_name: str, tmp_path: Path
) -> None:
    @run_async
    async def main() -> None:
        again: WorkerOptions = {"timeout": TIMEOUT, "reconnect": "always"}
        async with shmbus.aio.attach(bus_name, name="tests", **again) as ep:
            await ep.wait_for("xi.new_view", timeout=TIMEOUT)
            view = await open_view(ep, None)
            async with FrontEnd(ep, view) as ann:
                ann.type("a")
                await ann.flush()
                host.limit_files((tmp_path / "state" / view / "journal").stat().st_size + 8)
                ann.type("b")
                with pytest.raises(shmbus.RemoteError, match=r"File too large|No space left"):
                    await ann.flush()
                host.limit_files(None)
                ann.type("c")
                await ann.flush()
                host.kill()
                host.start()
                ann.type("d")
                await ann.until(lambda: ann.text == "acd", TIMEOUT)


async def ask(ep: shmbus.aio.Endpoint, what: str) -> Any:
    await ep.wait_for(what, timeout=TIMEOUT)
    return (await ep.request(what, timeout=TIMEOUT)).payload
