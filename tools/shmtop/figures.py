"""Numbers, sizes, times and bars as a terminal shows them: short."""

from __future__ import annotations

import time
from collections.abc import Sequence

Pieces = tuple[tuple[str, str], ...]
"""A short text: pieces, each with its style, as `rich.text.Text.assemble` takes them."""

HALF, MUCH = 0.5, 0.75
"""Parts of a ring from which on its bar changes colour."""


def number(value: float) -> str:
    """At most four characters: 999, 1.2k, 34k, 5.6M."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1000
    return (
        f"{value:.1f}{unit}" if 0 < value < 9.95 and (unit or value % 1) else f"{value:.0f}{unit}"
    )


def size(value: float) -> str:
    """Bytes in at most five characters: 512, 1.5K, 64K, 128M."""
    for unit in ("", "K", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1024
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"


def duration(seconds: float | None) -> str:
    """A time span with two significant digits: 12 µs, 3.4 ms, 5.6 s, 7m08, 3h20, 2d04."""
    if seconds is None:
        return "-"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (60.0, 1.0, "s")):
        if seconds < limit:
            value = seconds * factor
            return f"{value:.1f} {unit}" if 0 < value < 9.95 else f"{value:.0f} {unit}"
    whole = int(seconds)
    for large, small, unit in ((86400, 3600, "d"), (3600, 60, "h"), (60, 1, "m")):
        if whole >= large:
            return f"{whole // large}{unit}{whole % large // small:02}"
    raise AssertionError(seconds)  # pragma: no cover - a minute is the least that gets here


def since(moment: float | None) -> str:
    """How long ago a moment (seconds since the epoch) was."""
    return "-" if moment is None else duration(max(time.time() - moment, 0.0))


def percent(part: float) -> str:
    """A part of the whole."""
    return f"{part * 100:.0f}%"


def bar(fill: float, width: int) -> Pieces:
    """A bar of eighths; yellow from half full on, red from three quarters."""
    eighths = round(min(max(fill, 0.0), 1.0) * width * 8)
    if fill > 0 and eighths == 0:
        eighths = 1
    full, rest = divmod(eighths, 8)
    colour = "green" if fill < HALF else "yellow" if fill < MUCH else "red"
    drawn = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return (drawn, colour), ("·" * (width - len(drawn)), "dim")


def spark(values: Sequence[float], width: int) -> str:
    """The last values as a row of small columns, the largest of them as high as a line; where there
    are more than fit, each column is the largest of some."""
    if not values or width < 1:
        return ""
    each = -(-len(values) // width)
    first = len(values) % each
    groups = ([values[:first]] if first else []) + [
        values[i : i + each] for i in range(first, len(values), each)
    ]
    most = max(values) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(int(max(group) / most * 8), 7)] for group in groups)
