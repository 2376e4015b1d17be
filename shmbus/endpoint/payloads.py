"""Payloads: from values to bytes, and back to the type that a receiver expects.

Bytes travel as they are, ``None`` as nothing, all else as MessagePack by msgspec, and with arrays
in it as a frame; flags in the record's header distinguish them. A receiver gets the type that its
call names (``payload_type=``), else the one that its handler's annotation names, else the one
registered by message type (``attach(types=...)``), else plain values: dicts, lists, numbers,
strings, arrays. What msgspec does not know is left to the hooks that the endpoint was attached
with, if any; what those do not know is an array or a scalar of numpy, or cannot be sent.
"""

from __future__ import annotations

import functools
import inspect
import logging
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from shmbus.errors import DecodeError, EncodeError, InvalidPayloadType, InvalidSetting
from shmbus.shared import arrays, frames
from shmbus.shared.dtypes import NotCarried
from shmbus.shared.layout import RecordFlag
from shmbus.shared.patterns import check_pattern

log = logging.getLogger("shmbus")

# How a payload travels: flags of its record.
MSGPACK = 0
RAW = int(RecordFlag.RAW)
NONE = int(RecordFlag.NONE)
FRAMED = int(RecordFlag.FRAMED)

Buffer = bytes | bytearray | memoryview

EncodeHook = Callable[[Any], Any]
"""What to send in place of a value that msgspec does not know (msgspec's ``enc_hook``)."""
DecodeHook = Callable[[Any, Any], Any]
"""A value of a type that msgspec does not know, given the type and what came (its ``dec_hook``)."""

_BYTES: frozenset[Any] = frozenset({None, Any, object, bytes})


class Codec:
    """Payloads of one endpoint, encoded and decoded. Raises `InvalidSetting` where a hook cannot be
    called."""

    def __init__(self, encode: EncodeHook | None = None, decode: DecodeHook | None = None) -> None:
        for name, hook in (("encode", encode), ("decode", decode)):
            if hook is not None and (not callable(hook) or inspect.iscoroutinefunction(hook)):
                raise InvalidSetting(
                    setting=name,
                    value=hook,
                    reason="no function that is called and returns the value",
                    remedy="Give what msgspec takes as enc_hook and dec_hook: encode(value) and "
                    "decode(type, value)",
                )
        self.encodes, self.decodes = encode is not None, decode is not None
        self._replace = _replacing(encode)
        self._hook = _converting(decode)
        self._decode_any = self._make(Any)
        self._cached = functools.lru_cache(maxsize=1024)(self._make)

    def encode(self, payload: object, *, type: str = "?") -> tuple[int, Buffer]:
        """How a payload travels, and its bytes; ``type`` is the message's, for ``EncodeError``."""
        if payload is None:
            return NONE, b""
        if isinstance(payload, bytes | bytearray):
            return RAW, payload
        if isinstance(payload, memoryview):
            # The C kernel copies from flat bytes.
            return RAW, payload.cast("B") if payload.c_contiguous else payload.tobytes()
        try:
            encoder, within = self.encoder()
            body = encoder.encode(payload)
            return (FRAMED, within.frame(body).tobytes()) if within.exts else (MSGPACK, body)
        except Exception as why:  # or whatever a value's own hooks raise
            raise EncodeError(type=type, reason=reason_of(why)) from why

    def encoder(self) -> tuple[msgspec.msgpack.Encoder, frames.Arrays]:
        """To MessagePack, one payload at a time; what of it MessagePack has no word for is noted
        beside it. Raises what msgspec does, what the endpoint's hook does, and ``NotCarried``."""
        within, replace = frames.Arrays(), self._replace

        def enc_hook(value: object) -> object:
            found = replace(value)
            return within.ext(found) if isinstance(found, np.ndarray | np.generic) else found

        return msgspec.msgpack.Encoder(enc_hook=enc_hook), within

    def decode(self, kind: int, data: Buffer, payload_type: Any = None, *, type: str = "?") -> Any:
        """The payload that travelled as ``kind``; ``type`` is the message's, for
        ``DecodeError``."""
        try:
            if kind == MSGPACK:
                if payload_type is None:
                    return self._decode_any(data)
                return self.decoder(payload_type)(data)
            if kind == FRAMED:
                frame = frames.Received(data)
                decoder = self._decode_any if payload_type is None else self.decoder(payload_type)
                return frame.decode(decoder)
            if kind == RAW:
                if payload_type is memoryview:
                    return memoryview(data).toreadonly()
                value = bytes(data)
                return value if payload_type in _BYTES else self._convert(value, payload_type)
            if kind == NONE:
                return None if payload_type is None else self._convert(None, payload_type)
            reason = f"unknown kind {kind}"
        except InvalidPayloadType:
            raise
        except Exception as why:  # the bytes may be anything, and so may what hooks raise
            told = reason_of(why)
            if kind == FRAMED and isinstance(why, msgspec.ValidationError):
                told = _with_array(told, data)
            raise DecodeError(type=type, size=len(data), reason=told) from why
        raise DecodeError(type=type, size=len(data), reason=reason)

    def decoder(self, payload_type: Any) -> Callable[[Buffer], Any]:
        """From MessagePack to ``payload_type``, cached. Raises ``InvalidPayloadType`` where msgspec
        has no such type, and msgspec's own errors when it is called."""
        make: Callable[[Any], Callable[[Buffer], Any]] = self._cached
        try:
            hash(payload_type)
        except TypeError:  # such as Annotated with a list in it: usable, but not cached
            make = self._make
        try:
            return make(payload_type)
        except Exception as why:
            raise InvalidPayloadType(payload_type=_name(payload_type), reason=str(why)) from why

    def _make(self, payload_type: Any) -> Callable[[Buffer], Any]:
        return msgspec.msgpack.Decoder(
            payload_type, dec_hook=self._hook, ext_hook=frames.unpack
        ).decode

    def _convert(self, value: object, payload_type: Any) -> Any:
        return msgspec.convert(value, payload_type, dec_hook=self._hook)


