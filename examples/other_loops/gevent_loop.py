"""Greenlets receive from the bus, ask it, and do other things meanwhile.

gevent must leave threads and sockets as they are, since the bus has native threads.

    python examples/other_loops/gevent_loop.py
"""

import gevent.monkey

gevent.monkey.patch_all(thread=False, socket=False)

import contextlib  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402

import gevent.socket  # noqa: E402

import shmbus  # noqa: E402
from shmbus import Endpoint, Message  # noqa: E402
from shmbus.errors import BusDown  # noqa: E402


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


def receive(endpoint: Endpoint) -> Message:
    """The next message that has no callback; other greenlets run meanwhile."""
    while (message := endpoint.receive(0)) is None:
        gevent.socket.wait_read(endpoint.fileno())
    return message


def ask(endpoint: Endpoint, number: int) -> float:
    """A request waits, so it is made in a native thread of gevent's."""
    reply = gevent.get_hub().threadpool.apply(endpoint.request, ("measure", number))
    return float(reply.payload)


def count(ticks: list[float]) -> None:
    """What else there is to do."""
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.001)  # which gevent has replaced


def main() -> None:
    ticks: list[float] = []
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"house-{os.getpid()}") as bus, bus.attach("display") as display:
        process = spawn.Process(target=thermometer, args=(bus.name,))
        process.start()
        display.subscribe("temperature")
        display.wait_for("measure", timeout=30)
        counting = gevent.spawn(count, ticks)
        asking = [gevent.spawn(ask, display, number) for number in range(3)]
        seen = sorted([receive(display).payload for _ in range(3)])
        print("temperatures:", *seen)
        print("answers:", *[each.get() for each in asking])
        counting.kill()
        print("the loop went on meanwhile:", len(ticks) > 3)
    process.join()


if __name__ == "__main__":
    main()
