"""Attaching to a bus from an event loop: `attach`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from shmbus.endpoint import endpoint as synchronous
from shmbus.endpoint.attach import attach as attach_here
from shmbus.endpoint.attach import attach_as as attach_link_here
from shmbus.endpoint.payloads import DecodeHook, EncodeHook
from shmbus.settings import Settings, check_count

from .endpoint import Endpoint
from .threads import in_thread

CONCURRENCY = 64
"""Asynchronous callbacks and handlers of one endpoint that work at a time, where nobody says
otherwise."""


def attach(
    bus: str | None = None,
    *,
    name: str | None = None,
    timeout: float | None = 5.0,
    settings: Settings | None = None,
    types: Mapping[str, Any] | None = None,
    encode: EncodeHook | None = None,
    decode: DecodeHook | None = None,
    reconnect: bool | Literal["always"] = False,
    concurrency: int = CONCURRENCY,
) -> Attaching:
    """Attach to a bus, in the event loop that runs: `async with attach(...) as ep`, or `ep = await
    attach(...)`.

    The arguments are those of `shmbus.attach`, and so are the errors raised. `concurrency`: how
    many messages its asynchronous callbacks and handlers work on at a time, each in a task of its
    own. Messages that wait for who iterates over a subscription count as well. While there are so
    many, no more are taken: those wait where other endpoints may have them.
    """
    make = partial(
        attach_here,
        bus,
        name=name,
        timeout=timeout,
        settings=settings,
        types=types,
        encode=encode,
        decode=decode,
        reconnect=reconnect,
    )
    return _attach_any(make, name or "new", timeout, concurrency)


def attach_as(
    name: str,
    bus: str | None = None,
    *,
    timeout: float | None = 5.0,
    settings: Settings | None = None,
    reconnect: bool | Literal["always"] = False,
    concurrency: int = CONCURRENCY,
) -> Attaching:
    """Attach a link to a bus, likewise: by a name that begins with ``@``, which no user's endpoint
    has."""
    make = partial(
        attach_link_here, name, bus, timeout=timeout, settings=settings, reconnect=reconnect
    )
    return _attach_any(make, name, timeout, concurrency)


def _attach_any(
    make: Callable[[], synchronous.Endpoint], label: str, timeout: float | None, concurrency: int
) -> Attaching:
    """What both do."""
    check_count("concurrency", concurrency)
    return Attaching(lambda: _in_loop(make(), timeout), label, concurrency)


def _in_loop(made: synchronous.Endpoint, timeout: float | None) -> synchronous.Endpoint:
    """What an event loop needs of an endpoint, which was just made."""
    try:
        made._connection.open_event(timeout)
    except BaseException:
        made.close()
        raise
    return made


class Attaching:
    """An endpoint to be attached: await it, or use it in `async with`, which closes it at the
    end."""

    def __init__(
        self, make: Callable[[], synchronous.Endpoint], label: str, concurrency: int
    ) -> None:
        self._make, self._label, self._concurrency = make, label, concurrency
        self._made: Endpoint | None = None

    def __await__(self) -> Generator[Any, None, Endpoint]:
        return self._attach().__await__()

    async def _attach(self) -> Endpoint:
        made = await in_thread(
            self._label, "attaching", self._make, undo=synchronous.Endpoint.close
        )
        return Endpoint._of(made, self._concurrency)

    async def __aenter__(self) -> Endpoint:
        self._made = await self._attach()
        return self._made

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._made is not None:
            await self._made.close()

    def __enter__(self) -> None:
        raise TypeError("an endpoint of an event loop: use `async with shmbus.aio.attach(...)`")

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    if not TYPE_CHECKING:  # mypy knows what it has

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"no {name!r}, since it is not attached yet: use `ep = await "
                "shmbus.aio.attach(...)`, or `async with shmbus.aio.attach(...) as ep`"
            )
