"""How an endpoint is, in one word: what each means, how bad it is, and its colour."""

from __future__ import annotations

from typing import NamedTuple

from shmbus.views import EndpointHealth, EndpointInfo

LATE = 5.0
"""Seconds for which a message may wait, before the bus is degraded and its receiver behind."""


class State(NamedTuple):
    """What a word means, and its style."""

    style: str
    meaning: str


TROUBLES = {
    "dead": State("bold white on red", "its process has died, or it was ended"),
    "stopped": State("bold white on magenta", "its process is stopped: Ctrl-Z, a debugger"),
    "stalled": State("bold black on magenta", "messages wait, none is in hand, and it takes none"),
    "overdue": State("bold black on bright_magenta", "a handler has taken longer than its limit"),
    "slow": State("bold black on yellow", "a sender waited in vain for space in its ring"),
    "losing": State("bold white on red", "it loses messages now, and has not chosen so"),
    "behind": State("bold black on yellow", f"a message has waited for more than {LATE:g} s"),
    "full": State("bold black on dark_orange", "one of its rings is full by three quarters"),
}
"""The worst first."""
CALM = {
    "leaving": State("blue", "it is ending in good order"),
    "busy": State("cyan", "it has messages in hand"),
    "idle": State("dim", "it has nothing to do"),
    "remote": State("dim", "it is on the bus of another site, and a link has told of it"),
}
STATES = TROUBLES | CALM
SEVERITY = {word: len(TROUBLES) - rank for rank, word in enumerate(TROUBLES)}
"""How bad a trouble is; what is not in it is none."""

VERDICTS = {
    "healthy": ("●", "bold green"),
    "degraded": ("◆", "bold yellow"),
    "unhealthy": ("▲", "bold red"),
}
"""Of the whole bus: a sign, so that its colour alone tells nothing, and the style."""


def word(info: EndpointInfo, health: EndpointHealth, losing: bool) -> str:
    """What is most important about an endpoint now. ``losing``: it has just lost messages, and had
    not chosen so."""
    found = [health.state]
    if losing:
        found.append("losing")
    if health.oldest is not None and health.oldest > LATE and not info.lossy:
        found.append("behind")
    return max(found, key=lambda each: SEVERITY.get(each, 0))
