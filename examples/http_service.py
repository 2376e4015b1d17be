"""A web service without a framework: HTTP on asyncio, answered by workers over the bus.

`/square/7` asks a worker, and `/events` shows a browser, as server-sent events, what the workers
do. A request that takes too long is withdrawn: the task that works on it is cancelled.

    python examples/http_service.py          # asks itself, as a browser would, and ends
    python examples/http_service.py 8080     # serves that port of this machine until Ctrl-C
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import sys
import urllib.error
import urllib.request

import shmbus
import shmbus.aio
from shmbus.errors import BusDown, BusError, NoRoute, RemoteError

WORKERS = 2
PATIENCE = 0.5
"""Seconds in which a worker is to answer."""


# A worker: a process of its own -----------------------------------------------------------------


async def work(bus: str) -> None:
    async with shmbus.aio.attach(bus) as ep:

        @ep.handle("square", concurrency=8)
        async def square(message: shmbus.Message[int]) -> int:
            await ep.publish("work.begun", message.payload)
            try:
                await asyncio.sleep(message.payload / 1000)  # a database, say
            except asyncio.CancelledError:
                await ep.publish("work.cancelled", message.payload)
                raise
            return message.payload**2

        with contextlib.suppress(BusDown):  # that is the end of the bus
            await ep.run()


def worker(bus: str) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work(bus))


# The service ------------------------------------------------------------------------------------


async def answer(ep: shmbus.aio.Endpoint, path: str) -> tuple[str, object]:
    """The status and the content."""
    name, _, number = path.lstrip("/").partition("/")
    if name != "square" or not number.isdigit():
        return "404 Not Found", {"error": f"there is no {path}"}
    try:
        reply = await ep.request("square", int(number), timeout=PATIENCE)
    except TimeoutError:
        return "504 Gateway Timeout", {"error": f"no worker answered within {PATIENCE} s"}
    except NoRoute:
        return "503 Service Unavailable", {"error": "there is no worker"}
    except RemoteError as error:
        return "500 Internal Server Error", {"error": error.message}  # no traceback for browsers
    except BusError as error:
        return "502 Bad Gateway", {"error": str(error)}
    return "200 OK", {"square": reply.payload}


async def show_events(ep: shmbus.aio.Endpoint, writer: asyncio.StreamWriter) -> None:
    """Until the browser leaves, or reads too slowly, or the service ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    async with await ep.subscribe("work.>", overflow="drop_newest") as events:
        writer.write(b": from here on\n\n")
        await writer.drain()
        async for message in events:
            data = json.dumps(message.payload)
            writer.write(f"event: {message.type}\ndata: {data}\n\n".encode())
            async with asyncio.timeout(PATIENCE):
                await writer.drain()


async def connected(
    ep: shmbus.aio.Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one connection."""
    try:
        # It has gone, or is no browser, or the bus has ended.
        with contextlib.suppress(OSError, ValueError, BusError):
            _method, path, _version = (await reader.readline()).decode().split()
            while (await reader.readline()).strip():
                pass  # its headers
            if path == "/events":
                await show_events(ep, writer)
                return
            status, content = await answer(ep, path)
            body = json.dumps(content).encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
    finally:
        writer.close()


async def main(bus: str, port: int | None) -> None:
    # The endpoint ends first, and so what waits for it; then the group, when all are served.
    async with asyncio.TaskGroup() as group, shmbus.aio.attach(bus, name="http") as ep:
        await ep.wait_for("square", receivers=WORKERS, timeout=30)

        def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            group.create_task(connected(ep, reader, writer))

        server = await asyncio.start_server(connect, "127.0.0.1", port or 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            if port is None:
                await asyncio.to_thread(browse, address)
            else:
                print(f"open {address}/square/7 or {address}/events", flush=True)
                await ep.run()  # until Ctrl-C
        finally:
            server.close()


# A browser --------------------------------------------------------------------------------------


def browse(address: str) -> None:
    with urllib.request.urlopen(f"{address}/events", timeout=30) as events:
        events.readline()
        for path in ("/square/7", "/square/9000", "/cube/7"):
            try:
                with urllib.request.urlopen(address + path, timeout=30) as response:
                    print(path, response.status, response.read().decode())
            except urllib.error.HTTPError as error:
                with error:
                    print(path, error.code, error.read().decode())
        told = [line.decode().strip() for line in (events.readline() for _ in range(10)) if line]
    print("the workers said:", *(line for line in told if line.startswith("event")), sep="\n  ")


if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    port = int(sys.argv[1]) if len(sys.argv) > 1 else None
    with shmbus.serve(f"http-{os.getpid()}") as bus:
        workers = [spawn.Process(target=worker, args=(bus.name,)) for _ in range(WORKERS)]
        for process in workers:
            process.start()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(bus.name, port))
    for process in workers:
        process.join()
