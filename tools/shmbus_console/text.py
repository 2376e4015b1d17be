"""Tables and times for people."""

from __future__ import annotations


def columns(heads: list[str], rows: list[list[str]], indent: str = "") -> list[str]:
    """Lines of a table without lines: numbers to the right, nothing cut off."""
    table = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = [
        i > 0 and all(row[i][:1].isdigit() or row[i] in ("", "-") for row in rows)
        for i in range(len(heads))
    ]

    def line(row: list[str]) -> str:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        return indent + "  ".join(cells).rstrip()

    return [line(row) for row in table]


def one_line(text: str) -> str:
    """Text that others wrote, as it may stand in a line for people: what would end the line, or
    make a terminal do something else than show it, is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def measured(seconds: float, error: float | None) -> str:
    """A time for people, and by how much it may be wrong, in the same unit: ``3.1 ms +-0.2``. None:
    it is exact."""
    if error is None:
        return duration(seconds)
    size = abs(seconds)
    unit = 1e-6 if size < 1e-3 else 1e-3 if size < 1 else 1.0
    sign = "-" if seconds < 0 else ""
    about = error / unit
    return f"{sign}{duration(size)} +-{f'{about:.0f}' if about >= 10 else f'{about:.2g}'}"


def duration(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "-"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
