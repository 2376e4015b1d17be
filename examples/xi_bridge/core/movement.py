"""Where a caret goes."""

from __future__ import annotations

from enum import Enum, auto

from .selection import Region
from .text import Position, Text


class Movement(Enum):
    LEFT = auto()
    RIGHT = auto()
    UP = auto()
    DOWN = auto()
    UP_PAGE = auto()
    DOWN_PAGE = auto()
    LEFT_WORD = auto()
    RIGHT_WORD = auto()
    LEFT_OF_LINE = auto()
    RIGHT_OF_LINE = auto()
    START_OF_PARAGRAPH = auto()
    END_OF_PARAGRAPH = auto()
    END_OF_PARAGRAPH_KILL = auto()
    START_OF_DOCUMENT = auto()
    END_OF_DOCUMENT = auto()


def moved(text: Text, region: Region, movement: Movement, page: int, *, extend: bool) -> Region:
    """The region after a movement; with `extend` its anchor stays. `page` is in lines."""
    if not extend and not region.empty and movement in (Movement.LEFT, Movement.RIGHT):
        end = region.start if movement is Movement.LEFT else region.end
        return Region(end, end)
    lines = _VERTICAL.get(movement)
    if lines is not None:
        up_or_down = lines * (page if movement in _PAGES else 1)
        start = region.caret if extend else (region.start if lines < 0 else region.end)
        goal = start.column if region.goal is None else region.goal
        caret = _vertical(text, start, up_or_down, goal)
        return Region(region.anchor if extend else caret, caret, goal)
    caret = horizontal(text, region.caret, movement)
    return Region(region.anchor if extend else caret, caret)


_VERTICAL = {
    Movement.UP: -1,
    Movement.DOWN: 1,
    Movement.UP_PAGE: -1,
    Movement.DOWN_PAGE: 1,
}
_PAGES = (Movement.UP_PAGE, Movement.DOWN_PAGE)


def _vertical(text: Text, start: Position, lines: int, goal: int) -> Position:
    line = start.line + lines
    if line < 0:
        return Position(0, 0)
    if line >= len(text.lines):
        return text.end
    return Position(line, min(goal, len(text.lines[line])))


def horizontal(text: Text, at: Position, movement: Movement) -> Position:
    """Where a movement within the text's order leads."""
    content = text.lines[at.line]
    match movement:
        case Movement.LEFT:
            return at._replace(column=at.column - 1) if at.column else _line_before(text, at)
        case Movement.RIGHT:
            if at.column < len(content):
                return at._replace(column=at.column + 1)
            return _line_after(text, at)
        case Movement.LEFT_WORD:
            return _left_word(content, at) if at.column else _line_before(text, at)
        case Movement.RIGHT_WORD:
            return _right_word(content, at) if at.column < len(content) else _line_after(text, at)
        case Movement.LEFT_OF_LINE:
            return at._replace(column=0)
        case Movement.RIGHT_OF_LINE | Movement.END_OF_PARAGRAPH:
            return at._replace(column=len(content))
        case Movement.START_OF_PARAGRAPH:
            return Position(at.line if at.column else max(at.line - 1, 0), 0)
        case Movement.END_OF_PARAGRAPH_KILL:
            if at.column < len(content):
                return at._replace(column=len(content))
            return _line_after(text, at)
        case Movement.START_OF_DOCUMENT:
            return Position(0, 0)
        case Movement.END_OF_DOCUMENT:
            return text.end
        case _:
            raise ValueError(f"{movement} leads to another line")


def word_around(text: Text, at: Position) -> tuple[Position, Position]:
    """The word in which a position lies, or the one character there that is in none."""
    content = text.lines[at.line]
    start = end = at.column
    while start and _in_word(content[start - 1]):
        start -= 1
    while end < len(content) and _in_word(content[end]):
        end += 1
    if start == end < len(content):
        end += 1
    return at._replace(column=start), at._replace(column=end)


def _line_before(text: Text, at: Position) -> Position:
    return Position(at.line - 1, len(text.lines[at.line - 1])) if at.line else at


def _line_after(text: Text, at: Position) -> Position:
    return Position(at.line + 1, 0) if at.line + 1 < len(text.lines) else at


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _left_word(content: str, at: Position) -> Position:
    column = at.column
    while column and not _in_word(content[column - 1]):
        column -= 1
    while column and _in_word(content[column - 1]):
        column -= 1
    return at._replace(column=column)


def _right_word(content: str, at: Position) -> Position:
    column = at.column
    while column < len(content) and not _in_word(content[column]):
        column += 1
    while column < len(content) and _in_word(content[column]):
        column += 1
    return at._replace(column=column)
