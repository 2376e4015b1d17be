"""A front-end's cache of a view's lines, kept up to date by the core's `update` notifications.

An update is a program that makes the new lines from the old ones: `copy` takes the next old lines,
`skip` passes over old lines, `ins` brings new ones, `update` takes old ones with other cursors and
styles, and `invalidate` stands for lines that the core did not send. So an update that was missed
or came twice spoils the cache: :class:`OutOfStep` says so where it shows, and only the whole state
(:meth:`LineCache.whole` of somebody who has it) puts it right.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType


class Line(msgspec.Struct, omit_defaults=True):
    """A line as the core sends it. What an `update` does not set stays as it was."""

    text: str | UnsetType = UNSET
    """With the line feed at its end, but for the last line."""
    cursor: list[int] | UnsetType = UNSET
    """Where carets are: bytes of UTF-8 before each."""
    styles: list[int] | UnsetType = UNSET
    """Three numbers a span: bytes from the end of the span before, length in bytes, style."""
    ln: int | None = None


class Op(msgspec.Struct, omit_defaults=True):
    op: Literal["copy", "skip", "invalidate", "update", "ins"]
    n: Annotated[int, msgspec.Meta(ge=1)]
    lines: list[Line] = []
    ln: int | None = None
    """The number of the first line in the file, from 1; this cache counts for itself."""


class Update(msgspec.Struct, omit_defaults=True):
    ops: list[Op]
    pristine: bool
    """Whether the file has what the buffer has."""
    annotations: list[dict[str, Any]] = []


class CachedLine(NamedTuple):
    text: str
    cursor: tuple[int, ...] = ()
    styles: tuple[int, ...] = ()


Place = tuple[int, int]
"""A line, and the bytes before the place in it."""


class Change(NamedTuple):
    """Which lines an update replaced: `gone` old lines from `first` on, by `come` new ones."""

    first: int
    gone: int
    come: int


class OutOfStep(ValueError):
    """The update was made for other lines than those in the cache: ask for the whole state."""


class LineCache:
    """The lines of a view as far as the core has sent them."""

    def __init__(self) -> None:
        self.lines: list[CachedLine | None] = []
        """None stands for a line that the core did not send, or no longer keeps up to date."""
        self.pristine = True
        self.annotations: list[dict[str, Any]] = []

    def apply(self, update: object) -> Change:
        """Apply what `update` notifications have as `update`; costs what it changes.

        Raises :class:`OutOfStep`, and `msgspec.ValidationError` where it is no update; the cache is
        then as before.
        """
        if not isinstance(update, Update):
            update = msgspec.convert(update, Update)
        takes = sum(op.n for op in update.ops if op.op in ("copy", "skip", "update"))
        old, ops, head, tail = self.lines, list(update.ops), 0, 0
        if takes > len(old):
            raise OutOfStep(f"the update takes {takes} lines of {len(old)}")
        # What is copied at both ends stays where it is.
        if ops and ops[0].op == "copy":
            head = ops.pop(0).n
        if ops and ops[-1].op == "copy" and takes == len(old):
            tail = ops.pop().n
        new, at, end = list[CachedLine | None](), head, len(old) - tail
        for op in ops:
            if op.op in ("ins", "update") and len(op.lines) != op.n:
                raise OutOfStep(f"{op.op} of {op.n} lines brings {len(op.lines)}")
            if op.op == "ins":
                new += map(_inserted, op.lines)
            elif op.op == "invalidate":
                new += [None] * op.n
            elif op.op == "copy":
                new += old[at : at + op.n]
            elif op.op == "update":
                new += map(_updated, old[at : at + op.n], op.lines)
            if op.op in ("copy", "skip", "update"):
                at += op.n
        old[head:end] = new
        self.pristine = update.pristine
        self.annotations = update.annotations
        return Change(head, end - head, len(new))

    def whole(self) -> Update:
        """An update that makes any cache like this one."""
        ops: list[Op] = []
        for line in self.lines:
            kind: Literal["ins", "invalidate"] = "invalidate" if line is None else "ins"
            if not ops or ops[-1].op != kind:
                ops.append(Op(kind, 1))
            else:
                ops[-1].n += 1
            if line is not None:
                ops[-1].lines.append(Line(line.text, list(line.cursor), list(line.styles)))
        return Update(ops, self.pristine, self.annotations)

    def missing(self, first: int = 0, last: int | None = None) -> list[tuple[int, int]]:
        """Which lines of these are not here: ranges for `request_lines`, the last one excluded."""
        found: list[tuple[int, int]] = []
        for number in range(first, len(self.lines) if last is None else min(last, len(self.lines))):
            if self.lines[number] is None:
                if found and found[-1][1] == number:
                    found[-1] = found[-1][0], number + 1
                else:
                    found.append((number, number + 1))
        return found

    @property
    def text(self) -> str:
        """All of it. Raises :class:`LookupError` while lines are missing."""
        if any(line is None for line in self.lines):
            raise LookupError(f"lines are missing: {self.missing()}")
        return "".join([line.text for line in self.lines if line is not None])

    @property
    def selections(self) -> list[tuple[Place, Place]]:
        """Anchor and caret of each region that is selected, in order."""
        for annotation in self.annotations:
            if annotation.get("type") == "selection":
                return [self._region(*ends) for ends in annotation["ranges"]]
        return [(caret, caret) for caret in self.carets]

    def _region(self, first: int, start: int, last: int, end: int) -> tuple[Place, Place]:
        """Annotations do not say at which end the caret is; the lines do."""
        line = self.lines[last] if last < len(self.lines) else None
        forward = line is None or end in line.cursor
        return ((first, start), (last, end)) if forward else ((last, end), (first, start))

    @property
    def carets(self) -> list[Place]:
        """Where carets are in any line that is here. Looks at all of them."""
        return [
            (number, column)
            for number, line in enumerate(self.lines)
            if line is not None
            for column in line.cursor
        ]


def _inserted(line: Line) -> CachedLine:
    if line.text is UNSET:
        raise OutOfStep("a line was inserted without text")
    return CachedLine(
        line.text,
        () if line.cursor is UNSET else tuple(line.cursor),
        () if line.styles is UNSET else tuple(line.styles),
    )


def _updated(old: CachedLine | None, line: Line) -> CachedLine | None:
    if old is None:
        return None
    return CachedLine(
        old.text,
        old.cursor if line.cursor is UNSET else tuple(line.cursor),
        old.styles if line.styles is UNSET else tuple(line.styles),
    )
