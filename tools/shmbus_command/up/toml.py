"""How values and their types are written in TOML, for messages."""

from __future__ import annotations

from msgspec import inspect
from shmbus_console.output import to_json


def as_toml(value: object) -> str:
    """A value, near enough to how it stands in the file."""
    return to_json(value).decode(errors="backslashreplace")


def takes(kind: inspect.Type) -> str:
    """What a key of that type takes."""
    match kind:
        case inspect.StrType():
            return 'a text: "..."'
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return 'seconds, or a time such as "500ms"'
        case inspect.BoolType():
            return "true or false"
        case inspect.VarTupleType():
            return 'a list of texts: ["..."]'
        case inspect.DictType():
            return 'a table of texts: { NAME = "..." }'
        case inspect.LiteralType():
            *others, last = map(as_toml, kind.values)
            return f"{', '.join(others)} or {last}"
        case inspect.UnionType():
            return next(takes(one) for one in kind.types if not isinstance(one, inspect.NoneType))
        case _:
            return "a table"
