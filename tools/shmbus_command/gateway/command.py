"""``shmbus gateway``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
from shmbus_console.options import bus_option
from shmbus_console.output import note
from shmbus_console.run import usual_end

from shmbus import BusError
from shmbus_command.attaching import running_bus, wait_for_bus

from .listening import listen
from .pumps import Pumps
from .session import Options, Session


@click.command(short_help="A bus for programs in any language, as lines of JSON.")
@bus_option
@wait_for_bus
@click.option(
    "--socket",
    "path",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Listen on a Unix socket there (mode 0600), for any number of clients, until Ctrl-C.",
)
@click.option(
    "--longest",
    type=click.IntRange(256, 1 << 30),
    default=1 << 20,
    show_default=True,
    metavar="BYTES",
    help="Of a line from a client.",
)
def gateway(bus: str | None, wait: float | None, path: Path | None, longest: int) -> None:
    """A bus for programs in any language: lines of JSON, one object a line, on standard input and
    output or, with --socket, on each connection.

    \b
    A client writes              (id is a whole number or text; the answer has it)
      {"op": "attach", "name": "ui"}     first, if at all: else it is given a name
      {"op": "publish", "type": "cursor.moved", "payload": {"line": 3}}
      {"op": "send", "type": "index.add", "payload": "a.py"}
      {"op": "request", "id": 1, "type": "calc.add", "payload": [1, 2], "timeout": 5}
      {"op": "stream", "id": 2, "type": "log.tail"}    a reply in parts
      {"op": "cancel", "request": 2}
      {"op": "wait", "pattern": "calc.add", "timeout": 5}    until somebody handles it
      {"op": "subscribe", "pattern": "buffer.*.changed", "overflow": "latest", "history": 1}
      {"op": "subscribe", "pattern": "job.>", "group": "workers"}
      {"op": "unsubscribe", "pattern": "job.>", "group": "workers"}
      {"op": "handle", "pattern": "calc.*", "limit": 2}
      {"op": "reply", "message": 7, "payload": 3}            to a request in its hand
      {"op": "part", "message": 7, "payload": 1}    of a reply in parts; its end is a reply without
      {"op": "error", "message": 7, "name": "ValueError", "text": "not today"}
      {"op": "done", "message": 8}      of a command, or a message of a group
      {"op": "nack", "message": 8, "delay": 1, "reason": "busy"}    somebody else shall have it
      {"op": "more", "n": 10}           so many more messages: flow control, see below

    \b
    and reads
      {"id": 1, "ok": true, "type": "calc.add", "kind": "reply", "source": "a", "payload": 3, ...}
      {"id": 2, "payload": "a part", ...}     then {"id": 2, "ok": true}
      {"pattern": "buffer.*.changed", "type": "buffer.7.changed", "kind": "event", "payload": ...}
      {"message": 7, "pattern": "calc.*", "type": "calc.sub", "kind": "request", "payload": ...}
      {"withdrawn": 7}                        nobody waits for its answer any more
      {"id": 1, "error": {"class": "NoRoute", "message": "...", "facts": {...}}}
      {"error": {"class": "BadLine", "message": "..."}, "line": 12}

    \b
    An op without id is answered only where it fails, with the number of its line. A bad line, or
    one that is too long, harms no other. Bytes are "payload_base64" in place of "payload", both
    ways. An array is lists; one of more than 1,024 elements is
    {"dtype": "<f4", "shape": [480, 640], "base64": ...}.

    \b
    Flow control: a client that does not read is waited for by its own messages alone; those of
    subscriptions go as "overflow" says. It has at most 64 in its hand ("window" of attach). With
    "credit": 0 of attach it gets as many as it asks for by more.

    \b
    At the end of its input, a client's requests are waited for, then its endpoint leaves. When the
    client has gone it does so at once; what was in its hand goes on as when a process dies.
    """
    options = Options(bus=running_bus(bus, wait), longest=longest)
    if path is None:
        with usual_end():
            _run(_by_streams(options))
        return
    with usual_end(), listen(path) as listener:
        note("gateway", f"bus {options.bus}, on {path}")
        _run(_by_socket(options, listener))


def _run(main: Coroutine[Any, Any, None]) -> None:
    """In an event loop; Ctrl-C and SIGTERM cancel it."""
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_terminated(main))


async def _until_terminated(main: Coroutine[Any, Any, None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await main


async def _by_streams(options: Options) -> None:
    pumps = Pumps()
    reader, writer = await asyncio.open_connection(sock=pumps.socket)
    pumps.start()
    session = Session(options, f"shmbus-gateway-{os.getpid()}", reader, writer)
    ended = await session.run(patience=None)
    await asyncio.to_thread(pumps.finish)
    if ended is not None:
        raise ended


async def _by_socket(options: Options, listener: socket.socket) -> None:
    clients: set[asyncio.Task[BusError | None]] = set()
    numbers = itertools.count(1)

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = f"shmbus-gateway-{os.getpid()}-{next(numbers)}"
        task = asyncio.create_task(Session(options, name, reader, writer).run())
        clients.add(task)
        task.add_done_callback(clients.discard)

    server = await asyncio.start_unix_server(serve, sock=listener)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        server.close()
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
