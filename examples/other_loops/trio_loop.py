"""Tasks of trio receive from the bus, ask it, and do other things meanwhile.

python examples/other_loops/trio_loop.py
"""

import contextlib
import multiprocessing
import os
import time

import trio

import shmbus
from shmbus import Endpoint, Message
from shmbus.errors import BusDown


def thermometer(bus: str) -> None:
    """Another process: measures when it is asked, and says so."""
    with shmbus.attach(bus, name="thermometer") as endpoint, contextlib.suppress(BusDown):

        @endpoint.handle("measure")
        def measure(message: Message) -> float:
            time.sleep(0.01)
            celsius: float = 20.0 + message.payload
            endpoint.publish("temperature", celsius)
            return celsius

        endpoint.run()


async def receive(endpoint: Endpoint) -> Message:
    """The next message that has no callback. May be cancelled: no message is lost by that."""
    while (message := endpoint.receive(0)) is None:
        await trio.lowlevel.wait_readable(endpoint)
    return message


async def ask(endpoint: Endpoint, number: int) -> float:
    """A request waits, so it is made in a thread of trio's; replies may be awaited side by side."""
    reply = await trio.to_thread.run_sync(lambda: endpoint.request("measure", number))
    return float(reply.payload)


async def count(ticks: list[float]) -> None:
    """What else there is to do."""
    while True:
        ticks.append(trio.current_time())
        await trio.sleep(0.001)


async def watch(endpoint: Endpoint) -> None:
    ticks: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count, ticks)
        for number in range(3):
            nursery.start_soon(ask, endpoint, number)
        seen = sorted([(await receive(endpoint)).payload for _ in range(3)])
        print("temperatures:", *seen)
        with trio.move_on_after(0.05) as patience:
            await receive(endpoint)
        print("nobody measures any more:", patience.cancelled_caught)
        nursery.cancel_scope.cancel()
    print("the loop went on meanwhile:", len(ticks) > 3)


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"house-{os.getpid()}") as bus, bus.attach("display") as display:
        process = spawn.Process(target=thermometer, args=(bus.name,))
        process.start()
        display.subscribe("temperature")
        display.wait_for("measure", timeout=30)
        trio.run(watch, display)
    process.join()


if __name__ == "__main__":
    main()
