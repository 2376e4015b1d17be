"""The methods of a class that can be served and called through a bus, with their types.

Arguments travel as an object with a field for each that the caller has given, so that one side may
know more of them than the other: what a server does not know it ignores, what a caller does not
give has the server's default.
"""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import inspect
import typing
from collections.abc import Callable
from types import FunctionType, NoneType
from typing import Any, NoReturn

import msgspec

from shmbus.errors import InvalidService, InvalidType
from shmbus.shared import arrays
from shmbus.shared.methods import MethodInfo, Schema
from shmbus.shared.patterns import check_type

_PLAIN = (NoneType, bool, int, float, str, bytes)
_STREAMS = (collections.abc.Iterator, collections.abc.Generator)
_AWAITED_STREAMS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
)
_MESSAGE = ("shmbus.endpoint._kernel", "Message")
_AWAITED = (collections.abc.Awaitable, collections.abc.Coroutine)


Structure = type[msgspec.Struct]


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a service: its types, found from its annotations."""

    info: MethodInfo
    type: str
    """Of the requests that call it."""
    signature: inspect.Signature
    """Without self."""
    document: str | None
    received: Structure
    """Its arguments as the server decodes them: of their types, with defaults."""
    sent: Structure
    """Its arguments as the caller gives them: of any type, and encoded only if given."""
    keywords: tuple[str, ...]
    """Arguments that are given by name only. They are the last fields of both."""
    message: str | None
    """Its parameter for the message that calls it, if it has one. Callers do not see that."""
    result: Any
    """What it returns, or one of the parts that it yields; None: anything."""
    strange_arguments: tuple[str, ...]
    """Names of types among its arguments that msgspec leaves to a hook."""
    strange_results: tuple[str, ...]
    """The same of what it returns."""

    def refuse(self, given: tuple[Any, ...], named: dict[str, Any]) -> NoReturn:
        """Raise the `TypeError` for arguments that do not fit its signature."""
        try:
            self.signature.bind(*given, **named)
        except TypeError as why:
            raise TypeError(f"{self.type}(): {why}") from None
        raise TypeError(f"{self.type}(): these arguments do not fit")  # pragma: no cover


def methods_of(interface: object, service: str) -> tuple[Method, ...]:
    """Its public methods, as those of this service. Raises `InvalidService`, `InvalidType`."""
    if not isinstance(interface, type):
        raise InvalidService(
            service=service,
            reason=f"{interface!r} is no class",
            remedy="Give the class whose methods are to be called",
        )
    return _methods_of(interface, check_type(service))


@functools.lru_cache(maxsize=256)
def _methods_of(interface: type, service: str) -> tuple[Method, ...]:
    found = tuple(
        _method(interface, service, name, raw)
        for name in dir(interface)
        if not name.startswith("_") and _is_method(raw := inspect.getattr_static(interface, name))
    )
    if not found:
        raise InvalidService(
            service=service,
            reason=f"{interface.__qualname__} has no public methods",
            remedy="Give a class that has, or rename those that begin with '_'",
        )
    return found


def _is_method(raw: object) -> bool:
    if isinstance(raw, staticmethod | classmethod):
        return True
    return callable(raw) and hasattr(raw, "__get__") and not isinstance(raw, type)


def _method(interface: type, service: str, name: str, raw: Any) -> Method:
    refuse = functools.partial(InvalidService, service=service, method=name)
    try:
        type = check_type(f"{service}.{name}")
    except InvalidType as why:
        raise refuse(
            reason=f"{why.type!r} is not a message type: {why.reason}",
            remedy="Rename it, or begin its name with '_'",
        ) from None
    of_class = isinstance(raw, staticmethod | classmethod)
    function = getattr(interface, name) if of_class else raw
    plain = inspect.unwrap(getattr(function, "__func__", function))
    signature = _signature(function, bound=of_class, refuse=refuse)
    hints = _hints(plain, interface, refuse)
    message = next((name for name, hint in hints.items() if _is_message(hint)), None)
    if message is not None:
        parameters = [p for p in signature.parameters.values() if p.name != message]
        signature = signature.replace(parameters=parameters)
    result, asynchronous, streams = _result(plain, hints.get("return", Any))
    wanted = {name: _any(hints.get(name, Any)) for name in signature.parameters}
    received = _structure(type, signature, lambda p: (p.name, wanted[p.name], *_default(p)))
    sent = _structure(
        type,
        signature,
        lambda p: (p.name, Any) if p.default is p.empty else (p.name, Any, msgspec.UNSET),
    )
    strange_arguments: list[str] = []
    strange_results: list[str] = []
    arguments = _arguments_schema(signature, wanted, strange_arguments, refuse)
    result_schema = _schema(result, "its result", strange_results, refuse)
    document = inspect.getdoc(function)
    return Method(
        info=MethodInfo(
            service=service,
            name=name,
            interface=interface.__qualname__,
            summary=(document or "").partition("\n")[0],
            arguments=arguments,
            result=result_schema,
            asynchronous=asynchronous,
            streams=streams,
        ),
        type=type,
        signature=signature,
        document=document,
        received=received,
        sent=sent,
        keywords=tuple(p.name for p in signature.parameters.values() if p.kind == p.KEYWORD_ONLY),
        message=message,
        result=None if result is Any else result,
        strange_arguments=tuple(strange_arguments),
        strange_results=tuple(strange_results),
    )


# Arguments --------------------------------------------------------------------------------------


def _signature(
    function: Any, *, bound: bool, refuse: Callable[..., InvalidService]
) -> inspect.Signature:
    """Its signature as callers see it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as why:
        raise refuse(reason=str(why), remedy="Write it in Python") from None
    parameters = list(signature.parameters.values())
    if not bound:
        if not parameters:
            raise refuse(reason="it takes no self", remedy="Make it a staticmethod")
        del parameters[0]
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            stars = "*" if each.kind == each.VAR_POSITIONAL else "**"
            raise refuse(
                reason=f"{stars}{each.name} stands for any arguments, whose names and types nobody "
                "knows",
                remedy="Name them, or take one argument that is a list or a dict",
            )
        if each.kind == each.POSITIONAL_ONLY:
            raise refuse(
                reason=f"its argument {each.name} has no name for callers, and arguments travel by "
                "name",
                remedy="Leave out the '/'",
            )
    return signature.replace(parameters=parameters)


