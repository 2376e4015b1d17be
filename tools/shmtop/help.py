"""The facts of the help: what keys do, what columns show, what states mean."""

from __future__ import annotations

from collections.abc import Iterator

from .columns import COLUMNS
from .keys import PAGES
from .states import STATES

Facts = tuple[tuple[str, str], ...]


def sections() -> Iterator[tuple[str, Facts]]:
    """Titles, each with words and what they mean."""
    for page, keys in PAGES.items():
        yield f"Keys: {page}", tuple((key.shown, key.meaning) for key in keys)
    yield "Columns", tuple((column.title, column.meaning) for column in COLUMNS)
    yield "States", tuple((word, state.meaning) for word, state in STATES.items())
