"""Themes, and the one plug-in that is built in: it colours words and numbers."""

from __future__ import annotations

import keyword
import re
from typing import Any

THEMES: dict[str, dict[str, int]] = {
    "InspiredGitHub": {"keyword": 0xFFA71D5D, "number": 0xFF0086B3},
    "base16-eighties.dark": {"keyword": 0xFFCC99CC, "number": 0xFFF99157},
}
DEFAULT = "InspiredGitHub"
PLUGIN = "words"

_FIRST = 2
"""0 and 1 once were the styles of selections and of matches."""
_TOKENS = re.compile(rf"\b(?:(?P<keyword>{'|'.join(keyword.kwlist)})|(?P<number>\d[\d_.]*))\b")
_KINDS = ("keyword", "number")


def settings(theme: str) -> dict[str, Any]:
    """What `theme_changed` shows of it."""
    dark = theme.endswith("dark")
    light, black = {"r": 255, "g": 255, "b": 255, "a": 255}, {"r": 45, "g": 45, "b": 45, "a": 255}
    return {
        "foreground": light if dark else black,
        "background": black if dark else light,
        "caret": light if dark else black,
    }


def definitions(theme: str) -> list[dict[str, Any]]:
    """The parameters of `def_style`, one for each style."""
    return [
        {"id": number, "fg_color": THEMES[theme][kind], "weight": 700 if kind == "keyword" else 400}
        for number, kind in enumerate(_KINDS, _FIRST)
    ]


def plain(line: str) -> list[int]:
    return []


def coloured(line: str) -> list[int]:
    """Triples: bytes from the end of the span before, length in bytes, style."""
    made: list[int] = []
    end = 0
    for found in _TOKENS.finditer(line):
        start = len(line[: found.start()].encode())
        length = len(found[0].encode())
        made += start - end, length, _FIRST + _KINDS.index(str(found.lastgroup))
        end = start + length
    return made