def _structure(
    type: str,
    signature: inspect.Signature,
    field: Callable[[inspect.Parameter], tuple[Any, ...]],
) -> Structure:
    """A struct with a field for each argument. Its constructor takes them as the method does."""
    parameters = signature.parameters.values()
    by_name = [field(p) for p in parameters if p.kind == p.KEYWORD_ONLY]
    others = [field(p) for p in parameters if p.kind != p.KEYWORD_ONLY]
    # Nothing refers back to it, so it is in no cycle.
    bases = (msgspec.defstruct(type, by_name, kw_only=True, gc=False),) if by_name else ()
    return msgspec.defstruct(type, others, bases=bases, gc=False)


def _default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    value = parameter.default
    if value is parameter.empty:
        return ()
    if isinstance(value, _PLAIN):
        return (value,)
    return (msgspec.field(default_factory=lambda: value),)  # the very object, as in a plain call


# Types ------------------------------------------------------------------------------------------


def _hints(function: Any, interface: type, refuse: Callable[..., InvalidService]) -> dict[str, Any]:
    """Its annotations, as types."""
    scope = dict(getattr(function, "__globals__", {}))
    if isinstance(function, FunctionType):
        # A type defined in the function around the class is found if the method uses it.
        scope |= inspect.getclosurevars(function).nonlocals
    try:
        try:
            return typing.get_type_hints(function, scope, include_extras=True)
        except NameError:
            inner = dict(vars(interface))
            return typing.get_type_hints(function, scope, inner, include_extras=True)
    except Exception as why:
        raise refuse(
            reason=f"its annotations cannot be resolved ({type(why).__name__}: {why})",
            remedy="Import their names at run time, and define the types in a module",
        ) from None


def _is_message(annotation: Any) -> bool:
    """Whether it is `Message`, which is defined in a room above, or that or None."""
    if type(None) in (found := typing.get_args(annotation)) and len(found) == 2:
        annotation = next(one for one in found if one is not NoneType)
    kind = typing.get_origin(annotation) or annotation
    return (getattr(kind, "__module__", ""), getattr(kind, "__name__", "")) == _MESSAGE


def _any(annotation: Any) -> Any:
    return Any if annotation is object else annotation


def _result(function: Any, annotation: Any) -> tuple[Any, bool, bool]:
    """The type of what it returns, or of what it yields; whether it runs as a task, and whether it
    yields."""
    origin = typing.get_origin(annotation) or annotation
    asynchronous = inspect.isasyncgenfunction(function) or origin in _AWAITED_STREAMS
    if asynchronous or inspect.isgeneratorfunction(function) or origin in _STREAMS:
        return _any((typing.get_args(annotation) or (Any,))[0]), asynchronous, True
    awaited = inspect.iscoroutinefunction(function)
    if origin in _AWAITED and not awaited:
        awaited, annotation = True, (typing.get_args(annotation) or (Any,))[-1]
    return _any(annotation), awaited, False


def _arguments_schema(
    signature: inspect.Signature,
    wanted: dict[str, Any],
    strange: list[str],
    refuse: Callable[..., InvalidService],
) -> Schema:
    """JSON schema of an object with these arguments."""
    properties: dict[str, Schema] = {}
    definitions: dict[str, Schema] = {}
    for name, parameter in signature.parameters.items():
        schema = _schema(wanted[name], f"its argument {name}", strange, refuse)
        definitions |= schema.pop("$defs", {})
        if parameter.default is not parameter.empty:
            with contextlib.suppress(Exception):  # it has no JSON, or raises whatever it likes
                schema["default"] = msgspec.to_builtins(parameter.default, str_keys=True)
        properties[name] = schema
    required = [n for n, p in signature.parameters.items() if p.default is p.empty]
    found: Schema = {"type": "object", "properties": properties}
    if required:
        found["required"] = required
    if definitions:
        found["$defs"] = definitions
    return found


def _schema(
    wanted: Any,
    what: str,
    strange: list[str],
    refuse: Callable[..., InvalidService],
) -> Schema:
    """JSON schema of this type; `strange` gets those that msgspec leaves to hooks."""

    def unknown(other: Any) -> Schema:
        if arrays.is_of_numpy(other):
            return {"title": arrays.title(other)}
        name = str(getattr(other, "__qualname__", other))
        strange.append(f"{what}: {name}")
        return {"title": name}

    if arrays.is_of_numpy(wanted):
        return unknown(wanted)  # msgspec asks for arrays of any dtype alike
    try:
        return msgspec.json.schema(wanted, schema_hook=unknown)
    except Exception as why:
        raise refuse(
            reason=f"{what}: {why}",
            remedy="Use a msgspec Struct, a dataclass, or plain types such as dict[str, int]",
        ) from None