def _replacing(encode: EncodeHook | None) -> EncodeHook:
    """What travels in place of a value that msgspec does not know: what the endpoint's hook
    returns, else an array or a scalar of numpy."""

    def replace(value: Any) -> Any:
        refused: NotImplementedError | None = None
        if encode is not None:
            try:
                found = encode(value)
                if found is not value:
                    numpys = isinstance(found, np.ndarray | np.generic)
                    return arrays.carried(found) if numpys else found
            except NotImplementedError as why:
                refused = why
        found = arrays.carried(value)
        if found is not NotImplemented:
            return found
        raise refused or TypeError(f"Encoding objects of type {_full_name(value)} is unsupported")

    return replace


def _converting(decode: DecodeHook | None) -> DecodeHook:
    """The dec_hook. An array that came as one is no matter of the endpoint's hook; what that does
    not know is fitted to the type of numpy that is wanted."""

    def dec_hook(wanted: Any, sent: Any) -> Any:
        ours = arrays.is_of_numpy(wanted)
        if decode is not None and not (ours and isinstance(sent, np.ndarray | np.generic)):
            try:
                return decode(wanted, sent)
            except NotImplementedError:
                if not ours:
                    raise
        return arrays.fitted(wanted, sent) if ours else sent

    return dec_hook


def reason_of(why: Exception) -> str:
    """Why it failed, for an error's message: what a value, its hooks or msgspec raised."""
    text = str(why).rstrip(".")
    if isinstance(why, msgspec.MsgspecError | NotCarried | frames.Malformed):
        return text
    return f"{type(why).__name__}: {text}"


def _with_array(told: str, data: Buffer) -> str:
    """Why a frame is not of the type that was wanted, where msgspec found an Ext of ours."""
    before, found, after = told.partition("got `ext`")
    if not found:
        return told
    value = frames.decode(data)
    what = "an array"
    if isinstance(value, np.ndarray):
        what = f"an array of {value.dtype}, shape {value.shape}"
    return f"{before}got {what}{after}; name NDArray[...] for it, or send array.tolist()"


def _full_name(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _name(payload_type: Any) -> str:
    return str(getattr(payload_type, "__qualname__", payload_type))


PLAIN = Codec()
"""Of an endpoint without hooks."""

Types = Mapping[str, Any]
"""Payload types by pattern of message type; the most specific pattern decides."""


def check_types(types: Types | None) -> Types:
    """The types themselves, if they can be used. Raises `InvalidPattern`, `InvalidPayloadType`,
    `InvalidSetting`."""
    if not isinstance(types, Mapping | None):
        raise InvalidSetting(
            setting="types",
            value=types,
            reason=f"it is of type {_name(type(types))}",
            remedy='Give a dict from patterns to types, such as {"buffer.>": Buffer}',
        )
    checked = {check_pattern(pattern): found for pattern, found in (types or {}).items()}
    for payload_type in checked.values():
        PLAIN.decoder(payload_type)  # which types there are does not depend on hooks
    return checked


def annotated_type(function: Callable[..., Any], namespace: Mapping[str, Any] | None = None) -> Any:
    """The payload type that a callback's first parameter names, or None.

    It is ``Query`` in ``def query(message: Message[Query])``, and in ``message: Query`` where that
    is a Struct. ``namespace`` adds names that the module of the callback may import for type
    checkers only. An annotation that cannot be resolved is logged, and payloads come as plain
    values.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # builtins without a signature
        return None
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return None
    annotation = parameters[0].annotation
    if isinstance(annotation, str):
        try:
            annotation = _resolve(function, parameters[0].name, annotation, namespace or {})
        except Exception as why:
            log.warning(
                "annotation %r of %s cannot be resolved (%s: %s): payloads come as plain values; "
                "import its names at run time, or give payload_type=",
                annotation,
                _name(function),
                type(why).__name__,
                why,
            )
            return None
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if getattr(origin, "__name__", "") == "Message" and len(arguments) == 1:
        inner = arguments[0]
        return None if inner is Any or isinstance(inner, typing.TypeVar) else inner
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    return None


def _resolve(
    function: Callable[..., Any], name: str, annotation: str, namespace: Mapping[str, Any]
) -> Any:
    target: Any = function
    if isinstance(target, functools.partial):
        target = target.func
    if not hasattr(target, "__globals__") and not hasattr(target, "__func__"):
        target = type(target).__call__  # an object that can be called
    target = inspect.unwrap(getattr(target, "__func__", target))
    scope = {**namespace, **getattr(target, "__globals__", {})}
    if isinstance(target, types.FunctionType):
        # A Struct defined in the function around the callback is found if the callback uses it.
        scope |= inspect.getclosurevars(target).nonlocals
    # Only this one: another parameter's annotation must not get in the way.
    one = types.SimpleNamespace(__annotations__={name: annotation})
    return typing.get_type_hints(one, globalns=scope)[name]
