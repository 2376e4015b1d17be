"""What msgspec says of arguments or results that are not of their types, told by name."""

from __future__ import annotations

import re

_PLACE = re.compile(r"(?P<what>.*) - at `(?P<key>key` in `)?\$\.?(?P<path>.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`\Z")


def of_arguments(reason: str) -> str:
    """``argument a: Expected int, got str``"""
    what, path = _split(reason)
    if path:
        return f"argument {path}: {what}"
    if missing := _MISSING.match(reason):
        return f"argument {missing['name']} is missing"
    return f"the arguments: {what}"


def of_result(reason: str) -> str:
    """``result.total: Expected int, got str``"""
    what, path = _split(reason)
    return f"result{'.' if path[:1] not in ('', '[') else ''}{path}: {what}"


def _split(reason: str) -> tuple[str, str]:
    """What is wrong, and where."""
    found = _PLACE.match(reason)
    if found is None:
        return reason.replace("`", ""), ""
    key = "a key in " if found["key"] else ""
    return found["what"].replace("`", ""), f"{key}{found['path']}" if found["path"] else key[:5]
