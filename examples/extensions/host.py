"""The host: an editor with one buffer, and its extensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any, Self

import shmbus
from shmbus import EndpointDied, Message, NoRoute, RequestTimeout, Retry
from shmbus.supervisor import Line

from .found import processes

STARTING = Retry(attempts=1000, on=(NoRoute,), backoff=0.05)
"""Asks again while nobody handles it; until the timeout of the request."""

MOST = 64
"""Types of which the newest message of an extension is kept; of more, those heard last."""


class Host:
    """Serves the bus and keeps the extensions running. A context manager."""

    def __init__(
        self,
        bus: str,
        extensions: Iterable[EntryPoint],
        output: Callable[[Line], object] = print,
    ) -> None:
        self.text = ""
        planned = processes(extensions)
        self.said: dict[str, dict[str, Any]] = {process.name: {} for process in planned}
        """What each extension has published of itself: the newest of each type, of `MOST` types."""
        with ExitStack() as made:
            self.supervisor = made.enter_context(shmbus.supervise(planned, bus=bus, output=output))
            self.endpoint = made.enter_context(self.supervisor.bus.attach("host"))
            self.endpoint.handle("buffer.read", lambda message: self.text)
            # Of each type the newest, in a mailbox for each extension: whoever publishes faster
            # than this is read, or of more types than the mailbox holds, loses its own.
            for name in self.said:
                hear = partial(self._hear, self.said[name])
                self.endpoint.subscribe(f"extension.{name}.>", hear, overflow="latest")
            self.endpoint.start(threads=2)
            self._made = made.pop_all()

    def _hear(self, said: dict[str, Any], message: Message) -> None:
        said.pop(message.type, None)
        if len(said) == MOST:
            del said[next(iter(said))]
        said[message.type] = message.payload

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
