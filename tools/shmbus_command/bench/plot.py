"""Plots: percentile curves and bars, in the terminal and as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""By name: percentiles (0 to 100) and seconds."""
Bars = Sequence[tuple[str, float]]

_MARKS = "o+x*"
_TICKS = (0.0, 90.0, 99.0, 99.9, 99.99)
_INK, _GRID, _COLOURS = "#333", "#ddd", ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def _nines(percentile: float) -> float:
    """How many nines: 90 is 1, 99 is 2."""
    return min(-math.log10(max(1 - percentile / 100, 1e-6)), 5.0)


def _limits(curves: Curves) -> tuple[int, int]:
    """The powers of ten around all values."""
    values = [value for curve in curves.values() for _, value in curve if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _time(power: int) -> str:
    unit = {-9: "ns", -6: "µs", -3: "ms", 0: "s"}
    base = power - power % 3
    return f"{10 ** (power - base)} {unit.get(base, f'e{base} s')}"


def curves(curves: Curves, width: int = 64, height: int = 12) -> list[str]:
    """Latency by percentile, both logarithmic, as lines of text."""
    low, high = _limits(curves)
    grid = [[" "] * width for _ in range(height)]
    for mark, curve in zip(_MARKS, curves.values(), strict=False):
        for percentile, value in curve:
            x = round(_nines(percentile) / 4 * (width - 1))
            y = round((math.log10(max(value, 10.0**low)) - low) / (high - low) * (height - 1))
            if x < width:
                grid[height - 1 - y][x] = mark
    labels = {
        height - 1 - round((power - low) / (high - low) * (height - 1)): _time(power)
        for power in range(low, high + 1)
    }
    lines = [f"{labels.get(n, ''):>7} |{''.join(row).rstrip()}" for n, row in enumerate(grid)]
    axis = [" "] * (width + 8)
    for tick in _TICKS:
        for offset, letter in enumerate(f"{tick:g}"):
            axis[round(_nines(tick) / 4 * (width - 1)) + offset] = letter
    lines.append(" " * 8 + "+" + "-" * width)
    lines.append(" " * 9 + "".join(axis).rstrip() + " %")
    names = zip(_MARKS, curves, strict=False)
    lines.append(" " * 9 + "   ".join(f"{mark} {name}" for mark, name in names))
    return lines


def bars(bars: Bars, width: int = 50) -> list[str]:
    """Values as bars, as lines of text."""
    most = max(value for _, value in bars) or 1.0
    left = max(len(name) for name, _ in bars)
    return [
        f"{name:>{left}} {'█' * round(value / most * width)} {value:,.0f}" for name, value in bars
    ]


def svg(curves: Curves, bars: Bars, title: str) -> str:
    """Both as one SVG document."""
    low, high = _limits(curves)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 400" font-family="sans-serif" '
        f'font-size="12" fill="{_INK}">',
        '<rect width="960" height="400" fill="white"/>',
        f'<text x="20" y="24" font-size="15">shmbus bench: {escape(title)}</text>',
    ]

    def x(percentile: float) -> float:
        return 70 + _nines(percentile) / 4 * 400

    def y(value: float) -> float:
        return 340 - (math.log10(max(value, 10.0**low)) - low) / (high - low) * 270

    def line(x1: float, y1: float, x2: float, y2: float) -> str:
        return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{_GRID}"/>'

    def text(at: float, up: float, what: str, anchor: str = "middle") -> str:
        return f'<text x="{at:.1f}" y="{up:.1f}" text-anchor="{anchor}">{escape(what)}</text>'

    parts.append(text(70, 56, "latency by percentile", "start"))
    for power in range(low, high + 1):
        parts += [line(70, y(10.0**power), 470, y(10.0**power))]
        parts += [text(64, y(10.0**power) + 4, _time(power), "end")]
    for tick in _TICKS:
        parts += [line(x(tick), 70, x(tick), 340), text(x(tick), 358, f"{tick:g} %")]
    for colour, (number, (name, curve)) in zip(_COLOURS, enumerate(curves.items()), strict=False):
        inside = [(p, v) for p, v in curve if _nines(p) <= 4]
        points = " ".join(f"{x(p):.1f},{y(v):.1f}" for p, v in inside)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<g fill="{colour}">{text(80, 86 + 16 * number, name, "start")}</g>')
    parts.append(text(560, 56, "messages/s by size of payload", "start"))
    most = max(value for _, value in bars) or 1.0
    for number, (name, value) in enumerate(bars):
        top = 76 + number * 270 / len(bars)
        parts.append(text(610, top + 18, name, "end"))
        parts.append(
            f'<rect x="618" y="{top:.1f}" width="{value / most * 240:.1f}" height="26" '
            f'fill="{_COLOURS[0]}"/>'
        )
        parts.append(text(624 + value / most * 240, top + 18, f"{value:,.0f}", "start"))
    return "\n".join([*parts, "</svg>\n"])
