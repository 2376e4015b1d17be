"""What is said of the whole bus: its state, traffic, reasons, backlogs, deaths and losses, each in
a line."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from shmbus.views import Backlog, Health, PastDeath, PastLoss, SiteInfo

from . import figures
from .figures import duration, number, percent, since, size
from .sampler import Sample
from .sites import SiteRow
from .states import VERDICTS

BACKLOGS = 4
"""Those that are shown, the ones that wait longest."""


def headline(sample: Sample, remark: str = "", width: int = 10_000) -> Text:
    """The state of the bus in one line; what does not fit is left out, the least important
    first."""
    health = sample.look.health
    line = Text(health.bus, "bold")
    sign, style = VERDICTS[health.state]
    line.append(f"  {sign} {health.state if health.dispatcher_alive else health.bus_state}", style)
    if remark:
        line.append("  ").append(remark, "reverse")
    parts = [(f"{number(health.rate)}/s", "bold")]
    if health.dispatcher_alive:
        parts.append((f"dispatcher {health.pid}", ""))
    else:
        parts = [(f"dispatcher {health.pid} does not run", "bold red")]
    here = sum(1 for e in sample.look.endpoints if e.site is None)
    parts.append((f"{here}/{sample.look.info.slots} endpoints", "dim"))
    if elsewhere := len(sample.look.endpoints) - here:
        parts.append((f"{elsewhere} elsewhere", "dim"))
    if health.dispatcher_alive:
        parts.append((f"up {duration(health.uptime)}", ""))
        parts.append((f"heartbeat {duration(health.heartbeat_age)}", ""))
    for part, style in parts:
        if line.cell_len + 2 + len(part) <= width:
            line.append("  ").append(part, style)
    return line


def traffic(health: Health) -> Text:
    """Latency and losses in one line."""
    recent = health.recent_latency if health.recent_latency.count else health.latency
    p50, p99 = (recent.p50, recent.p99) if recent.count else (None, None)
    return Text.assemble(
        "p50 ",
        (duration(p50), "bold"),
        "  p99 ",
        (duration(p99), "bold"),
        "  oldest ",
        (duration(health.oldest), "bold"),
        f"  pending {number(health.pending)}  lost ",
        (number(health.lost), "bold red" if health.lost_by.unchosen else ""),
        "  dead letters ",
        (number(health.dead_letters), "bold red" if health.dead_letters else ""),
        "  deaths ",
        (number(sum(health.deaths.values())), "bold yellow" if health.deaths else ""),
        f"  kept {number(health.retained)}" if health.retained else "",
    )


def rate(history: Sequence[tuple[float, float]], width: int) -> Text:
    """The messages a second of the last looks as a row of columns, with what they mean."""
    rates = [each for _, each in history]
    span = history[-1][0] - history[0][0] if history else 0.0
    legend = f" the last {duration(span)}, up to {number(max(rates, default=0.0))}/s"
    columns = figures.spark(rates, width - len("rate ") - len(legend))
    return Text.assemble(("rate ", "dim"), (columns, "green"), (legend, "dim"))


SITES = {
    "up": "green",
    "down": "bold red",
    "refused": "bold red",
    "left": "dim",
    "here": "dim",
}
"""The style of each state of a site."""


def site_state(site: SiteInfo) -> Text:
    """In a word."""
    return Text(site.state, SITES[site.state])


def sites(found: Sequence[SiteRow]) -> list[Text]:
    """The other sites, in one line: those that are down, then the nearest."""
    if not found:
        return []
    line = Text("sites", "dim")
    for row in found:
        info = row.info
        line.append(f"  {info.name} ", "bold")
        if info.state == "up":
            line.append(duration(info.round_trip), SITES["up"])
            line.append(f" ▲{number(row.rates.sent)}/s ▼{number(row.rates.received)}/s")
        else:
            line.append(info.state, SITES[info.state])
        if lost := info.lost_to + info.lost_from:
            line.append(f" {number(lost)} lost", "bold red")
    return [line]


def reasons(health: Health, most: int | None = None) -> list[Text]:
    """Why the bus is not healthy, in so many lines at most."""
    style = "red" if health.state == "unhealthy" else "yellow"
    found = [f"! {reason}" for reason in health.reasons]
    if most is not None and len(found) > most:
        found[most - 1 :] = [f"! and {len(found) - most + 1} reasons more: press d"]
    return [Text(each, style) for each in found]


def backlogs(found: Sequence[Backlog]) -> list[Text]:
    """What waits in the dispatcher until somebody is free, a line for each backlog."""
    used = sorted((b for b in found if b.waiting), key=lambda b: -(b.oldest or 0.0))
    lines = [backlog(b) for b in used[:BACKLOGS]]
    if len(used) > BACKLOGS:
        lines.append(Text(f"and {len(used) - BACKLOGS} backlogs more", "dim"))
    return lines


def backlog(b: Backlog) -> Text:
    """One backlog in a line."""
    return Text.assemble(
        f"backlog of {b.what}: ",
        (number(b.waiting), "bold"),
        " waiting, the oldest for ",
        (duration(b.oldest), "bold"),
        f", {percent(b.ring.fill)} of {size(b.ring.capacity)}",
        (f", {b.lost} lost", "bold red") if b.lost else "",
        (f"  for {' '.join(b.takers) or 'nobody'}", "dim"),
    )


def undone(death: PastDeath) -> str:
    """What a dead endpoint left undone."""
    return f"{death.in_hand} in hand, {death.untouched} waiting, {death.pending} requests under way"


def died(death: PastDeath) -> Text:
    """A death in one line."""
    return Text.assemble(
        f"{since(death.at)} ago: ",
        (death.name, "bold"),
        f" (process {death.pid}) ",
        (death.reason, "bold yellow"),
        f" with {undone(death)}",
    )


def lost(loss: PastLoss) -> Text:
    """A loss that nobody had chosen, in one line."""
    of = [f" (process {loss.pid})"] if loss.pid else []
    last = f", the last {loss.type} from {loss.source}" if loss.type else ""
    size = f" of {loss.size} bytes, its ring takes {loss.limit}"
    return Text.assemble(
        f"{since(loss.at)} ago: ",
        (loss.name, "bold"),
        *of,
        f" lost {loss.count} in all: ",
        (loss.reason.replace("_", " "), "bold red"),
        last + (size if loss.type and loss.reason == "too_large" else ""),
    )


def nobody(sample: Sample, words: str = "") -> Text:
    """Why the table is empty, and what to do about it."""
    if sample.look.endpoints:
        return Text(f"no endpoint matches {words.strip()!r}; press escape to see all")
    name = sample.look.info.name
    return Text(f"no endpoint is attached; a process attaches by shmbus.attach({name!r})")
