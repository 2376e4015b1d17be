"""What the bytes of a payload stand for, where no endpoint's types say more: plain values."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from shmbus.shared import frames

Format = Literal["msgpack", "raw", "framed", "none"]


def decode_plain(content: bytes, format: Format) -> Any:
    """The payload whose bytes these are, with its arrays; ``format``: how they encode it, as a dead
    letter says (`events.Undeliverable`). Raises ``ValueError``."""
    match format:
        case "none":
            return None
        case "raw":
            return content
        case "framed":
            return frames.decode(content)
        case _:
            try:
                return msgspec.msgpack.decode(content)
            except RecursionError as problem:
                raise ValueError(str(problem)) from problem
