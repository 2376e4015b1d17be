"""A view of a buffer: what is selected and shown, and the commands that a front-end gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import edits
from .edits import Config, Edit
from .find import Search
from .movement import Movement, moved, word_around
from .protocol import FindNext, FindQuery, Granularity, Lines, Size
from .selection import Region, Selection, caret, selection
from .shadow import Shadow
from .text import Position, Replacement, Text
from .undo import History, Kind

Tell = Callable[[str, dict[str, Any]], object]
Styles = Callable[[str], list[int]]
"""The styles of a line's text, as the wire has them."""


class View:
    def __init__(self, name: str, content: str, config: Config, tell: Tell, styles: Styles) -> None:
        self.name = name
        self.config = config
        self.text = Text(content)
        self.regions: Selection = [caret(Position(0, 0))]
        self.history = History()
        self.saved = self.history.state
        self.window: Lines = (0, 10)
        self.size = Size(0, 0)
        self.searches: list[Search] = []
        self.replacement: str | None = None
        self.highlights = True
        self._tell = tell
        self._styles = styles
        self._shadow = Shadow(len(self.text.lines))
        self._changed = True
        self._scrolls = False
        self._searched = False
        self._killed = ""
        self._granularity: Granularity = "point"
        self._searches_made = 0

    @property
    def pristine(self) -> bool:
        return self.history.state == self.saved

    # Showing -------------------------------------------------------------------------------------

    def show(self, asked: Lines = (0, 0)) -> None:
        """Tell the front-end what has changed, and the lines that it asked for."""
        if asked == (0, 0) and not self._changed:
            return
        carets: dict[int, list[int]] = {}
        for region in self.regions:
            at = region.caret
            carets.setdefault(at.line, []).append(self.text.bytes_before(at))

        def line(number: int, whole: bool) -> dict[str, Any]:
            content = self.text.lines[number]
            made: dict[str, Any] = {
                "cursor": carets.get(number, []),
                "styles": self._styles(content),
                "ln": number + 1,
            }
            if whole:
                made["text"] = content if number + 1 == len(self.text.lines) else content + "\n"
            return made

        if self._searched:
            queries = [search.status() for search in self.searches]
            self._tell("find_status", {"view_id": self.name, "queries": queries})
        update = {
            "ops": self._shadow.program(self.window, asked, line),
            "pristine": self.pristine,
            "annotations": self._annotations(),
        }
        self._tell("update", {"view_id": self.name, "update": update})
        if self._scrolls:
            at = self.regions[-1].caret
            place = {"line": at.line, "col": self.text.bytes_before(at)}
            self._tell("scroll_to", {"view_id": self.name, **place})
        self._changed = self._scrolls = self._searched = False

    def restyle(self, styles: Styles) -> None:
        self._styles = styles
        self._shadow.outdate(0, len(self.text.lines))
        self._changed = True

    def saved_now(self) -> None:
        self.saved = self.history.state
        self.history.seal()
        self._changed = True

    def _annotations(self) -> list[dict[str, Any]]:
        first, last = self.window[0], self.window[1] + 2
        selected = (r for r in self.regions if r.end.line >= first and r.start.line < last)
        made = [self._annotation("selection", selected)]
        if self.highlights:
            made += [
                self._annotation("find", search.matches(first, last)) for search in self.searches
            ]
        return made

    def _annotation(self, kind: str, regions: Iterable[Region]) -> dict[str, Any]:
        bytes_before = self.text.bytes_before
        ranges = [
            [r.start.line, bytes_before(r.start), r.end.line, bytes_before(r.end)] for r in regions
        ]
        return {"type": kind, "ranges": ranges, "payloads": None, "n": len(ranges)}

    # Editing -------------------------------------------------------------------------------------

    def edit(self, edit: Edit) -> None:
        """Make an edit, which can be undone."""
        if not edit.replacements:
            return
        before, regions = self.regions, self.regions
        self._outdate_carets()
        inverses = []
        for replacement in reversed(edit.replacements):  # those before it stay where they are
            inverses.append(self._replace(replacement))
            regions = [_moved(region, replacement, edit.keeps) for region in regions]
        self._set(regions)
        self.history.add(edit.kind, inverses, before, self.regions)

    def undo(self) -> None:
        self._restore(self.history.undo)

    def redo(self) -> None:
        self._restore(self.history.redo)

    def kill(self) -> None:
        """Delete to the end of the line, or the line's end, and keep that for `yank`."""
        edit = edits.delete(self.text, self.regions, Movement.END_OF_PARAGRAPH_KILL)
        self._killed = "\n".join(self.text.between(r.start, r.end) for r in edit.replacements)
        self.edit(edit)

    def yank(self) -> None:
        self.edit(edits.paste(self.regions, self._killed))

    def copy(self) -> str | None:
        """What is selected, region by region; None where nothing is."""
        parts = [self.text.between(r.start, r.end) for r in self.regions if not r.empty]
        return "\n".join(parts) if parts else None

    def cut(self) -> str | None:
        copied = self.copy()
        if copied is not None:
            kept = [Replacement(r.start, r.end, "") for r in self.regions if not r.empty]
            self.edit(Edit(kept, Kind.DELETE))
        return copied

    def end_with_newline(self) -> None:
        """As `save_with_newline` wants it."""
        end = self.text.end
        if end.column:
            self.edit(Edit([Replacement(end, end, "\n")], keeps=True))

    def _restore(
        self, step: Callable[[Callable[[Replacement], Replacement]], Selection | None]
    ) -> None:
        self._outdate_carets()
        restored = step(self._replace)
        if restored is not None:
            self._set(restored)

    def _replace(self, replacement: Replacement) -> Replacement:
        """Change the text, and what depends on its lines."""
        inverse = self.text.replace(replacement)
        first, last = replacement.start.line, replacement.landing.line
        gone = replacement.end.line - first + 1
        self._shadow.replace(first, gone, last - first + 1)
        for search in self.searches:
            search.replace(first, gone, self.text.lines[first : last + 1])
        self._searched |= bool(self.searches)
        return inverse

    # Selecting -----------------------------------------------------------------------------------

    def select(self, regions: Iterable[Region]) -> None:
        """Select these; the next edit begins a group of its own."""
        self.history.seal()
        self._outdate_carets()
        self._set(regions)

    def move(self, movement: Movement, *, extend: bool = False) -> None:
        page = max(self.window[1] - self.window[0] - 2, 1)
        self.select(
            moved(self.text, region, movement, page, extend=extend) for region in self.regions
        )

    def select_all(self) -> None:
        self.select([Region(Position(0, 0), self.text.end)])

    def collapse(self) -> None:
        """One caret, where the first one is."""
        self.select([caret(self.regions[0].caret)])

    def add_beside(self, movement: Movement) -> None:
        """A caret above or below each."""
        more = [
            moved(self.text, caret(r.caret, r.goal), movement, 1, extend=False)
            for r in self.regions
        ]
        self.select([*self.regions, *more])

    def split_into_lines(self) -> None:
        """A region in each line of what is selected."""

        def parts(region: Region) -> Iterable[Region]:
            for line in range(region.start.line, region.end.line + 1):
                end = Position(line, len(self.text.lines[line]))
                yield Region(max(region.start, Position(line, 0)), min(region.end, end))

        self.select(part for region in self.regions for part in parts(region))

    def select_at(self, at: Position, granularity: Granularity, *, multi: bool) -> None:
        """Select what is at a place; with `multi` beside the rest, or no longer if it was."""
        self._granularity = granularity
        start, end = self._unit(at, granularity)
        chosen = Region(start, end)
        others = [r for r in self.regions if not r.start <= at <= r.end]
        if multi and granularity == "point" and others and len(others) < len(self.regions):
            self.select(others)
        else:
            self.select([*self.regions, chosen] if multi else [chosen])

    def extend_to(self, at: Position, granularity: Granularity | None = None) -> None:
        """Let the last region reach to a place, by the granularity with which it was begun."""
        *others, last = self.regions
        start, end = self._unit(at, granularity or self._granularity)
        begin, finish = self._unit(last.anchor, granularity or self._granularity)
        region = Region(finish, start) if start < begin else Region(begin, end)
        self.select([*others, region])

    def _unit(self, at: Position, granularity: Granularity) -> tuple[Position, Position]:
        if granularity == "word":
            return word_around(self.text, at)
        if granularity == "line":
            after = Position(at.line + 1, 0)
            return Position(at.line, 0), min(after, self.text.end)
        return at, at

    def _set(self, regions: Iterable[Region]) -> None:
        self.regions = selection(regions)
        self._outdate_carets()
        self._changed = self._scrolls = True

    def _outdate_carets(self) -> None:
        for region in self.regions:
            self._shadow.outdate(region.caret.line)

    # Scrolling -----------------------------------------------------------------------------------

    def scroll(self, window: Lines) -> None:
        first, last = max(window[0], 0), max(window[1], 0)
        self._changed |= self.window != (first, last)
        self.window = first, last

    # Finding -------------------------------------------------------------------------------------

    def find(self, queries: list[FindQuery]) -> None:
        """Search for these, and for nothing else."""
        self.searches = []
        for query in queries:
            self._searches_made += 1
            if query.chars:
                number = self._searches_made if query.id is None else query.id
                self.searches.append(Search(number, query, self.text))
        self._changed = self._searched = True

    def find_selection(self, *, case_sensitive: bool) -> None:
        """Search for what is selected, or for the word at the caret."""
        region = self.regions[-1]
        start, end = (
            (region.start, region.end) if not region.empty else word_around(self.text, region.caret)
        )
        self.find([FindQuery(self.text.between(start, end), case_sensitive)])

    def highlight(self, *, visible: bool) -> None:
        self.highlights = visible
        self._changed = True

    def find_next(self, how: FindNext, *, backward: bool = False) -> None:
        """Select the next match, counted from the last region."""
        found = sorted({match for search in self.searches for match in search.matches()})
        last = self.regions[-1]
        if backward:
            found.reverse()
            limit = last.end if how.allow_same else last.start
            beyond = [match for match in found if match.end <= limit]
        else:
            limit = last.start if how.allow_same else last.end
            beyond = [match for match in found if match.start >= limit and match != last]
        if not beyond and how.wrap_around:
            beyond = found
        if not beyond or how.modify_selection == "none":
            return
        others = {
            "set": [],
            "add": self.regions,
            "add_removing_current": self.regions[:-1],
        }[how.modify_selection]
        self.select([*others, beyond[0]])

    def find_all(self) -> None:
        found = [match for search in self.searches for match in search.matches()]
        if found:
            self.select(found)

    def replace_with(self, chars: str) -> None:
        self.replacement = chars
        status = {"chars": chars, "preserve_case": False}
        self._tell("replace_status", {"view_id": self.name, "status": status})

    def replace_next(self) -> None:
        if self.replacement is None:
            return
        self.find_next(FindNext(wrap_around=True, allow_same=True))
        last = self.regions[-1]
        if not last.empty:
            self.edit(Edit([Replacement(last.start, last.end, self.replacement)]))

    def replace_all(self) -> None:
        if self.replacement is not None:
            found = (match for search in self.searches for match in search.matches())
            self.edit(edits.edit(Replacement(m.start, m.end, self.replacement) for m in found))


def _moved(region: Region, replacement: Replacement, keeps: bool) -> Region:
    return Region(
        replacement.moves(region.anchor, stays=keeps), replacement.moves(region.caret, stays=keeps)
    )
