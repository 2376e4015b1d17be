"""A front-end's cache: updates make its lines, and one that does not fit is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xi_bridge.lines import CachedLine, LineCache, OutOfStep


def update(*ops: dict[str, Any]) -> dict[str, Any]:
    return {"ops": list(ops), "pristine": False, "annotations": []}


def ins(*texts: str) -> dict[str, Any]:
    return {"op": "ins", "n": len(texts), "lines": [{"text": text} for text in texts]}


def cache_of(*texts: str) -> LineCache:
    cache = LineCache()
    cache.apply(update(ins(*texts)))
    return cache


def test_what_changed_replaces_the_lines_between_those_that_stay() -> None:
    cache = cache_of("a\n", "b\n", "c\n", "d")
    change = cache.apply(
        update(
            {"op": "copy", "n": 1, "ln": 1},
            ins("B\n", "b\n"),
            {"op": "skip", "n": 1},
            {"op": "copy", "n": 2, "ln": 4},
        )
    )
    assert cache.text == "a\nB\nb\nc\nd"
    assert change == (1, 1, 2)


def test_an_update_of_lines_moves_carets_and_leaves_text_and_styles() -> None:
    cache = LineCache()
    line = {"text": "ab\n", "cursor": [1], "styles": [0, 1, 2]}
    cache.apply(update({"op": "ins", "n": 2, "lines": [line, {"text": "c"}]}))
    assert cache.carets == [(0, 1)]
    lines = [{"cursor": []}, {"cursor": [0, 1]}]
    cache.apply(update({"op": "update", "n": 2, "lines": lines}))
    assert cache.lines == [CachedLine("ab\n", (), (0, 1, 2)), CachedLine("c", (0, 1), ())]
    assert cache.carets == [(1, 0), (1, 1)]


def test_lines_that_the_core_did_not_send_are_named() -> None:
    cache = LineCache()
    cache.apply(
        update(ins("a\n"), {"op": "invalidate", "n": 3}, ins("b\n"), {"op": "invalidate", "n": 1})
    )
    assert cache.missing() == [(1, 4), (5, 6)]
    assert cache.missing(2, 5) == [(2, 4)]
    with pytest.raises(LookupError, match="missing"):
        _ = cache.text


def test_selections_have_the_caret_at_the_end_that_has_one_in_its_line() -> None:
    cache = LineCache()
    lines = [{"text": "abc\n", "cursor": [1]}, {"text": "def", "cursor": [3]}]
    ranges = [[0, 1, 1, 0], [1, 2, 1, 3]]
    annotations = [{"type": "find", "ranges": []}, {"type": "selection", "ranges": ranges}]
    cache.apply(update({"op": "ins", "n": 2, "lines": lines}) | {"annotations": annotations})
    assert cache.selections == [((1, 0), (0, 1)), ((1, 2), (1, 3))]
    cache.annotations = []
    assert cache.selections == [((0, 1), (0, 1)), ((1, 3), (1, 3))]


@pytest.mark.parametrize(
    "op",
    [
        {"op": "copy", "n": 3},
        {"op": "skip", "n": 3},
        {"op": "update", "n": 3, "lines": [{}, {}, {}]},
        {"op": "ins", "n": 2, "lines": [{"text": "a"}]},
        {"op": "ins", "n": 1, "lines": [{"cursor": [0]}]},
        {"op": "update", "n": 2, "lines": [{}]},
    ],
)
def test_an_update_for_other_lines_is_refused_and_changes_nothing(op: dict[str, Any]) -> None:
    cache = cache_of("a\n", "b")
    with pytest.raises(OutOfStep):
        cache.apply(update(op))
    assert cache.text == "a\nb"


@pytest.mark.parametrize("update", [5, {}, {"ops": [{"op": "copy", "n": 0}], "pristine": True}])
def test_what_is_no_update_is_refused(update: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        LineCache().apply(update)


def naive(old: list[CachedLine | None], ops: list[dict[str, Any]]) -> list[CachedLine | None]:
    """The protocol's own words, line by line."""
    at, new = 0, list[CachedLine | None]()
    for op in ops:
        for number in range(op["n"]):
            if op["op"] == "ins":
                new.append(CachedLine(op["lines"][number]["text"]))
            elif op["op"] == "invalidate":
                new.append(None)
            else:
                line = old[at]
                if op["op"] == "update" and line is not None:
                    line = line._replace(cursor=tuple(op["lines"][number]["cursor"]))
                if op["op"] != "skip":
                    new.append(line)
                at += 1
    return new


@st.composite
def programs(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Updates one after the other, each of which fits what those before have made."""
    made, programs = 0, []
    for number in range(draw(st.integers(1, 6))):
        ops: list[dict[str, Any]] = []
        left, made = made, 0
        for kind in draw(
            st.lists(st.sampled_from(("copy", "skip", "ins", "update", "invalidate")))
        ):
            free = kind in ("ins", "invalidate")
            most = 4 if free else min(4, left)
            if not most:
                continue
            n = draw(st.integers(1, most))
            op: dict[str, Any] = {"op": kind, "n": n}
            if kind == "ins":
                op["lines"] = [{"text": f"{number}.{len(ops)}.{line}\n"} for line in range(n)]
            if kind == "update":
                op["lines"] = [{"cursor": [number]} for _ in range(n)]
            left -= 0 if free else n
            made += 0 if kind == "skip" else n
            ops.append(op)
        programs.append(ops)
    return programs


@given(programs())
def test_any_updates_make_what_the_protocol_says(programs: list[list[dict[str, Any]]]) -> None:
    cache, expected = LineCache(), list[CachedLine | None]()
    for ops in programs:
        before = len(expected)
        expected = naive(expected, ops)
        first, gone, come = cache.apply(update(*ops))
        assert cache.lines == expected
        assert before - gone == len(expected) - come >= first
        another = LineCache()
        another.apply(msgspec.json.decode(msgspec.json.encode(cache.whole())))
        assert another.lines == expected
