"""Arguments of a method as they are typed, read and checked by its JSON schema."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import decimal
import difflib
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from shmbus_console.schemas import UNREADABLE, Schema, json, type_text

from shmbus.views import MethodInfo

_FORMATS: dict[str, type] = {
    "date-time": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
}
_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}


class Unfit(ValueError):
    """What was typed is not what the schema says; the message names where."""


def read(method: MethodInfo, words: Sequence[str]) -> dict[str, Any]:
    """The arguments that these words give: each NAME=VALUE, or one JSON object with all. Raises
    `Unfit`."""
    try:
        return _read(method, words)
    except Unfit:
        raise
    except (*UNREADABLE, ArithmeticError, re.error):
        raise Unfit(
            f"{method.type}: what its endpoint says of its arguments makes no sense: shmbus request"
        ) from None


def _read(method: MethodInfo, words: Sequence[str]) -> dict[str, Any]:
    schema, of = method.arguments, method.type
    if not schema:  # of a description that was too large
        properties: Schema | None = None
    else:
        properties = schema.get("properties", {})
    reader = _Reader(schema.get("$defs", {}))
    given: dict[str, Any] = {}
    for word in words:
        if word.lstrip().startswith("{"):
            if len(words) > 1:
                raise Unfit(f"{of}: give one JSON object, or arguments as NAME=VALUE, not both")
            given = _object(of, word)
            break
        name, equals, value = word.partition("=")
        if not equals:
            raise Unfit(f"{of}: {word!r} is neither NAME=VALUE nor a JSON object")
        if name in given:
            raise Unfit(f"{of}: argument {name} is given twice")
        found = {} if properties is None else _known(of, properties, name)
        given[name] = reader.typed(value, found, f"{of}: argument {name}")
    for name in given:
        if properties is not None:
            found = _known(of, properties, name)
            given[name] = reader.fitted(given[name], found, f"{of}: argument {name}")
    for name in schema.get("required", []):
        if name not in given:
            expected = type_text((properties or {}).get(name, {}))
            raise Unfit(f"{of}: argument {name} is missing ({expected})")
    return given


def near(word: str, others: Iterable[str]) -> str:
    """The one of the others that was probably meant; else what there is."""
    there = sorted(set(others))
    if close := difflib.get_close_matches(word, there, 1, 0.6):
        return f"perhaps {close[0]}"
    if not there:
        return "there is none"
    more = f" and {len(there) - 10} more" if len(there) > 10 else ""
    return f"there is {', '.join(there[:10])}{more}"


def values(schema: Schema) -> list[str]:
    """What may be typed, where that is one of a few."""
    try:
        return _values(schema)
    except UNREADABLE:
        return []


def _values(schema: Schema) -> list[str]:
    found = [json(v) if not isinstance(v, str) else v for v in schema.get("enum", [])]
    if schema.get("type") == "boolean":
        found += ["true", "false"]
    for one in schema.get("anyOf", []):
        found += _values(one)
    return found


def _object(of: str, text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError) as problem:
        raise Unfit(f"{of}: {text!r} is not JSON ({problem})") from None
    assert isinstance(found, dict)
    return found


def _known(of: str, properties: Schema, name: str) -> Schema:
    if name not in properties:
        raise Unfit(f"{of} has no argument {name!r}: {near(name, properties)}")
    found: Schema = properties[name]
    return found


class _Reader:
    """Reads values by schemas with these definitions."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions

    def typed(self, text: str, schema: Schema, where: str) -> Any:
        """The value that was typed: text where only text is expected, else JSON, and text if it is
        none that fits. It is checked later."""
        alternatives = self._alternatives(schema)
        if all(_is_text(one) for one in alternatives):
            return text
        value: Any = text
        with contextlib.suppress(ValueError, RecursionError):
            value = msgspec.json.decode(text)
        if not any(_is_text(one) or _is_anything(one) for one in alternatives):
            return value
        try:
            self.fitted(value, schema, where)
        except Unfit:
            return text
        return value

    def fitted(self, value: Any, schema: Schema, where: str) -> Any:
        """The value as it is sent, which is itself, but for bytes. Raises `Unfit`."""
        schema = self._resolved(schema)
        if union := schema.get("anyOf") or schema.get("oneOf"):
            return self._one_of(value, schema, union, where)
        if "enum" in schema and not _among(value, schema["enum"]):
            raise _unfit(value, schema, where)
        if "const" in schema and not _among(value, [schema["const"]]):
            raise _unfit(value, schema, where)
        kind = schema.get("type")
        if kind in _TYPES and not _is_a(value, kind):
            raise _unfit(value, schema, where)
        if kind in ("integer", "number"):
            _check_number(value, schema, where)
        elif kind == "string":
            return _fitted_text(value, schema, where)
        elif kind == "array":
            return self._fitted_array(value, schema, where)
        elif kind == "object":
            return self._fitted_object(value, schema, where)
        return value

    def _resolved(self, schema: Schema) -> Schema:
        for _ in range(10):
            if "$ref" not in schema:
                return schema
            schema = self._definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        raise LookupError(schema["$ref"])  # it goes round in a circle

    def _alternatives(self, schema: Schema) -> list[Schema]:
        schema = self._resolved(schema)
        union = schema.get("anyOf") or schema.get("oneOf")
        return [one for each in union for one in self._alternatives(each)] if union else [schema]

    def _one_of(self, value: Any, schema: Schema, union: list[Schema], where: str) -> Any:
        if (tagged := schema.get("discriminator")) and isinstance(value, dict):
            tag = value.get(tagged["propertyName"])
            if isinstance(tag, str) and (reference := tagged.get("mapping", {}).get(tag)):
                return self.fitted(value, {"$ref": reference}, where)
        problems = []
        for one in union:
            try:
                return self.fitted(value, one, where)
            except Unfit as problem:
                resolved = self._resolved(one)
                if resolved.get("type") in ("object", "array") and _is_a(value, resolved["type"]):
                    problems.append(problem)
        if len(problems) == 1:  # the only one of that kind: say what is wrong within
            raise problems[0]
        raise _unfit(value, schema, where)

    def _fitted_array(self, value: list[Any], schema: Schema, where: str) -> list[Any]:
        first = schema.get("prefixItems", [])
        least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
        if not least <= len(value) <= most:
            raise _unfit(value, schema, where)
        rest = schema.get("items", {})
        if not isinstance(rest, dict):
            rest = {}
        return [
            self.fitted(item, first[i] if i < len(first) else rest, f"{where}[{i}]")
            for i, item in enumerate(value)
        ]

    def _fitted_object(self, value: dict[str, Any], schema: Schema, where: str) -> dict[str, Any]:
        properties = schema.get("properties", {})
        for name in schema.get("required", []):
            if name not in value:
                expected = type_text(properties.get(name, {}))
                raise Unfit(f"{where}.{name} is missing ({expected})")
        others = schema.get("additionalProperties", {})
        if others is False:
            for name in value:
                if name not in properties:
                    raise Unfit(f"{where} has no field {name!r}: {near(name, properties)}")
        if not isinstance(others, dict):
            others = {}
        return {
            name: self.fitted(item, properties.get(name, others), f"{where}.{name}")
            for name, item in value.items()
        }


