"""Handlers of the methods of an instance."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import msgspec
from msgspec.structs import asdict, astuple

from shmbus.errors import DecodeError, InvalidService
from shmbus.shared.failures import Mismatch
from shmbus.shared.methods import encode

from . import mismatch
from .methods import Method, Structure, methods_of


class Request(Protocol):
    """What a handler needs of a message."""

    @property
    def payload(self) -> Any: ...
    @property
    def size(self) -> int: ...


Handler = Callable[[Any], Any]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A method as an endpoint handles it."""

    type: str
    """Of the requests."""
    arguments: Structure
    """What their payload is decoded to."""
    handler: Handler
    """What is called with each message; of an `asynchronous` one the result is awaited, or, where
    it `streams`, iterated over by `async for`."""
    asynchronous: bool
    streams: bool
    description: bytes
    """What observers are told."""


def operations(
    instance: object, service: str, *, encodes: bool, decodes: bool, tasks: bool
) -> list[Operation]:
    """Those of this instance, under this prefix. `encodes`, `decodes`: whether the endpoint has
    hooks for types that msgspec does not know; `tasks`: whether it can run async methods. Raises
    `InvalidService`, `InvalidType`."""
    if isinstance(instance, type):
        raise InvalidService(
            service=service,
            reason=f"{instance.__qualname__} is a class",
            remedy=f"Give an instance, such as {instance.__name__}()",
        )
    found = methods_of(type(instance), service)
    for method in found:
        _check(method, encodes=encodes, decodes=decodes, tasks=tasks)
    return [_operation(method, getattr(instance, method.info.name)) for method in found]


def _check(method: Method, *, encodes: bool, decodes: bool, tasks: bool) -> None:
    info = method.info
    if info.asynchronous and not tasks:
        raise InvalidService(
            service=info.service,
            method=info.name,
            reason="it is async, and nothing here would run it",
            remedy="Offer it with an endpoint of shmbus.aio, or make it a plain method",
        )
    needs_hook(method, method.strange_arguments, "decode", decodes)
    needs_hook(method, method.strange_results, "encode", encodes)


def needs_hook(method: Method, strange: tuple[str, ...], hook: str, given: bool) -> None:
    """Raise `InvalidService` where there are types that need a hook, and none was given."""
    if strange and not given:
        raise InvalidService(
            service=method.info.service,
            method=method.info.name,
            reason=f"msgspec does not know the type of {strange[0]}",
            remedy=f"Attach with {hook}=, or use a msgspec Struct, a dataclass, or plain types",
        )


def _operation(method: Method, call: Callable[..., Any]) -> Operation:
    info, handler = method.info, _handler(method, call)
    if info.streams:
        handler = _yielding_later(handler) if info.asynchronous else _yielding(handler)
    elif info.asynchronous:
        handler = _awaiting(handler)
    return Operation(
        type=method.type,
        arguments=method.received,
        handler=handler,
        asynchronous=info.asynchronous,
        streams=info.streams,
        description=encode(method.info),
    )


def _handler(method: Method, call: Callable[..., Any]) -> Handler:
    """Calls it with the arguments in a message."""

    def by_position(message: Request) -> Any:
        try:
            arguments = message.payload
        except DecodeError as why:
            arguments = _none_given(method, message, why)
        return call(*astuple(arguments))

    def by_name(message: Request) -> Any:
        try:
            named = asdict(message.payload)
        except DecodeError as why:
            named = asdict(_none_given(method, message, why))
        if method.message is not None:
            named[method.message] = message
        return call(**named)

    return by_name if method.keywords or method.message is not None else by_position


def _awaiting(handler: Handler) -> Handler:
    async def handle(message: Request) -> Any:
        return await handler(message)

    return handle


def _yielding(handler: Handler) -> Handler:
    """Of a method that may return an iterator of any kind."""

    def handle(message: Request) -> Iterator[Any]:
        found = handler(message)
        return found if inspect.isgenerator(found) else (part for part in found)

    return handle


def _yielding_later(handler: Handler) -> Handler:
    """The same in an event loop."""

    async def handle(message: Request) -> AsyncIterator[Any]:
        found = handler(message)
        parts = await found if inspect.isawaitable(found) else found
        try:
            async for part in parts:
                yield part
        finally:
            if inspect.isasyncgen(parts):
                await parts.aclose()

    return handle


def _none_given(method: Method, message: Request, why: DecodeError) -> Any:
    """The arguments of a request without a payload. Raises `Mismatch` where it has one, or where
    the method needs some."""
    if not message.size and not method.info.arguments.get("required"):
        return method.received()
    raise Mismatch(mismatch.of_arguments(why.reason)) from None
