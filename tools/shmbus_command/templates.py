"""Words in a payload that are replaced in each message: {{count}}, {{time}}, {{uuid}}."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable

import click

WORDS: dict[str, Callable[[int], str]] = {
    "count": str,
    "time": lambda count: f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
    "uuid": lambda count: str(uuid.uuid4()),
}
"""What stands for each, of the message that is the so-many-th."""

_SLOT = re.compile(rb"\{\{\s*([A-Za-z_]\w*)\s*\}\}")


class Template:
    """Content with such words in it. Raises ``click.UsageError`` where it has others."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.words = {word.decode() for word in _SLOT.findall(content)}
        if unknown := sorted(self.words - WORDS.keys()):
            known = ", ".join(f"{{{{{word}}}}}" for word in WORDS)
            raise click.UsageError(
                f"PAYLOAD has the unknown word {{{{{unknown[0]}}}}}; known are {known}. To send it "
                "as it is give --no-template"
            )

    def filled(self, count: int) -> bytes:
        """The content of one message."""
        return _SLOT.sub(lambda found: WORDS[found[1].decode()](count).encode(), self._content)