def _is_text(schema: Schema) -> bool:
    if "enum" in schema:
        return all(isinstance(value, str) for value in schema["enum"])
    return schema.get("type") == "string"


def _is_anything(schema: Schema) -> bool:
    return not schema.keys() & {"type", "enum", "const"}


def _is_a(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _among(value: Any, allowed: list[Any]) -> bool:
    return any(value == one and type(value) is type(one) for one in allowed)


def _check_number(value: float, schema: Schema, where: str) -> None:
    if (
        value < schema.get("minimum", value)
        or value > schema.get("maximum", value)
        or ("exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"])
        or ("exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"])
        or ("multipleOf" in schema and value % schema["multipleOf"])
    ):
        raise _unfit(value, schema, where)


def _fitted_text(value: str, schema: Schema, where: str) -> str | bytes:
    if schema.get("contentEncoding") == "base64":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise _unfit(value, schema, where) from None
    if wanted := _FORMATS.get(schema.get("format", "")):
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            raise _unfit(value, schema, where) from None
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        raise _unfit(value, schema, where)
    if "pattern" in schema and not re.search(schema["pattern"], value):
        raise _unfit(value, schema, where)
    return value


def _unfit(value: Any, schema: Schema, where: str) -> Unfit:
    return Unfit(f"{where}: expected {type_text(schema)}, got {json(value)}")
