"""The keys of each page, in one table: its bindings, its line of keys, the help and the
documentation are made from it."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """One or more keys that do the same."""

    names: str
    """As textual names them, with commas between."""
    shown: str
    action: str
    label: str
    """In the line of keys; empty: it is not there."""
    meaning: str

    @property
    def types(self) -> bool:
        """Whether it writes something where text is typed."""
        written = {"slash", "question_mark", "space", "plus", "minus"}
        return any(len(name) == 1 or name in written for name in self.names.split(","))


EVERYWHERE = (
    Key("question_mark,f1", "?", "help", "Help", "keys, columns and states; likewise F1"),
    Key("q", "q", "leave", "Quit", "end"),
    Key("space", "space", "pause", "Pause", "look no more; again: go on"),
    Key("plus", "+", "faster(0.5)", "", "look twice as often"),
    Key("minus", "-", "faster(2)", "", "look half as often"),
    Key("ctrl+c,ctrl+q", "Ctrl-C", "quit", "", "end, also while something is typed"),
)
BACK = Key("escape", "esc", "back", "Back", "back to the table")
CURSOR = (
    Key("enter", "⏎", "open", "Open", "all facts about the endpoint under the cursor"),
    Key("up,k", "↑", "move(-1)", "", "the endpoint above; likewise k"),
    Key("down,j", "↓", "move(1)", "", "the endpoint below; likewise j"),
    Key("pageup", "page up", "page(-1)", "", "a page up"),
    Key("pagedown", "page down", "page(1)", "", "a page down"),
    Key("home,ctrl+home,g", "home", "edge(-1)", "", "the first endpoint; likewise g"),
    Key("end,ctrl+end,G", "end", "edge(1)", "", "the last endpoint; likewise G"),
)
"""Of the table itself: they go where the focus is."""
LINKS = Key(
    "l",
    "l",
    "links",
    "Links",
    "the sites that links join this bus to: how far they are, what crosses, what was lost",
)
"""In the line of keys only where there are any."""
BUS = (
    Key("w", "w", "worst", "Worst", "to the worst endpoint; again: to the next worst"),
    Key("s", "s", "sort(1)", "Sort", "by the next column, as a click on its title does"),
    Key("S", "S", "sort(-1)", "", "by the column before"),
    Key("v", "v", "reverse", "", "sort the other way round"),
    Key(
        "slash",
        "/",
        "prompt",
        "Filter",
        "only endpoints with these words in name, state, pid, patterns or groups; enter keeps the "
        "filter, escape removes it",
    ),
    Key("r", "r", "routes", "Routes", "who would get a message of a type, and why"),
    Key("d", "d", "deaths", "Deaths", "what is wrong, in full; deaths, losses and events"),
    Key(
        "p",
        "p",
        "pools",
        "Pools",
        "who holds how much of the memory for what is too large for rings",
    ),
    Key("t", "t", "tail", "Tail", "what passes on the bus, as it comes"),
    LINKS,
    Key("escape", "esc", "back", "", "show all endpoints again"),
)
ROUTES = (
    BACK,
    Key("slash", "/", "prompt", "Type", "type another one; enter leaves the field"),
)
TAIL = (
    BACK,
    Key("slash", "/", "prompt", "Pattern", "type another one; enter watches it"),
    Key("ctrl+l", "^l", "clear", "Clear", "empty the page"),
)
DEATHS = (BACK, Key("ctrl+l", "^l", "clear", "Clear", "forget the events shown"))
PAGES = {
    "The table": (*CURSOR, *BUS),
    "An endpoint": (BACK,),
    "Routes": ROUTES,
    "Deaths": DEATHS,
    "Pools": (BACK,),
    "Tail": TAIL,
    "Links": (BACK,),
    "Everywhere": EVERYWHERE,
}
"""By the name of the page."""

TAKE = Key("enter", "⏎", "take", "Take", "take what was typed")
"""While something is typed."""
