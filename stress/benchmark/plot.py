"""Small SVGs: what batching buys, rate as bars and the sender's CPU per message as a line; and
lines over scales that are logarithmic."""

from __future__ import annotations

import math
from itertools import pairwise

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 340, 60, 60, 40, 50


def _nice_top(value: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is no less."""
    power = 10.0 ** (len(str(int(value))) - 1)
    return next(power * n for n in (1, 2, 5, 10) if power * n >= value)


def _text(x: float, at: float, words: str, anchor: str = "middle", colour: str = "#444") -> str:
    return f'<text x="{x:.0f}" y="{at:.0f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def _opening(width: int, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]


def batching(medians: dict[str, dict[str, float]]) -> str:
    """``medians`` by variant, each with ``rate`` (messages/s) and ``cpu`` (µs per message)."""
    labels = [variant.removeprefix("batch of ").replace("no batch", "none") for variant in medians]
    rates = [sample["rate"] / 1e6 for sample in medians.values()]
    cpus = [sample["cpu"] * 1e3 for sample in medians.values()]
    rate_top, cpu_top = _nice_top(max(rates)), _nice_top(max(cpus))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = width / len(labels)

    def y(value: float, top: float) -> float:
        return TOP + height * (1 - value / top)

    parts = [
        *_opening(WIDTH, HEIGHT),
        _text(LEFT, 20, "million messages/s", "start", "#2a6f97"),
        _text(WIDTH - RIGHT, 20, "sender's CPU per message, ns", "end", "#c1440e"),
        _text(LEFT + width / 2, HEIGHT - 10, "messages a batch"),
    ]
    for quarter in range(5):
        at = TOP + height * (1 - quarter / 4)
        parts.append(f'<path d="M{LEFT} {at:.1f}h{width}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{rate_top * quarter / 4:g}", "end", "#2a6f97"))
        parts.append(
            _text(WIDTH - RIGHT + 8, at + 4, f"{cpu_top * quarter / 4:g}", "start", "#c1440e")
        )
    points = []
    for index, label in enumerate(labels):
        x = LEFT + step * index
        at = y(rates[index], rate_top)
        parts.append(
            f'<rect x="{x + step * 0.15:.1f}" y="{at:.1f}" width="{step * 0.7:.1f}" '
            f'height="{TOP + height - at:.1f}" fill="#89c2d9"/>'
        )
        parts.append(_text(x + step / 2, TOP + height + 18, label))
        points.append(f"{x + step / 2:.1f},{y(cpus[index], cpu_top):.1f}")
    parts.append(
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#c1440e" stroke-width="2"/>'
    )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


Lines = dict[str, list[tuple[float, float]]]
COLOURS = ("#89c2d9", "#2a6f97", "#c1440e")
PANEL_WIDTH, PANEL_HEIGHT = 380, 250
LETTER = 7.0
"""The width of a letter, at most on average."""


def logarithmic(below: str, panels: dict[str, Lines]) -> str:
    """Panels, two in a row, each with its title and a few lines, whose names stand in the first;
    `below`: what the horizontal axes show."""
    rows = math.ceil(len(panels) / 2)
    parts = _opening(2 * PANEL_WIDTH, rows * PANEL_HEIGHT + 10)
    for number, (title, lines) in enumerate(panels.items()):
        left, top = number % 2 * PANEL_WIDTH, number // 2 * PANEL_HEIGHT
        parts += _panel(left + 50, top + 40, title, below, lines, named=number == 0)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _panel(left: int, top: int, title: str, below: str, lines: Lines, *, named: bool) -> list[str]:
    width, height = PANEL_WIDTH - 80, PANEL_HEIGHT - 90
    points = [point for line in lines.values() for point in line]
    columns = sorted({x for x, _ in points})
    first, last = math.log10(columns[0]), math.log10(columns[-1])
    least = math.floor(math.log10(min(y for _, y in points)))
    most = max(least + 1, math.ceil(math.log10(max(y for _, y in points))))

    def across(x: float) -> float:
        return left + width * (math.log10(x) - first) / ((last - first) or 1)

    def up(y: float) -> float:
        return top + height * (most - math.log10(y)) / (most - least)

    parts = [_text(left, top - 14, title, "start", "#222")]
    for power in range(least, most + 1):
        at = up(10.0**power)
        parts.append(f'<path d="M{left} {at:.1f}h{width}" stroke="#ddd"/>')
        parts.append(_text(left - 6, at + 4, f"{10.0**power:,g}", "end"))
    parts += [_text(across(x), top + height + 18, f"{x:g}") for x in columns]
    parts.append(_text(left + width / 2, top + height + 36, below))
    for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
        path = [(across(x), up(y)) for x, y in line]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if named:
            parts += _named(name, colour, path)
    return parts


def _named(name: str, colour: str, path: list[tuple[float, float]]) -> list[str]:
    """The name of a line, above all of the line that it stands over, and on white."""
    left, width = path[0][0] + 6, LETTER * len(name)
    under = [_height(path, left), _height(path, left + width)]
    under += [y for x, y in path if left < x < left + width]
    at = min(under) - 8
    return [
        f'<rect x="{left - 2:.0f}" y="{at - 11:.0f}" width="{width + 4:.0f}" height="14" '
        'fill="#fff"/>',
        _text(left, at, name, "start", colour),
    ]


def _height(path: list[tuple[float, float]], x: float) -> float:
    """Of a line at x."""
    for (before, low), (after, high) in pairwise(path):
        if x <= after:
            return low + (high - low) * (x - before) / (after - before)
    return path[-1][1]
