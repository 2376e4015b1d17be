"""What the host knows of a view: its text as the core told it, its journal, and where everybody is.

XI's core has one selection for a view. Here several front-ends share the view, each with a
selection of its own: the host keeps them, moves each with what the others type, and gives a
front-end's to the core before its edits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from .errors import CoreDown, StaleState
from .journal import Base, Entry, InnerEdit, Journal
from .lines import LineCache
from .messages import Changed, Edit
from .positions import Position, Range, Splice
from .stamp import stamp

REMEMBERED = 1000
"""Steps back from which a place that a front-end names can be found again."""
AUTHORS = 32
"""Front-ends whose places are kept; of more, those that have typed last."""
START = Range(Position(0, 0), Position(0, 0))


class View:
    """One view, under the name that it has on the bus."""

    def __init__(self, id: str, run: str, journal: Journal) -> None:
        self.id, self.run, self.journal = id, run, journal
        self.turn = asyncio.Lock()
        """Held by whoever sends edits."""
        self.seq = 0
        self.present: dict[str, str] = {}
        """Whose carets are told: front-ends that are there, and by which endpoint."""
        self.unsaved = False
        """Whether the core has read it from another file than its own."""
        self.cache = LineCache()
        self.restoring = False
        self._steps: deque[tuple[int, Splice]] = deque(maxlen=REMEMBERED)
        self._oldest = 0
        self.confirming: object = None
        """The core that is to be asked whether it has done what it was sent."""
        self.lost = ""
        """Why no core has it."""
        self.begin("")

    @property
    def core_id(self) -> str:
        """The core's name for it. Raises `CoreDown` where no core has it."""
        if not self._core_id:
            raise CoreDown(f"{self.id} is in no core: {self.lost}")
        return self._core_id

    def lose(self, why: str) -> None:
        """No core has it."""
        self.begin("")
        self.lost = why

    def begin(self, core_id: str) -> None:
        """A new core has it, opened as the journal's base."""
        base = self.journal.base
        if not self.restoring:
            self._before = _texts(self.cache.lines)
        self._core_id = core_id
        self.cache = LineCache()
        self.restoring = True
        self.confirming = None
        self.told = self.confirmed = 0
        """Edits that this core was sent, and that it has said it has done."""
        self.author = ""
        """Whose selection the core has."""
        self.strayed = False
        self.ranges = dict(base.ranges)
        self.done = self.journal.done
        self.results = {
            author: result
            for author, result in base.results.items()
            if self.done.get(author) == base.done.get(author)
        }
        """Of the last edit of each front-end whose last one had any."""

    def take(self, update: dict[str, Any]) -> Changed:
        """Apply an update of the core's. Raises what `LineCache.apply` does.

        It costs what has changed."""
        ops = update["ops"]
        lines = self.cache.lines
        head, tail = _kept(ops, len(lines))
        old = lines[head : len(lines) - tail]
        update["pristine"] = update["pristine"] and not self.unsaved
        self.cache.apply(update)
        lines = self.cache.lines
        new = lines[head : len(lines) - tail]
        splice = Splice.between(head, _texts(old), _texts(new))
        self.seq += 1
        if self.author:  # else it is being opened
            if splice is not None:
                self._moved(splice)
            self.ranges[self.author] = self._selection()
        return Changed(self.run, self.seq, update, self.carets)

    def announce(self) -> Changed:
        """The core has it again. Whoever follows asks for the lines."""
        self.seq += 1
        self.restoring = False
        splice = Splice.between(0, self._before, _texts(self.cache.lines))
        if splice is not None:
            self._remember(splice)
        return Changed(self.run, self.seq, None, self.carets)

    @property
    def carets(self) -> dict[str, list[Position]]:
        return {
            author: [one.end for one in ranges]
            for author, ranges in self.ranges.items()
            if author in self.present
        }

    def came(self, author: str, endpoint: str) -> bool:
        """A front-end is there. Returns whether there are other carets for that."""
        new = author not in self.present
        self.present[author] = endpoint
        return new and author in self.ranges

    def went(self, endpoint: str) -> bool:
        """An endpoint has ended. Returns whether there are other carets for that."""
        before = self.carets
        self.present = {author: by for author, by in self.present.items() if by != endpoint}
        return self.carets != before

    def unchanged(self) -> Changed:
        """A step that changes nothing but the carets."""
        self.seq += 1
        ops = [{"op": "copy", "n": len(self.cache.lines)}]
        update = {"ops": ops, "pristine": self.cache.pristine}
        update["annotations"] = self.cache.annotations
        return Changed(self.run, self.seq, update, self.carets)

    def rebase(self, text: str, end: int | None = None) -> None:
        """Give the journal a new base, with the text that the core has after the edits up to
        `end`."""
        base = Base(
            file=self.journal.base.file,
            text=text,
            pristine=self.cache.pristine,
            author=self.author,
            ranges=dict(self.ranges),
            done=dict(self.done),
            stamp=self.journal.base.stamp,
            results=dict(self.results),
        )
        if end is None:
            end, self.strayed = self.journal.end, False
        self.journal.rebase(base, end)

    def saved(self, file: str, text: str) -> None:
        """The file has the text that the core has."""
        self.journal.base.file, self.journal.base.stamp = file, stamp(file)
        self.unsaved, self.cache.pristine = False, True
        self.rebase(text)

    def placed(self, edit: Edit) -> list[InnerEdit]:
        """What the core is to do for it; where the author changes, it begins with the author's
        selection. All that was sent before must have been done."""
        seq = edit.seq
        if seq is not None and (edit.run != self.run or not self._oldest <= seq <= self.seq):
            raise StaleState(f"{self.id} is at {self.seq}, and does not know the state {seq}")
        edits = [self._placed(one, seq) for one in edit.edits]
        if self.strayed or edit.author != self.author:
            forgotten = edit.author in self.done and edit.author not in self.ranges
            if forgotten and edits[:1] and edits[0].method != "gesture":
                raise StaleState(f"the place of {edit.author!r} in {self.id} is forgotten: click")
            edits[:0] = self.selecting(edit.author)
        return edits

    def selecting(self, author: str) -> list[InnerEdit]:
        """What makes the core select what an author has selected."""
        selection = self.ranges.get(author) or [START]
        return [call for n, one in enumerate(selection) for call in _select(one, n > 0)]

    def looked(self, author: str) -> None:
        """The core has an author's selection for something that is in no journal: so the next edit
        that is there has to bring its own."""
        self.strayed = self.strayed or author != self.author
        self.author = author

    def sent(self, entry: Entry) -> None:
        """What is in the journal goes to the core now."""
        self.author = entry.author
        self.strayed = False
        self.told += len(entry.edits)
        self.finish(entry)

    def finish(self, entry: Entry, result: object = None) -> None:
        """It counts as done: it is in the journal, or in its next base."""
        self.done[entry.author] = entry.n
        self.results.pop(entry.author, None)
        if result is not None:
            self.results[entry.author] = result
        self.ranges[entry.author] = self.ranges.pop(entry.author, [])
        for author in list(self.ranges)[:-AUTHORS]:
            del self.ranges[author]
            self.results.pop(author, None)

    def _placed(self, edit: InnerEdit, seq: int | None) -> InnerEdit:
        if edit.method != "gesture" or seq is None:
            return edit
        place = Position(edit.params["line"], edit.params["col"])
        for number, splice in self._steps:
            if number > seq:
                place = splice.moved(place)
        params = edit.params | {"line": place.line, "col": place.column}
        return InnerEdit(edit.method, params)

    def _moved(self, splice: Splice) -> None:
        if not self.restoring:
            self._remember(splice)
        for author, ranges in self.ranges.items():
            if author != self.author:
                self.ranges[author] = [splice.moved_range(one) for one in ranges]

    def _remember(self, splice: Splice) -> None:
        self._steps.append((self.seq, splice))
        if len(self._steps) == REMEMBERED:
            self._oldest = self._steps[0][0]

    def _selection(self) -> list[Range]:
        return [Range(Position(*a), Position(*b)) for a, b in self.cache.selections]


def _kept(ops: list[dict[str, Any]], count: int) -> tuple[int, int]:
    """How many of `count` lines an update leaves as they are at the beginning, and at the end."""
    head = ops[0]["n"] if ops and ops[0]["op"] == "copy" else 0
    used = sum(op["n"] for op in ops if op["op"] in ("copy", "skip", "update"))
    last = len(ops) > 1 and ops[-1]["op"] == "copy" and used == count
    return head, ops[-1]["n"] if last else 0


def _texts(lines: list[Any]) -> list[str]:
    return [line.text if line is not None else "\n" for line in lines]


def _select(range: Range, more: bool) -> list[InnerEdit]:
    """What makes the core select that."""
    to = {"select": {"granularity": "point", "multi": more}}
    calls = [_gesture(range.start, to)]
    if range.end != range.start:
        calls.append(_gesture(range.end, {"select_extend": {"granularity": "point"}}))
    return calls


def _gesture(place: Position, kind: dict[str, Any]) -> InnerEdit:
    return InnerEdit("gesture", {"line": place.line, "col": place.column, "ty": kind})
