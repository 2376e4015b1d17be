"""Two front-ends type a file through XI's core, while everything between them is killed once.

    python examples/xi_bridge/demo.py

The host, the front-ends and an extension are processes of their own, as they would be in an editor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

import shmbus.aio

if not __package__:  # started by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from xi_bridge.follower import Follower
from xi_bridge.front_end import FrontEnd, open_view

HERE = Path(__file__).resolve().parent
PACE = 0.005
"""Seconds between two keys."""
ANN = """'Twas brillig, and the slithy toves
Did gyre and gimble in the wabe:
All mimsy were the borogoves,
And the mome raths outgrabe."""
BOB = """"Beware the Jabberwock, my son!
The jaws that bite, the claws that catch!
Beware the Jubjub bird, and shun
The frumious Bandersnatch!"
"""


async def typist(bus: str, file: str, name: str, text: str) -> None:
    """Types at its end of the file, and shows its lines to whoever asks."""
    async with shmbus.aio.attach(bus, name=name, reconnect="always") as ep:
        async with FrontEnd(ep, await open_view(ep, file)) as front:
            front.press(f"move_to_{'beginning' if name == 'ann' else 'end'}_of_document")
            for key in text:
                front.type(key)
                await asyncio.sleep(PACE)
            await front.flush()
            ep.handle(f"text.{name}", lambda message: front.text)
            await ep.run()


async def show(bus: str, file: Path, programs: Programs) -> None:
    host = programs.start(HERE, bus, "--state", file.parent / "state")
    async with shmbus.aio.attach(bus, name="demo", timeout=30, reconnect="always") as ep:
        await ep.wait_for("xi.new_view", timeout=30)
        view = await open_view(ep, str(file))
        counter = programs.start(HERE / "word_count.py", bus, file)
        async with Follower(ep, view) as follower:
            for name, text in (("ann", ANN), ("bob", BOB)):
                programs.start(__file__, bus, file, name, text)
            print(f"{file.name} is open, and ann and bob type")

            async def typed(part: float) -> None:
                await follower.until(lambda: len(follower.text) > part * len(ANN + BOB))

            await typed(0.2)
            psutil.Process(host.pid).children()[0].kill()
            await typed(0.4)
            print("the core was killed: another one has the view again")
            programs.restart(counter)
            await typed(0.6)
            print("the extension was killed, and started again")
            programs.restart(host)
            await typed(0.8)
            print("the host was killed, and the bus with it: the next one goes on")
            await follower.until(lambda: follower.text == f"{ANN}\n{BOB}")
        await ask(ep, "xi.save", {"view_id": view})
        for name in ("ann", "bob"):
            while await ask(ep, f"text.{name}") != file.read_text():
                await asyncio.sleep(PACE)  # its last update is under way
        count = await ask(ep, f"words.{view}")
        print(f"ann, bob and the file have the same {len(follower.cache.lines) - 1} lines")
        print(f"the extension counts {count} words")


async def ask(ep: shmbus.aio.Endpoint, type: str, payload: object = None) -> object:
    await ep.wait_for(type, timeout=30)
    return (await ep.request(type, payload, timeout=30)).payload


class Programs:
    """Python programs, which end with the demonstration."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, *map(str, command)])
        self._started.append(process)
        return process

    def restart(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it, and start another in its place."""
        process.kill()
        process.wait()
        self._started[self._started.index(process)] = subprocess.Popen(process.args)

    @contextlib.contextmanager
    def ended(self) -> Iterator[None]:
        try:
            yield
        finally:
            for process in reversed(self._started):  # the host comes last
                process.terminate()
                process.wait()


def main() -> None:
    programs = Programs()
    with tempfile.TemporaryDirectory() as directory, programs.ended():
        file = Path(directory) / "poem.txt"
        file.write_text("\n")
        asyncio.run(show(f"xi-{os.getpid()}", file, programs))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        if len(sys.argv) == 1:
            main()
        else:
            asyncio.run(typist(*sys.argv[1:]))
