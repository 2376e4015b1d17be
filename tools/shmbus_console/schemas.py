"""JSON schemas of methods, for people. Other programs wrote them, so they may be anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shmbus.views import MethodInfo

from .output import to_json

Schema = dict[str, Any]

UNREADABLE = (TypeError, ValueError, AttributeError, LookupError, RecursionError)
"""What is raised where something is no schema."""

_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}
_LENGTHS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "pattern": "matching {}",
}


def signature(method: MethodInfo) -> str:
    """``calc.add(a: integer, b: integer = 2) -> integer``"""
    return f"{'async ' if method.asynchronous else ''}{method.type}{takes(method)}"


def takes(method: MethodInfo) -> str:
    """``(a: integer, b: integer = 2) -> integer``"""
    try:
        parts = "parts of " if method.streams else ""
        return f"({', '.join(_fields(method.arguments))}) -> {parts}{type_text(method.result)}"
    except UNREADABLE:
        return "(?) -> ?"


def definitions(method: MethodInfo) -> dict[str, str]:
    """What the names in a signature stand for."""
    try:
        found = {**method.arguments.get("$defs", {}), **method.result.get("$defs", {})}
        return {name: type_text(schema) for name, schema in found.items()}
    except UNREADABLE:
        return {}


def type_text(schema: Schema) -> str:
    """The type that a schema describes, in its words: ``array of integer``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(dict.fromkeys(map(type_text, schema[union])))
    if "enum" in schema:
        return " | ".join(json(value) for value in schema["enum"])
    if "const" in schema:
        return json(schema["const"])
    return _plain(schema) + _restrictions(schema)


def json(value: object) -> str:
    return to_json(value).decode(errors="backslashreplace")


def _plain(schema: Schema) -> str:
    match schema.get("type"):
        case "array" if schema.get("prefixItems"):
            return f"[{', '.join(map(type_text, schema['prefixItems']))}]"
        case "array" if isinstance(schema.get("items"), dict) and schema["items"]:
            return f"array of {_grouped(schema['items'])}"
        case "object" if "properties" in schema:
            return f"{{{', '.join(_fields(schema))}}}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {_grouped(schema['additionalProperties'])}"
        case "string" if schema.get("contentEncoding"):
            return f"{schema['contentEncoding']} string"
        case "string" if schema.get("format"):
            return str(schema["format"])
        case str(kind):
            return kind
    return str(schema.get("title", "any"))


def _grouped(schema: Schema) -> str:
    text = type_text(schema)
    return f"({text})" if " | " in text else text or "any"


def _restrictions(schema: Schema) -> str:
    bounds = [f"{sign} {schema[word]:g}" for word, sign in _BOUNDS.items() if word in schema]
    if schema.get("type") != "array" or not schema.get("prefixItems"):
        bounds += [
            text.format(schema[word])
            for word, text in _LENGTHS.items()
            if word in schema and not (word == "minItems" and not schema[word])
        ]
    return f" ({', '.join(bounds)})" if bounds else ""


def _fields(schema: Schema) -> Iterator[str]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        default = ""
        if "default" in field:
            default = f" = {json(field['default'])}"
        elif name not in required:
            default = " = ..."
        yield f"{name}: {type_text(field)}{default}"
