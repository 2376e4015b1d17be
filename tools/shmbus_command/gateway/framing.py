"""Bytes of a stream, cut into lines that are not too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

_CHUNK = 64 * 1024


class Cut(msgspec.Struct, frozen=True):
    """A line: what is in it without its end, or None where it is too long; and its number."""

    number: int
    content: bytes | None


async def lines(reader: asyncio.StreamReader, longest: int) -> AsyncIterator[Cut]:
    """The lines that come, empty ones left out. Of one that is longer than so many bytes nothing is
    kept. The last needs no line break."""
    number, kept, skipping = 0, bytearray(), False
    while chunk := await reader.read(_CHUNK):
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            number += 1
            too_long = skipping or len(kept) + end - begin > longest
            content = b"" if too_long else bytes(kept) + chunk[begin:end]
            kept.clear()
            begin, skipping = end + 1, False
            if too_long:
                yield Cut(number, None)
            elif content.strip():
                yield Cut(number, content)
        if not skipping:
            kept += memoryview(chunk)[begin:]
            if len(kept) > longest:
                kept.clear()
                skipping = True
    if skipping or kept.strip():
        yield Cut(number + 1, None if skipping else bytes(kept))
