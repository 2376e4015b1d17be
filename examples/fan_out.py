"""Event fan-out: one process publishes events, and every subscriber gets them.

An editor publishes what changes in its buffers. The indexer must not miss any of it. The linter
subscribes to one buffer. The monitor gets everything and must never delay the editor: what does
not fit into its ring is dropped, and counted.

    python examples/fan_out.py
"""

import contextlib
import multiprocessing
import os

import shmbus
from shmbus import Message
from shmbus.errors import BusDown
from shmbus.shared.patterns import Overflow

CHANGES = 1000


def subscriber(bus: str, name: str, pattern: str, overflow: Overflow) -> None:
    with shmbus.attach(bus, name=name) as endpoint, contextlib.suppress(BusDown):
        received = 0

        def on_change(message: Message) -> None:
            nonlocal received
            received += 1

        def on_saved(message: Message) -> None:
            endpoint.send("report", {"name": name, "received": received})

        endpoint.subscribe(pattern, on_change, overflow=overflow)
        endpoint.subscribe("session.saved", on_saved)
        endpoint.run()


SUBSCRIBERS: list[tuple[str, str, Overflow]] = [
    ("indexer", "buffer.*.changed", "block"),
    ("linter", "buffer.7.changed", "block"),
    ("monitor", "buffer.>", "drop_newest"),
]


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"editor-{os.getpid()}") as bus:
        processes = [spawn.Process(target=subscriber, args=(bus.name, *one)) for one in SUBSCRIBERS]
        for process in processes:
            process.start()
        reports: dict[str, int] = {}
        with bus.attach("editor") as editor:

            def on_report(message: Message) -> None:
                reports[message.payload["name"]] = message.payload["received"]
                if len(reports) == len(SUBSCRIBERS):
                    editor.close()

            editor.handle("report", on_report)
            editor.wait_for("session.saved", receivers=len(SUBSCRIBERS), timeout=30)
            receivers = ", ".join(sorted(bus.route("buffer.7.changed").subscribers))
            print(f"buffer.7.changed would go to {receivers}")

            with editor.batch(max_messages=64, max_delay=0.001) as batch:
                for revision in range(CHANGES):
                    batch.publish(f"buffer.{revision % 10}.changed", {"revision": revision})
            editor.publish("session.saved")  # after all the changes, to every subscriber
            editor.run()

        for name, _, _ in SUBSCRIBERS:
            print(f"{name} received {reports[name]} changes")
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
