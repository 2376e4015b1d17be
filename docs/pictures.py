"""Make the pictures of shmtop, of the demonstration and of the editor on XI's core in docs/images,
from a real run of each. README has the first two in characters: run docs/written.py after it.

python docs/pictures.py [PATH]        PATH: the tree for the demonstration, as in `shmbus demo`
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text
from shmtop.app import ShmTop
from shmtop.sampler import Sampler

import shmbus
import shmbus.aio
from shmbus import Message
from shmbus.errors import BusDown, QueueFull

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import xi_bridge.row
from xi_bridge.core import COMMAND
from xi_bridge.editor import Editor
from xi_bridge.front_end import FrontEnd, open_view
from xi_bridge.host import Host

IMAGES = Path(__file__).resolve().parent / "images"
WIDTH, HEIGHT = 100, 19  # characters


def save(name: str, picture: str) -> None:
    # Without the fonts that it would fetch from elsewhere: any monospaced one does.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    picture = re.sub(
        r"font-family: (?:Fira Code|\w+), monospace", "font-family: monospace", picture
    )
    (IMAGES / name).write_text(re.sub(r"[ \t]+$", "", picture, flags=re.MULTILINE))
    print(IMAGES / name)


# The demonstration ------------------------------------------------------------------------------


def demo(arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from shmbus_command import main; main()", "demo", *arguments]
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    library = Path(sysconfig.get_path("stdlib")).resolve()
    printed = Text.from_ansi(done.stdout.replace(str(library), library.name).rstrip())
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=68, file=nowhere)
        console.print(printed)
    save("demo.svg", console.export_svg(title="shmbus demo"))


# shmtop -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def joined(bus: str, name: str) -> Iterator[shmbus.Endpoint]:
    """An endpoint until the bus is ended, which some find out in the middle of something."""
    logging.getLogger("shmbus").disabled = True
    with shmbus.attach(bus, name=name, timeout=60) as endpoint, contextlib.suppress(BusDown):
        yield endpoint


def member(bus: str, name: str, handling: float) -> None:
    """Takes its share of the files; each keeps it busy for so many seconds."""
    with joined(bus, name) as endpoint:

        def work(message: Message) -> None:
            end = time.monotonic() + handling
            while time.monotonic() < end:
                pass
            endpoint.send("index.add", {"path": message.payload, "words": 12})

        endpoint.subscribe("source.file", work, group="workers")
        endpoint.run()


def index(bus: str) -> None:
    with joined(bus, "index") as endpoint:
        endpoint.handle("index.add", lambda message: None)
        endpoint.handle("index.query", lambda message: {"hits": []})
        endpoint.run()


def monitor(bus: str) -> None:
    """Looks at all that happens, and is in nobody's way when it is too slow."""
    with joined(bus, "monitor") as endpoint:
        endpoint.subscribe("buffer.>", lambda message: time.sleep(0.001), overflow="drop_newest")
        endpoint.subscribe("$bus.>", lambda message: None)
        endpoint.run()


def editor(bus: str) -> None:
    with joined(bus, "editor") as endpoint:
        endpoint.wait_for("index.query", timeout=60)
        revision = 0
        while True:
            for buffer in range(20):
                endpoint.publish(f"buffer.{buffer}.changed", {"revision": revision})
            endpoint.request("index.query", {"text": "import"}, timeout=None)
            revision += 1
            time.sleep(0.004)


def walker(bus: str) -> None:
    with joined(bus, "walker") as endpoint:
        endpoint.wait_for("source.file", receivers=3, timeout=60)
        number = 0
        while True:
            with contextlib.suppress(QueueFull):
                endpoint.publish("source.file", f"lib/module_{number}.py", timeout=1)
            number += 1
            time.sleep(0.002)


def camera(bus: str) -> None:
    with joined(bus, "camera") as endpoint:
        endpoint.wait_for("camera.frame", receivers=2, timeout=60)
        frame = np.zeros((1080, 1920, 3), np.uint8)
        endpoint.publish("camera.dark", frame, retain=True)
        while True:
            endpoint.publish("camera.frame", frame)
            time.sleep(1 / 30)


