"""What the other processes of a measurement do: the far end, and clients."""

from __future__ import annotations

import array
import signal
import sys
import time
from typing import Any

from shmbus import Message, Settings, attach

from .figures import Latency
from .measuring import requests
from .processes import PATIENCE, RING

_SETTINGS = Settings(in_bytes=RING, out_bytes=RING, reply_bytes=RING)


def client(bus: str, number: str) -> None:
    """One of several clients: makes requests for as long as it is told."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with attach(bus, name=f"client-{number}", timeout=PATIENCE, settings=_SETTINGS) as endpoint:

        def work(message: Message) -> dict[str, Any]:
            payload, seconds = bytes(message.payload["size"]), message.payload["seconds"]
            began = time.monotonic()
            times = requests(endpoint, payload, seconds, lambda done: None)
            rate = len(times) / (time.monotonic() - began)
            return {"rate": rate, "histogram": Latency.of(times).histogram}

        endpoint.handle(f"bench.client.{number}", work)
        endpoint.run()


def far(bus: str) -> None:
    """The other process: it echoes, counts, and notes when events arrive."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    times = array.array("q")
    count = 0
    with attach(bus, name="far", timeout=PATIENCE, settings=_SETTINGS) as endpoint:

        def paced(message: Message) -> None:
            times.append(time.monotonic_ns() - message.sent_ns)

        def counted(message: Message) -> int:
            nonlocal count
            found, count = count, 0
            return found

        endpoint.handle("bench.echo", lambda message: message.payload)
        endpoint.handle("bench.times", lambda message: times.tolist())
        endpoint.handle("bench.count", counted)
        endpoint.subscribe("bench.paced", paced)
        endpoint.subscribe("bench.flood")
        for _ in endpoint:
            count += 1
