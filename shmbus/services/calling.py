"""An object with the methods of a class, each of which makes a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

from shmbus.errors import DecodeError, InvalidResult

from . import mismatch
from .methods import Method, methods_of
from .serving import needs_hook


class Reply(Protocol):
    """What a call needs of the reply to its request."""

    @property
    def payload(self) -> Any: ...
    @property
    def source(self) -> str: ...


class Ask(Protocol):
    """`Endpoint.request`."""

    def __call__(
        self, type: str, payload: object, /, *, timeout: float | None, reply_type: Any
    ) -> Reply: ...


class AskLater(Protocol):
    """The same of an asyncio endpoint."""

    def __call__(
        self, type: str, payload: object, /, *, timeout: float | None, reply_type: Any
    ) -> Awaitable[Reply]: ...


class Parts(Protocol):
    """What a call needs of a reply in parts: `Stream`."""

    def __iter__(self) -> Iterator[Reply]: ...
    def close(self) -> None: ...


class Open(Protocol):
    """`Endpoint.stream`."""

    def __call__(
        self, type: str, payload: object, /, *, timeout: float | None, part_type: Any
    ) -> Parts: ...


class PartsLater(Protocol):
    """The same of an asyncio endpoint."""

    def __aiter__(self) -> AsyncIterator[Reply]: ...
    def close(self) -> None: ...


class OpenLater(Protocol):
    """Its `stream`."""

    def __call__(
        self, type: str, payload: object, /, *, timeout: float | None, part_type: Any
    ) -> PartsLater: ...


class Client:
    """The methods of a class, called through a bus."""

    def __init__(self, service: str, interface: type, calls: dict[str, Callable[..., Any]]) -> None:
        self.__dict__.update(calls)
        self.__dict__["__about"] = service, interface

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # as copying asks for, also before there is anything
            raise AttributeError(name)
        service, interface = self.__dict__["__about"]
        raise AttributeError(
            f"service {service!r} has no method {name!r}: {interface.__qualname__} has "
            f"{', '.join(self.__dir__())}",
            name=name,
            obj=self,
        )

    def __dir__(self) -> list[str]:
        return [name for name in self.__dict__ if not name.startswith("_")]

    def __repr__(self) -> str:
        service, interface = self.__dict__["__about"]
        return f"<client of {service!r}, {interface.__qualname__}>"


def client(
    interface: Any,
    service: str,
    call: Callable[[Method], Callable[..., Any]],
    *,
    encodes: bool,
    decodes: bool,
) -> Any:
    """An object with the methods of this class, or protocol, each made by `call`. `encodes`,
    `decodes`: as for `operations`. Raises `InvalidService`, `InvalidType`."""
    found = methods_of(interface, service)
    for method in found:
        needs_hook(method, method.strange_arguments, "encode", encodes)
        needs_hook(method, method.strange_results, "decode", decodes)
    calls = {}
    for method in found:
        made: Any = call(method)
        made.__name__ = method.info.name
        made.__qualname__ = f"{interface.__qualname__}.{method.info.name}"
        made.__doc__ = method.document
        made.__signature__ = method.signature
        calls[method.info.name] = made
    return Client(service, interface, calls)


def caller(method: Method, ask: Ask, timeout: float | None) -> Callable[..., Any]:
    """A function that calls it and waits."""
    bind, refuse, type, result = method.sent, method.refuse, method.type, method.result

    def call(*given: Any, **named: Any) -> Any:
        try:
            arguments = bind(*given, **named)
        except TypeError:
            refuse(given, named)
        reply = ask(type, arguments, timeout=timeout, reply_type=result)
        try:
            return reply.payload
        except DecodeError as why:
            raise _invalid(reply, why) from None

    return call


def streaming_caller(
    method: Method, stream: Open, timeout: float | None
) -> Callable[..., Iterator[Any]]:
    """A function that calls it and returns an iterator of what it yields. `timeout`: for each."""
    bind, refuse, type, part = method.sent, method.refuse, method.type, method.result

    def call(*given: Any, **named: Any) -> Iterator[Any]:
        try:
            arguments = bind(*given, **named)
        except TypeError:
            refuse(given, named)
        return _values(stream(type, arguments, timeout=timeout, part_type=part))

    return call


def _values(parts: Parts) -> Iterator[Any]:
    """What is in them. Closing it breaks off the reply."""
    try:
        for part in parts:
            try:
                value = part.payload
            except DecodeError as why:
                raise _invalid(part, why) from None
            yield value
    finally:
        parts.close()


def streaming_caller_later(
    method: Method, stream: OpenLater, timeout: float | None
) -> Callable[..., AsyncGenerator[Any, None]]:
    """The same, of what is iterated over by `async for`."""
    bind, refuse, type, part = method.sent, method.refuse, method.type, method.result

    def call(*given: Any, **named: Any) -> AsyncGenerator[Any, None]:
        try:
            arguments = bind(*given, **named)
        except TypeError:
            refuse(given, named)
        return _values_later(stream(type, arguments, timeout=timeout, part_type=part))

    return call


async def _values_later(parts: PartsLater) -> AsyncGenerator[Any, None]:
    """As `_values`."""
    try:
        async for part in parts:
            try:
                value = part.payload
            except DecodeError as why:
                raise _invalid(part, why) from None
            yield value
    finally:
        parts.close()


def awaiting_caller(method: Method, ask: AskLater, timeout: float | None) -> Callable[..., Any]:
    """A coroutine function that does."""
    bind, refuse, type, result = method.sent, method.refuse, method.type, method.result

    async def call(*given: Any, **named: Any) -> Any:
        try:
            arguments = bind(*given, **named)
        except TypeError:
            refuse(given, named)
        reply = await ask(type, arguments, timeout=timeout, reply_type=result)
        try:
            return reply.payload
        except DecodeError as why:
            raise _invalid(reply, why) from None

    return call


def _invalid(reply: Reply, why: DecodeError) -> InvalidResult:
    return InvalidResult(
        type=why.type,
        reason=mismatch.of_result(why.reason),
        size=why.size,
        endpoint=reply.source,
    )
