"""What the processes do, those that die and those that wait for it.

Each is given the connection to the parent first.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import shutil
import signal
import time
from multiprocessing.connection import Connection

import shmbus
from shmbus.host import host
from shmbus.shared import fence

TIMEOUT = 30.0  # seconds without what must come, after which a figure is not measured
SMALL = shmbus.Settings(in_bytes=16 << 10, out_bytes=16 << 10, reply_bytes=16 << 10)
TINY = shmbus.Settings(in_bytes=4 << 10, out_bytes=4 << 10, reply_bytes=4 << 10)
LOSSLESS = shmbus.Settings(block_timeout=TIMEOUT)  # also if a receiver does not run for a second
now = time.monotonic_ns


def dispatcher(connection: Connection, bus: str, size: int = 0) -> None:
    """Sends when it took the fence."""
    held.append(resident(size))
    taken = 0
    acquire = fence.acquire

    def stamped(name: str) -> fence.Holder | None:
        nonlocal taken
        holder = acquire(name)
        taken = now()
        return holder

    fence.acquire = stamped  # type: ignore[assignment]
    host(bus, settings=LOSSLESS, ready=lambda _: connection.send(taken))


def event_subscriber(connection: Connection, bus: str) -> None:
    """Sends each event of an endpoint, and when it came."""
    with shmbus.attach(bus, name="subscriber") as endpoint:
        endpoint.subscribe("$bus.endpoint.>")
        connection.send("ready")
        for message in endpoint:
            came = now()
            connection.send((message.type.rpartition(".")[2], message.payload["pid"], came))


def caller(connection: Connection, bus: str) -> None:
    """At each message makes a request, and sends when that ended, and how."""
    with shmbus.attach(bus, name=f"caller-{os.getpid()}") as endpoint:
        connection.send("ready")
        while True:
            connection.recv()
            endpoint.wait_for("die", timeout=TIMEOUT)
            try:
                endpoint.request("die", timeout=TIMEOUT)
                connection.send((now(), "answered"))
            except shmbus.BusError as error:
                connection.send((now(), type(error).__name__))


def receiver(connection: Connection, bus: str) -> None:
    """Waits for a message of the bus, and sends when that ended, and how."""
    with shmbus.attach(bus, name="receiver") as endpoint:
        endpoint.subscribe("nothing")
        connection.send("ready")
        try:
            endpoint.receive(timeout=TIMEOUT)
            connection.send((now(), "received"))
        except shmbus.BusError as error:
            connection.send((now(), type(error).__name__))


def victim(connection: Connection, bus: str, way: str, size: int = 0) -> None:
    """Sends when it has the request in hand, and dies by ``way``, or waits for SIGKILL."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard if way == "core dump" else 0, hard))
    held.append(resident(size))
    sleep = shutil.which("sleep") or "sleep"

    def die(message: shmbus.Message) -> None:
        connection.send(now())
        if way == "os._exit":
            os._exit(3)
        if way == "exec":
            os.execv(sleep, [sleep, "600"])
        if way in ("abort", "core dump"):
            os.abort()
        while True:
            signal.pause()

    with shmbus.attach(bus, name=f"victim-{os.getpid()}") as endpoint:
        endpoint.handle("die", die)
        connection.send("ready")
        endpoint.run()


def deaf(connection: Connection, bus: str) -> None:
    """Takes nothing of what it is sent; at a message sends the time and leaves."""
    with shmbus.attach(bus, name="deaf", settings=TINY, timeout=TIMEOUT) as endpoint:
        endpoint.subscribe("news")
        connection.send("ready")
        connection.recv()
        connection.send(now())


def pusher(connection: Connection, bus: str) -> None:
    """At each message publishes until its ring is full, and sends when it could go on."""
    with shmbus.attach(bus, name="pusher", settings=TINY) as endpoint:
        connection.send("ready")
        while True:
            connection.recv()
            with contextlib.suppress(shmbus.QueueFull):
                while True:
                    endpoint.publish("news", bytes(500), timeout=0.1)
            connection.send("full")
            endpoint.publish("news", bytes(500), timeout=TIMEOUT)
            connection.send(now())


def silent(connection: Connection, bus: str) -> None:
    name = f"silent-{os.getpid()}"
    with shmbus.attach(bus, name=name, settings=SMALL, timeout=TIMEOUT) as endpoint:
        endpoint.subscribe("nothing")
        connection.send("ready")
        for _ in endpoint:
            pass


def hog(connection: Connection) -> None:
    connection.send("ready")
    while True:
        pass


held: list[mmap.mmap | None] = []  # until the process ends


def resident(size: int) -> mmap.mmap | None:
    """So many bytes, every page of them touched."""
    if not size:
        return None
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece = b"\1" * (1 << 20)
    for start in range(0, size, len(piece)):
        memory[start : start + len(piece)] = piece
    return memory