def display(bus: str) -> None:
    """Looks at the last three frames."""
    with joined(bus, "display") as endpoint:
        endpoint.subscribe("camera.frame", overflow="latest")
        shown: deque[object] = deque(maxlen=3)
        for message in endpoint:
            shown.append(message.payload)
            del message


def detector(bus: str) -> None:
    """Takes frames while it looks at one, as fast as it can."""
    with joined(bus, "detector") as endpoint:
        endpoint.subscribe("camera.frame", lambda message: time.sleep(0.02))
        endpoint.run()


async def look(bus: str) -> tuple[str, str]:
    """The table, and the page of pools."""
    app = ShmTop(Sampler(bus), interval=0.5)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await asyncio.sleep(6)  # rates and a sparkline take some time to show something
        await pilot.pause()
        table = app.export_screenshot(title="shmtop symphony")
        await pilot.press("p")
        await asyncio.sleep(1)
        await pilot.pause()
        return table, app.export_screenshot(title="shmtop symphony, key p")


def shmtop() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(
        "symphony",
        settings=shmbus.Settings(in_bytes=1 << 15, out_bytes=1 << 15, reply_bytes=1 << 15),
    ) as bus:
        parts: list[BaseProcess] = [
            spawn.Process(target=index, args=(bus.name,)),
            spawn.Process(target=monitor, args=(bus.name,)),
            *(
                spawn.Process(target=member, args=(bus.name, f"worker-{n}", 0.002))
                for n in (1, 2, 3)
            ),
            spawn.Process(target=editor, args=(bus.name,)),
            spawn.Process(target=walker, args=(bus.name,)),
            spawn.Process(target=display, args=(bus.name,)),
            spawn.Process(target=detector, args=(bus.name,)),
            spawn.Process(target=camera, args=(bus.name,)),
        ]
        for part in parts:
            part.start()
        with bus.attach("pictures") as endpoint:
            endpoint.wait_for("source.file", receivers=3, timeout=60)
            endpoint.wait_for("index.query", timeout=60)
        stopped = parts[4].pid
        assert stopped is not None
        time.sleep(2)
        os.kill(stopped, signal.SIGSTOP)  # worker-3, with work in its queue
        try:
            for name, picture in zip(("shmtop", "pools"), asyncio.run(look(bus.name)), strict=True):
                save(f"{name}.svg", picture)
        finally:
            os.kill(stopped, signal.SIGCONT)
    for part in parts:
        part.join()


# The editor -------------------------------------------------------------------------------------


async def edit(bus: str, state: Path) -> str:
    """A file of ours, in which somebody else types, too."""
    file = xi_bridge.row.__file__
    async with (
        shmbus.aio.attach(bus, name="xi") as serving,
        shmbus.aio.attach(bus, name="ann") as ours,
        shmbus.aio.attach(bus, name="bob") as theirs,
    ):
        host = asyncio.create_task(Host(serving, state, COMMAND).run())
        view = await open_view(ours, file)
        await ours.request(
            "xi.plugin", {"command": "start", "view_id": view, "plugin_name": "words"}
        )
        async with FrontEnd(ours, view) as ann, FrontEnd(theirs, view) as bob:
            app = Editor(ann, Path(file).name)
            async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
                await ann.click(13, 6)
                await bob.click(9, 7)
                bob.type("  # cells")
                await bob.flush()
                ann.press("move_word_right_and_modify_selection")
                await ann.flush()
                await ann.until(lambda: "# cells" in ann.text)
                await pilot.pause()
                picture = app.export_screenshot(title="python -m xi_bridge.editor symphony row.py")
        host.cancel()
        await asyncio.wait([host])
        return picture


def editor_on_xi() -> None:
    with shmbus.serve("symphony") as bus, tempfile.TemporaryDirectory() as state:
        save("editor.svg", asyncio.run(edit(bus.name, Path(state))))


if __name__ == "__main__":
    demo(sys.argv[1:])
    shmtop()
    editor_on_xi()
    print("README shows both in characters: python docs/written.py")
