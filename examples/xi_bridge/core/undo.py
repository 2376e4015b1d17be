"""What was done, in groups that are undone and done again as one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from .selection import Selection
from .text import Replacement

GROUPS = 1000
"""How many can be undone."""


class Kind(Enum):
    """Edits of one kind that follow each other are one group, but for those of kind OTHER."""

    INSERT = auto()
    NEWLINE = auto()
    DELETE = auto()
    OTHER = auto()


@dataclass
class Group:
    kind: Kind
    inverses: list[Replacement]
    """In the order in which they were made."""
    before: Selection
    after: Selection
    states: tuple[int, int]
    """The numbers of the states before and after it."""


class History:
    """States of a text have numbers, by which one knows again the state that was saved."""

    def __init__(self) -> None:
        self.state = 0
        self._states = 0
        self._past = deque[Group](maxlen=GROUPS)
        self._future: list[Group] = []
        self._open = False

    def seal(self) -> None:
        """The next edit begins a group."""
        self._open = False

    def add(
        self, kind: Kind, inverses: list[Replacement], before: Selection, after: Selection
    ) -> None:
        self._states += 1
        last = self._past[-1] if self._past and self._open else None
        if last is not None and last.kind is kind is not Kind.OTHER:
            last.inverses += inverses
            last.after = after
            last.states = last.states[0], self._states
        else:
            states = self.state, self._states
            self._past.append(Group(kind, inverses, before, after, states))
        self.state = self._states
        self._open = True
        self._future.clear()

    def undo(self, make: Callable[[Replacement], Replacement]) -> Selection | None:
        """Undo the last group, `make` its replacements, and return the selection of before."""
        self.seal()
        if not self._past:
            return None
        group = self._past.pop()
        group.inverses = [make(inverse) for inverse in reversed(group.inverses)]
        self._future.append(group)
        self.state = group.states[0]
        return group.before

    def redo(self, make: Callable[[Replacement], Replacement]) -> Selection | None:
        self.seal()
        if not self._future:
            return None
        group = self._future.pop()
        group.inverses = [make(inverse) for inverse in reversed(group.inverses)]
        self._past.append(group)
        self.state = group.states[1]
        return group.after
