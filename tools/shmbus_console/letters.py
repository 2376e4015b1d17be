"""Dead letters, `$bus.undeliverable`, with their payloads decoded."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

from shmbus.views import decode_plain

from .output import for_people

TYPE = "$bus.undeliverable"


def document(letter: dict[str, Any]) -> dict[str, Any]:
    """A dead letter as JSON: its payload decoded where that is possible, and its bytes as they are,
    of which `shmbus resend` makes the same message again."""
    content: bytes = letter["payload"]
    found = {**letter, "payload": None}
    if letter["format"] != "none":
        found["payload_base64"] = base64.b64encode(content).decode()
    if len(content) < letter["size"]:
        found["cut"] = True
    elif letter["format"] in ("msgpack", "framed"):
        with contextlib.suppress(ValueError):  # of a type that its receiver knows
            found["payload"] = decode_plain(content, letter["format"])
    return found


def line(letter: dict[str, Any]) -> str:
    """A dead letter for people."""
    content: bytes = letter["payload"]
    again = f", attempt {letter['attempt']}" if letter["attempt"] > 1 else ""
    about = f"{letter['type']} {letter['kind']} from {letter['source']}{again}: {letter['reason']}"
    if len(content) < letter["size"]:
        return f"{about}: <{len(content)} of {letter['size']} bytes: {excerpt(content)}>"
    match letter["format"]:
        case "none":
            return about
        case "raw":
            return f"{about}: {text_or_bytes(content)}"
        case _:
            return f"{about}: {for_people(document(letter)['payload'])}"


_LINE = 1 << 16
"""Bytes that are shown as text, on one line; more of them nobody reads there."""


def text_or_bytes(content: bytes) -> str:
    """Bytes for people: as text where they are that, and not too many."""
    if len(content) > _LINE:
        return f"<{len(content)} bytes: {excerpt(content)}>"
    text = content.decode("ascii", "replace").rstrip("\n")
    if text.isprintable() and "\ufffd" not in text:
        return text
    return f"<{len(content)} bytes: {excerpt(content)}>"


def excerpt(content: bytes) -> str:
    """The first bytes in hexadecimal."""
    return content[:16].hex(" ") + (" .." if len(content) > 16 else "")
