"""What the inner methods of `edit` do to a view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from . import edits
from .movement import Movement
from .protocol import (
    CaseSensitive,
    Chars,
    FindNext,
    FindQuery,
    Gesture,
    GotoLine,
    Granularity,
    Lines,
    Nothing,
    Queries,
    Replace,
    Select,
    Size,
    Visible,
)
from .selection import caret
from .text import Position
from .view import View


class Command(NamedTuple):
    """What a method does with a view, and what it takes for that."""

    do: Callable[[View, Any], object]
    takes: Any = Nothing


MOVEMENTS = {
    "move_up": Movement.UP,
    "move_down": Movement.DOWN,
    "move_left": Movement.LEFT,
    "move_right": Movement.RIGHT,
    "move_word_left": Movement.LEFT_WORD,
    "move_word_right": Movement.RIGHT_WORD,
    "move_to_beginning_of_paragraph": Movement.START_OF_PARAGRAPH,
    "move_to_end_of_paragraph": Movement.END_OF_PARAGRAPH,
    "move_to_left_end_of_line": Movement.LEFT_OF_LINE,
    "move_to_right_end_of_line": Movement.RIGHT_OF_LINE,
    "move_to_beginning_of_document": Movement.START_OF_DOCUMENT,
    "move_to_end_of_document": Movement.END_OF_DOCUMENT,
}
PAGES = {"page_up": Movement.UP_PAGE, "page_down": Movement.DOWN_PAGE}
DELETIONS = {
    "delete_forward": Movement.RIGHT,
    "delete_word_forward": Movement.RIGHT_WORD,
    "delete_word_backward": Movement.LEFT_WORD,
    "delete_to_beginning_of_line": Movement.LEFT_OF_LINE,
}
TRANSFORMATIONS: Mapping[str, Callable[[str], str]] = {
    "uppercase": str.upper,
    "lowercase": str.lower,
    "capitalize": str.title,
}
WITHOUT_EFFECT = (
    "reindent",
    "request_hover",
    "debug_rewrap",
    "debug_wrap_width",
    "debug_print_spans",
    "debug_toggle_comment",
)
"""Understood, and nothing done: this stand-in neither wraps nor knows languages."""


def _move(movement: Movement, extend: bool) -> Command:
    return Command(lambda view, _: view.move(movement, extend=extend))


def _delete(movement: Movement) -> Command:
    return Command(lambda view, _: view.edit(edits.delete(view.text, view.regions, movement)))


def _transform(change: Callable[[str], str]) -> Command:
    return Command(lambda view, _: view.edit(edits.transform(view.text, view.regions, change)))


def _number(by: int) -> Command:
    return Command(lambda view, _: view.edit(edits.change_number(view.text, view.regions, by)))


def _gesture(view: View, gesture: Gesture) -> None:
    at, kind = view.text.nearest(gesture.line, gesture.col), gesture.ty
    if isinstance(kind, str):
        _old_gesture(view, at, kind)
    elif kind.select is not None:
        view.select_at(at, kind.select.granularity, multi=kind.select.multi)
    elif kind.select_extend is not None:
        view.extend_to(at, kind.select_extend.granularity)


_OLD = {
    "point_select": Select("point", False),
    "toggle_sel": Select("point", True),
    "word_select": Select("word", False),
    "multi_word_select": Select("word", True),
    "line_select": Select("line", False),
    "multi_line_select": Select("line", True),
}


def _old_gesture(view: View, at: Position, kind: str) -> None:
    """Those without a granularity, `drag` and names that older front-ends use."""
    if kind == "drag":
        view.extend_to(at)
    elif kind == "range_select":
        view.extend_to(at, "point")
    elif kind in _OLD:
        view.select_at(at, _OLD[kind].granularity, multi=_OLD[kind].multi)
    else:
        raise msgspec.ValidationError(f"there is no gesture {kind!r}")


SHIFT = 2
_CLICKS: dict[int, Granularity] = {2: "word", 3: "line"}


def _click(view: View, click: list[int]) -> None:
    """Line, column, flags, and how many clicks."""
    line, column, flags, clicks = [*click, *(0, 0, 0, 1)[len(click) :]][:4]
    at = view.text.nearest(line, column)
    if flags & SHIFT:
        view.extend_to(at, "point")
    else:
        view.select_at(at, _CLICKS.get(clicks, "point"), multi=False)


def _drag(view: View, drag: list[int]) -> None:
    view.extend_to(view.text.nearest(*(*drag, 0, 0)[:2]))


def _insert(view: View, chars: str) -> None:
    view.edit(edits.insert(view.regions, chars, view.config))


COMMANDS: dict[str, Command] = {
    "insert": Command(lambda view, params: _insert(view, params.chars), Chars),
    "insert_newline": Command(lambda view, _: _insert(view, "\n")),
    "insert_tab": Command(
        lambda view, _: view.edit(edits.insert_tab(view.text, view.regions, view.config))
    ),
    "paste": Command(
        lambda view, params: view.edit(edits.paste(view.regions, params.chars)), Chars
    ),
    "yank": Command(lambda view, _: view.yank()),
    "delete_backward": Command(
        lambda view, _: view.edit(edits.delete_backward(view.text, view.regions, view.config))
    ),
    "delete_to_end_of_paragraph": Command(lambda view, _: view.kill()),
    "duplicate_line": Command(
        lambda view, _: view.edit(edits.duplicate_line(view.regions, view.text))
    ),
    "transpose": Command(lambda view, _: view.edit(edits.transpose(view.text, view.regions))),
    "indent": Command(
        lambda view, _: view.edit(edits.indent(view.text, view.regions, view.config))
    ),
    "outdent": Command(
        lambda view, _: view.edit(edits.outdent(view.text, view.regions, view.config))
    ),
    "increase_number": _number(1),
    "decrease_number": _number(-1),
    "undo": Command(lambda view, _: view.undo()),
    "redo": Command(lambda view, _: view.redo()),
    "select_all": Command(lambda view, _: view.select_all()),
    "collapse_selections": Command(lambda view, _: view.collapse()),
    "add_selection_above": Command(lambda view, _: view.add_beside(Movement.UP)),
    "add_selection_below": Command(lambda view, _: view.add_beside(Movement.DOWN)),
    "selection_into_lines": Command(lambda view, _: view.split_into_lines()),
    "gesture": Command(_gesture, Gesture),
    "click": Command(_click, list[int]),
    "drag": Command(_drag, list[int]),
    "goto_line": Command(
        lambda view, params: view.select([caret(view.text.nearest(params.line, 0))]), GotoLine
    ),
    "scroll": Command(lambda view, lines: view.scroll(lines), Lines),
    "resize": Command(lambda view, size: setattr(view, "size", size), Size),
    "request_lines": Command(lambda view, lines: view.show(lines), Lines),
    "find": Command(lambda view, query: view.find([query]), FindQuery),
    "multi_find": Command(lambda view, params: view.find(params.queries), Queries),
    "find_next": Command(lambda view, how: view.find_next(how), FindNext),
    "find_previous": Command(lambda view, how: view.find_next(how, backward=True), FindNext),
    "find_all": Command(lambda view, _: view.find_all()),
    "highlight_find": Command(lambda view, on: view.highlight(visible=on.visible), Visible),
    "selection_for_find": Command(
        lambda view, params: view.find_selection(case_sensitive=params.case_sensitive),
        CaseSensitive,
    ),
    "replace": Command(lambda view, params: view.replace_with(params.chars), Replace),
    "selection_for_replace": Command(lambda view, _: view.replace_with(view.copy() or "")),
    "replace_next": Command(lambda view, _: view.replace_next()),
    "replace_all": Command(lambda view, _: view.replace_all()),
    **{name: _move(movement, False) for name, movement in MOVEMENTS.items()},
    **{
        f"{name}_and_modify_selection": _move(movement, True)
        for name, movement in MOVEMENTS.items()
    },
    **{f"scroll_{name}": _move(movement, False) for name, movement in PAGES.items()},
    **{f"{name}_and_modify_selection": _move(movement, True) for name, movement in PAGES.items()},
    "move_backward": _move(Movement.LEFT, False),
    "move_forward": _move(Movement.RIGHT, False),
    **{name: _delete(movement) for name, movement in DELETIONS.items()},
    **{name: _transform(change) for name, change in TRANSFORMATIONS.items()},
    **{name: Command(lambda view, _: None) for name in WITHOUT_EFFECT},
}
REQUESTS: dict[str, Command] = {
    "copy": Command(lambda view, _: view.copy()),
    "cut": Command(lambda view, _: view.cut()),
}
