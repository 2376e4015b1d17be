"""Commands that change text: what each replaces, given the text, the selection and the settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .movement import Movement, horizontal
from .selection import Region, Selection
from .text import Position, Replacement, Text
from .undo import Kind

Config = dict[str, Any]


class Edit(NamedTuple):
    """Replacements in order and apart, all in positions of the text before."""

    replacements: list[Replacement]
    kind: Kind = Kind.OTHER
    keeps: bool = False
    """What was selected stays so; otherwise a caret is after each replacement."""


def edit(replacements: Iterable[Replacement], kind: Kind = Kind.OTHER, keeps: bool = False) -> Edit:
    """These replacements; those that overlap are made one."""
    apart: list[Replacement] = []
    for replacement in sorted(replacements):
        if apart and replacement.start < apart[-1].end:
            before = apart[-1]
            text = (
                before.text if before.text == replacement.text else before.text + replacement.text
            )
            apart[-1] = Replacement(before.start, max(before.end, replacement.end), text)
        elif not apart or replacement != apart[-1]:
            apart.append(replacement)
    return Edit(apart, kind, keeps)


# Inserting ---------------------------------------------------------------------------------------


def insert(selection: Selection, chars: str, config: Config) -> Edit:
    """At each caret, in place of what is selected; a bracket or quote is put around that."""
    pair = next((pair for pair in config["surrounding_pairs"] if pair[0] == chars), None)
    if pair is not None and not any(region.empty for region in selection):
        ends = (
            (Replacement(r.start, r.start, pair[0]), Replacement(r.end, r.end, pair[1]))
            for r in selection
        )
        return edit(replacement for both in ends for replacement in both)
    kind = Kind.NEWLINE if chars == "\n" else Kind.INSERT
    return edit((_in_place(region, chars) for region in selection), kind)


def paste(selection: Selection, chars: str) -> Edit:
    """At each caret; a line at each where there are as many."""
    lines = chars.removesuffix("\n").split("\n")
    if len(selection) == 1 or len(lines) != len(selection):
        lines = [chars] * len(selection)
    return edit(map(_in_place, selection, lines))


def insert_tab(text: Text, selection: Selection, config: Config) -> Edit:
    """Up to the next tab stop; lines that are selected are indented."""
    if any(region.start.line != region.end.line for region in selection):
        return indent(text, selection, config)
    size, spaces = config["tab_size"], config["translate_tabs_to_spaces"]

    def tab(region: Region) -> str:
        return " " * (size - region.start.column % size) if spaces else "\t"

    return edit((_in_place(region, tab(region)) for region in selection), Kind.INSERT)


def duplicate_line(selection: Selection, text: Text) -> Edit:
    starts = {Position(region.caret.line, 0) for region in selection}
    return edit(Replacement(start, start, text.lines[start.line] + "\n") for start in starts)


# Deleting ----------------------------------------------------------------------------------------


def delete(text: Text, selection: Selection, movement: Movement) -> Edit:
    """What is selected, or what lies between each caret and where the movement leads."""

    def gone(region: Region) -> Replacement:
        if region.empty:
            other = horizontal(text, region.caret, movement)
            region = Region(region.caret, other)
        return _in_place(region, "")

    return edit(filter(_changes, map(gone, selection)), Kind.DELETE)


def delete_backward(text: Text, selection: Selection, config: Config) -> Edit:
    """What is selected, or the character before each caret, or spaces back to a tab stop."""
    size = config["tab_size"]
    stops = config["use_tab_stops"] and config["translate_tabs_to_spaces"]

    def gone(region: Region) -> Replacement:
        line, column = region.caret
        if region.empty and column and stops and not text.lines[line][:column].strip(" "):
            region = Region(region.caret, Position(line, (column - 1) // size * size))
        if region.empty:
            region = Region(region.caret, horizontal(text, region.caret, Movement.LEFT))
        return _in_place(region, "")

    return edit(filter(_changes, map(gone, selection)), Kind.DELETE)


# Changing what is there --------------------------------------------------------------------------


def transpose(text: Text, selection: Selection) -> Edit:
    """The characters before and after each caret; at the end of a line the two before it."""

    def swapped(region: Region) -> Iterable[Replacement]:
        line, column = region.caret
        middle = min(column, len(text.lines[line]) - 1)
        if region.empty and middle > 0:
            start, end = Position(line, middle - 1), Position(line, middle + 1)
            yield Replacement(start, end, text.between(start, end)[::-1])

    return edit(replacement for region in selection for replacement in swapped(region))


def transform(text: Text, selection: Selection, change: Callable[[str], str]) -> Edit:
    """What is selected, changed."""
    return edit(
        (
            Replacement(region.start, region.end, change(text.between(region.start, region.end)))
            for region in selection
            if not region.empty
        ),
        keeps=True,
    )


def change_number(text: Text, selection: Selection, by: int) -> Edit:
    """The number in which each region begins."""

    def changed(region: Region) -> Iterable[Replacement]:
        line, column = region.start
        for found in re.finditer(r"-?\d+", text.lines[line]):
            if found.start() <= column <= found.end():
                start, end = Position(line, found.start()), Position(line, found.end())
                yield Replacement(start, end, str(int(found[0]) + by))
                return

    return edit(
        (replacement for region in selection for replacement in changed(region)), keeps=True
    )


def indent(text: Text, selection: Selection, config: Config) -> Edit:
    tab = " " * config["tab_size"] if config["translate_tabs_to_spaces"] else "\t"
    starts = (Position(line, 0) for line in _lines(selection) if text.lines[line])
    return edit((Replacement(start, start, tab) for start in starts), keeps=True)


def outdent(text: Text, selection: Selection, config: Config) -> Edit:
    margin = re.compile(rf"\t| {{1,{config['tab_size']}}}")

    def gone(line: int) -> Iterable[Replacement]:
        if found := margin.match(text.lines[line]):
            yield Replacement(Position(line, 0), Position(line, found.end()), "")

    return edit((gone_ for line in _lines(selection) for gone_ in gone(line)), keeps=True)


def _in_place(region: Region, text: str) -> Replacement:
    return Replacement(region.start, region.end, text)


def _changes(replacement: Replacement) -> bool:
    return replacement.start != replacement.end or bool(replacement.text)


def _lines(selection: Selection) -> list[int]:
    """The lines that are selected, in whole or in part."""
    return sorted(
        {n for region in selection for n in range(region.start.line, region.end.line + 1)}
    )
