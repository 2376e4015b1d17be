"""Messages that are lost, counted by type."""

from __future__ import annotations

from collections import Counter

TYPES = 10_000
"""Of which losses are counted, each of its own."""

OTHER = "$other"
"""What those of all further types count as. No type of the space's begins so."""


class Losses(Counter[str]):
    """Of so many types each, and of all others together: none is forgotten."""

    def count(self, type: str, messages: int = 1) -> str:
        """So many more. What they count as."""
        name = type if type in self or len(self) < TYPES else OTHER
        self[name] += messages
        return name
