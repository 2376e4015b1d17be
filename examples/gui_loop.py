"""A bus embedded in a program with a loop of its own, as a GUI has.

The loop draws frames and must not wait: once per frame it takes what has come and goes on. It keeps
the interpreter busy in pure Python, which does not delay the bus: messages between the other
processes are forwarded by a native thread that never needs the interpreter.

    python examples/gui_loop.py
"""

import contextlib
import multiprocessing
import os
import time

import shmbus
from shmbus import Message
from shmbus.errors import BusDown

FRAMES = 60
FRAME = 1 / 60  # seconds


def renderer(bus: str) -> None:
    with shmbus.attach(bus, name="renderer") as endpoint, contextlib.suppress(BusDown):

        @endpoint.handle("tile.render")
        def render(message: Message) -> None:
            endpoint.publish("tile.done", {"tile": message.payload["tile"], "pixels": b"\0" * 64})

        endpoint.run()


def draw(until: float) -> int:
    """What a frame costs: pure Python until the time is up."""
    work = 0
    while time.monotonic() < until:
        work += 1
    return work


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"window-{os.getpid()}") as bus, bus.attach("window") as window:
        process = spawn.Process(target=renderer, args=(bus.name,))
        process.start()
        window.subscribe("tile.done")  # without a callback: receive() takes them
        window.wait_for("tile.render", timeout=30)

        wanted = drawn = frame = 0
        while frame < FRAMES or drawn < wanted:
            frame += 1
            if frame <= FRAMES:
                window.send("tile.render", {"tile": frame})
                wanted += 1
            drawn += len(window.receive_many(16, timeout=0))  # what is there, without waiting
            draw(time.monotonic() + FRAME)

        health = bus.health()
        print(f"{drawn} of {wanted} tiles drawn, {health.lost} lost")
        print(f"routing latency beside the busy loop: {health.latency.mean * 1e6:.0f} µs")
    process.join()


if __name__ == "__main__":
    main()
