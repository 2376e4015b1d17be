"""What batching buys, as a small SVG: rate as bars, the sender's CPU per message as a line."""

from __future__ import annotations

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 340, 60, 60, 40, 50


def _nice_top(value: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is no less."""
    power = 10.0 ** (len(str(int(value))) - 1)
    return next(power * n for n in (1, 2, 5, 10) if power * n >= value)


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

    def text(x: float, at: float, words: str, anchor: str = "middle", colour: str = "#444") -> str:
        return (
            f'<text x="{x:.0f}" y="{at:.0f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 20, "million messages/s", "start", "#2a6f97"),
        text(WIDTH - RIGHT, 20, "sender's CPU per message, ns", "end", "#c1440e"),
        text(LEFT + width / 2, HEIGHT - 10, "messages a batch"),
    ]
    for quarter in range(5):
        at = TOP + height * (1 - quarter / 4)
        parts.append(f'<path d="M{LEFT} {at:.1f}h{width}" stroke="#ddd"/>')
        parts.append(text(LEFT - 8, at + 4, f"{rate_top * quarter / 4:g}", "end", "#2a6f97"))
        parts.append(
            text(WIDTH - RIGHT + 8, at + 4, f"{cpu_top * quarter / 4:g}", "start", "#c1440e")
        )
    points = []
    for index, label in enumerate(labels):
        x = LEFT + step * index
        at = y(rates[index], rate_top)
        parts.append(
            f'<rect x="{x + step * 0.15:.1f}" y="{at:.1f}" width="{step * 0.7:.1f}" '
            f'height="{TOP + height - at:.1f}" fill="#89c2d9"/>'
        )
        parts.append(text(x + step / 2, TOP + height + 18, label))
        points.append(f"{x + step / 2:.1f},{y(cpus[index], cpu_top):.1f}")
    parts.append(
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#c1440e" stroke-width="2"/>'
    )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
