"""Any edits in any order: the cache is the buffer, and the buffer is what a simple model says."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from xi_bridge.core.commands import COMMANDS

from .front import Front

# A simple model of the commands that matter most: one string, and offsets in it.


State = tuple[str, list[tuple[int, int]]]
"""The text, and anchor and caret of each region."""


class Model:
    def __init__(self) -> None:
        self.text = ""
        self.regions = [(0, 0)]
        self.past: list[tuple[State, State]] = []
        self.future: list[tuple[State, State]] = []
        self.kind = ""

    def offset(self, line: int, column: int) -> int:
        lines = self.text.split("\n")
        line = min(line, len(lines) - 1)
        return sum(len(before) + 1 for before in lines[:line]) + min(column, len(lines[line]))

    def select(self, regions: list[tuple[int, int]]) -> None:
        """Merged where they overlap, or where one of two that touch is empty."""
        made: list[tuple[int, int]] = []
        for anchor, caret in sorted(regions, key=lambda region: (min(region), max(region))):
            if made:
                start, end = min(made[-1]), max(made[-1])
                empty = start == end or anchor == caret
                if min(anchor, caret) < end or (min(anchor, caret) == end and empty):
                    one = (anchor, caret) if start == end else made[-1]
                    both = start, max(end, anchor, caret)
                    made[-1] = both if one[1] >= one[0] else (both[1], both[0])
                    continue
            made.append((anchor, caret))
        self.regions = made

    def edit(self, kind: str, spans: list[tuple[int, int]], text: str) -> None:
        spans = [span for span in spans if span[0] != span[1] or text]
        if not spans:
            return
        before: State = (self.text, self.regions)
        if kind == self.kind:
            before, _ = self.past.pop()
        self.kind, self.future = kind, []
        made, at, regions = "", 0, list(self.regions)
        for start, end in spans:
            made += self.text[at:start] + text
            at = end
        shifted = [(self.shift(a, spans, text), self.shift(c, spans, text)) for a, c in regions]
        self.text = made + self.text[at:]
        self.select(shifted)
        self.past.append((before, (self.text, self.regions)))

    def shift(self, place: int, spans: list[tuple[int, int]], text: str) -> int:
        moved = place
        for start, end in spans:
            if place > end:
                moved += len(text) - (end - start)
            elif place >= start:
                moved += start - place + len(text)
                break
        return moved

    def apply(self, method: str, params: Any) -> None:
        spans = [(min(region), max(region)) for region in self.regions]
        last = len(self.text)
        if method in ("insert", "insert_newline"):
            text = params["chars"] if method == "insert" else "\n"
            self.edit("newline" if text == "\n" else "insert", spans, text)
        elif method == "delete_backward":
            self.edit("delete", [(s - (s == e and s > 0), e) for s, e in spans], "")
        elif method == "delete_forward":
            self.edit("delete", [(s, e + (s == e and e < last)) for s, e in spans], "")
        elif method in ("undo", "redo"):
            undo = method == "undo"
            past, future = (self.past, self.future) if undo else (self.future, self.past)
            if past:
                future.append(past.pop())
                self.text, self.regions = future[-1][0 if undo else 1]
            self.kind = ""
        else:
            self.kind = ""
            if method == "gesture":
                at = self.offset(params["line"], params["col"])
                if "select" in params["ty"]:
                    self.regions = [(at, at)]
                else:
                    self.select([*self.regions[:-1], (self.regions[-1][0], at)])
            elif method == "move_left":
                left = [start if start != end else max(start - 1, 0) for start, end in spans]
                self.select([(at, at) for at in left])
            elif method == "move_right_and_modify_selection":
                self.select([(anchor, min(caret + 1, last)) for anchor, caret in self.regions])


characters = st.text("ab \n", min_size=1, max_size=4)
places = st.tuples(st.integers(0, 4), st.integers(0, 6))


@st.composite
def modelled(draw: st.DrawFn) -> tuple[str, Any]:
    method = draw(
        st.sampled_from(
            (
                "insert",
                "insert",
                "insert_newline",
                "delete_backward",
                "delete_forward",
                "gesture",
                "move_left",
                "move_right_and_modify_selection",
                "undo",
                "redo",
            )
        )
    )
    if method == "insert":
        return method, {"chars": draw(characters)}
    if method == "gesture":
        select = {"select": {"granularity": "point", "multi": False}}
        kind = draw(st.sampled_from((select, {"select_extend": {"granularity": "point"}})))
        line, col = draw(places)
        return method, {"line": line, "col": col, "ty": kind}
    return method, None


@given(st.lists(modelled(), max_size=40))
@settings(max_examples=150, deadline=None)
def test_the_buffer_and_the_cache_are_what_a_simple_model_says(
    calls: list[tuple[str, Any]],
) -> None:
    front, model = Front(), Model()
    override = {"user_override": front.view}
    changes = {"use_tab_stops": False}
    front.peer.notify("modify_user_config", {"domain": override, "changes": changes})
    front.edit("scroll", [0, 1000])
    for method, params in calls:
        front.edit(method, params)
        model.apply(method, params)
        assert front.cache.text == front.contents == model.text
        assert [model.offset(*at) for at in front.cache.carets] == sorted(
            caret for _, caret in model.regions
        )
        assert [[model.offset(a, b), model.offset(c, d)] for a, b, c, d in front.selected] == [
            sorted(region) for region in model.regions
        ]


# All commands, of which this much is known whatever they do.

lines = st.integers(0, 40).flatmap(
    lambda first: st.integers(1, 30).map(lambda n: [first, first + n])
)
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "insert": st.fixed_dictionaries({"chars": st.text('aé€1 \n\t"', max_size=5)}),
    "paste": st.fixed_dictionaries({"chars": st.text("aé\n", max_size=8)}),
    "gesture": st.fixed_dictionaries(
        {
            "line": st.integers(0, 50),
            "col": st.integers(0, 12),
            "ty": st.sampled_from(
                [
                    *(
                        {"select": {"granularity": unit, "multi": multi}}
                        for unit in ("point", "word", "line")
                        for multi in (False, True)
                    ),
                    {"select_extend": {"granularity": "word"}},
                    "drag",
                ]
            ),
        }
    ),
    "click": st.tuples(*[st.integers(0, 9)] * 4),
    "drag": st.tuples(st.integers(0, 9), st.integers(0, 9)),
    "goto_line": st.fixed_dictionaries({"line": st.integers(0, 50)}),
    "scroll": lines,
    "request_lines": lines,
    "resize": st.just({"width": 10, "height": 10}),
    "find": st.fixed_dictionaries(
        {"chars": st.text("a1é", max_size=2), "case_sensitive": st.booleans()}
    ),
    "multi_find": st.just({"queries": [{"chars": "a"}, {"chars": "1"}]}),
    "highlight_find": st.fixed_dictionaries({"visible": st.booleans()}),
    "replace": st.fixed_dictionaries({"chars": st.text("bé\n", max_size=2)}),
    "find_next": st.fixed_dictionaries(
        {
            "wrap_around": st.booleans(),
            "modify_selection": st.sampled_from(("none", "set", "add", "add_removing_current")),
        }
    ),
}
calls = st.sampled_from(sorted(COMMANDS)).flatmap(
    lambda method: st.tuples(st.just(method), PARAMETERS.get(method, st.none()))
)
TEXT = "".join(f"line {n} and é€ {-n}\n" for n in range(30))


@given(st.lists(calls, max_size=30))
@settings(max_examples=150, deadline=None)
def test_whatever_is_done_the_cache_has_the_buffers_lines_and_undo_leads_back(
    calls: list[tuple[str, Any]],
) -> None:
    front = Front()
    front.edit("paste", {"chars": TEXT})
    window = [0, 10]
    for method, params in calls:
        if method == "scroll":
            window = params
        front.edit(method, params)
        assert front.heard("alert") == []
        true = front.contents.splitlines(keepends=True)
        if front.contents.endswith("\n") or not front.contents:
            true.append("")
        shown = front.cache.lines
        assert len(shown) == len(true)
        assert all(
            line is None or line.text == text for line, text in zip(shown, true, strict=True)
        )
        assert front.cache.missing(*window) == []
        first, last = window
        ends = {
            (line, column) for a, b, c, d in front.selected for line, column in ((a, b), (c, d))
        }
        assert all(first > at[0] or at[0] >= last or at in ends for at in front.cache.carets)
    for _ in range(60):
        front.edit("undo")
    assert front.contents == ""
    assert front.log == [line for line in front.log if "wide" in line]
