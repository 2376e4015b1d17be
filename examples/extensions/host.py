"""The host: an editor with one buffer, and its extensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib.metadata import EntryPoint
from typing import Any, Self

import shmbus
from shmbus import EndpointDied, Message, NoRoute, RequestTimeout, Retry
from shmbus.supervisor import Line

from .found import processes

STARTING = Retry(attempts=1000, on=(NoRoute,), backoff=0.05)
"""Asks again while nobody handles it; until the timeout of the request."""


class Host:
    """Serves the bus and keeps the extensions running. A context manager."""

    def __init__(
        self,
        bus: str,
        extensions: Iterable[EntryPoint],
        output: Callable[[Line], object] = print,
    ) -> None:
        self.text = ""
        self.said: dict[str, Any] = {}
        """The newest that each extension has published of itself, by type."""
        with ExitStack() as made:
            self.supervisor = made.enter_context(
                shmbus.supervise(processes(extensions), bus=bus, output=output)
            )
            self.endpoint = made.enter_context(self.supervisor.bus.attach("host"))
            self.endpoint.handle("buffer.read", lambda message: self.text)
            # Of each type the newest: whoever publishes faster than this is read, loses its own.
            self.endpoint.subscribe("extension.>", self._hear, overflow="latest")
            self.endpoint.start(threads=2)
            self._made = made.pop_all()

    def _hear(self, message: Message) -> None:
        self.said[message.type] = message.payload

    def edit(self, text: str) -> None:
        """Have another text, and tell the extensions."""
        self.text = text
        self.endpoint.publish("buffer.changed", len(text))

    def ask(self, extension: str, what: str, payload: object = None, timeout: float = 5.0) -> Any:
        """What an extension answers. One that is just being started is waited for; one that does
        not answer within the time is started anew. Raises `shmbus.BusError`."""
        type = f"extension.{extension}.{what}"
        try:
            with shmbus.within(timeout):
                while True:
                    try:
                        return self.endpoint.request(
                            type, payload, timeout=None, retry=STARTING
                        ).payload
                    except EndpointDied as why:
                        if why.begun:
                            raise
        except RequestTimeout:
            self.supervisor.restart(extension)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()
