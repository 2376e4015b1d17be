"""Message types, the patterns that match them, and who gets a message.

A type is made of tokens between dots: ``buffer.12.changed``. In a pattern, ``*`` stands for any one
token and a final ``>`` for one or more. A first token that begins with ``$`` is the bus's own:
only the bus publishes it, and a leading wildcard never matches it.

`route` computes, without state, what the forwarding plane does with a trie: it is what
``bus.route(type)`` returns, and the tests compare the trie with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

import msgspec

from shmbus.errors import InvalidPattern, InvalidType
from shmbus.limits import MAX_TYPE

from . import names
from .layout import InterestFlag, Rank
from .methods import MethodInfo

Role = Literal["subscribe", "handle", "tap", "match"]
Overflow = Literal["block", "drop_newest", "drop_oldest", "latest"]

OVERFLOWS: dict[Overflow, int] = {
    "block": 0,
    "drop_newest": InterestFlag.DROP_NEWEST,
    "drop_oldest": InterestFlag.DROP_OLDEST,
    "latest": InterestFlag.LATEST,
}
"""Each policy of a receiver whose ring is full, by its flags in an interest log."""

_TYPE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z")
_PATTERN = re.compile(
    r"(?:>|(?:\*|\$?[A-Za-z0-9_-]+)(?:\.(?:\*|[A-Za-z0-9_-]+))*(?:\.>)?)\Z",
)
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\Z")


def check_type(type: str) -> str:
    """The type itself, if a user may publish, send or request it; raises ``InvalidType``."""
    if isinstance(type, str) and len(type) <= MAX_TYPE and _TYPE.match(type):
        return type
    raise InvalidType(type=str(type), reason=_why(type, pattern=False))


def check_pattern(pattern: str) -> str:
    """The pattern itself, if it is one; raises ``InvalidPattern``."""
    if isinstance(pattern, str) and len(pattern) <= MAX_TYPE and _PATTERN.match(pattern):
        return pattern
    raise InvalidPattern(pattern=str(pattern), reason=_why(pattern, pattern=True))


def _why(text: object, *, pattern: bool) -> str:
    if not isinstance(text, str):
        return f"it is of type {type(text).__name__}"
    if not text:
        return "it is empty"
    if len(text) > MAX_TYPE:
        return f"it has {len(text)} characters, the limit is {MAX_TYPE}"
    tokens = text.split(".")
    if not pattern and text.startswith("$"):
        return "only the bus publishes what begins with '$'"
    for i, token in enumerate(tokens):
        if not token:
            return "it has an empty token"
        if token == ">" and pattern:
            if i < len(tokens) - 1:
                return "'>' stands only at the end"
        elif token in ("*", ">"):
            if not pattern:
                return f"{token!r} is for patterns"
        else:
            rest = token[1:] if i == 0 and token[0] == "$" else token
            if not rest:
                return "'$' needs a name"
            odd = next((c for c in rest if not _TOKEN.match(c)), None)
            if odd is not None:
                return f"it has the character {odd!r} in the token {token!r}"
    raise AssertionError(text)  # pragma: no cover - the expressions above reject the same


def matches(pattern: str, type: str) -> bool:
    """Whether this pattern matches messages of this type. Raises ``InvalidPattern``."""
    return covers(check_pattern(pattern), type)


def covers(pattern: str, other: str) -> bool:
    """Whether ``pattern`` matches every type that ``other`` (a pattern or a type) matches."""
    ours, theirs = pattern.split("."), other.split(".")
    if theirs[0].startswith("$") and ours[0] in ("*", ">"):
        return False
    for i, token in enumerate(ours):
        if i == len(theirs):
            return False
        if token == ">":
            return True
        if theirs[i] == ">" or token not in ("*", theirs[i]):
            return False
    return len(ours) == len(theirs)


def overlaps(pattern: str, other: str) -> bool:
    """Whether some type is matched by both patterns."""
    ours, theirs = pattern.split("."), other.split(".")
    wild = ("*", ">")
    if (ours[0] in wild and theirs[0].startswith("$")) or (
        theirs[0] in wild and ours[0].startswith("$")
    ):
        return False
    for one, two in zip(ours, theirs, strict=False):
        if ">" in (one, two):
            return True
        if one != two and "*" not in (one, two):
            return False
    return len(ours) == len(theirs)


def specificity(pattern: str) -> tuple[int, ...]:
    """A key by which the most specific of the patterns that match one type sorts first: compared
    token by token, a literal comes before ``*``, and ``*`` before ``>``."""
    return tuple({"*": 1, ">": 2}.get(token, 0) for token in pattern.split("."))


class Interest(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription, handler or tap of one endpoint, or its wish to be told of receivers."""

    endpoint: str
    """Its name."""
    pattern: str
    """Of the types that it wants."""
    role: Role = "subscribe"
    """How it wants them: subscribe (events), handle (commands and requests) or tap (copies). Or
    match: none of them, but to be told whether anybody receives them (`on_match`)."""
    group: str | None = None
    """Of a subscription: the group whose members share the events; None: it gets all."""
    overflow: Overflow = "block"
    """What happens where more comes than is taken: block (senders wait, a limited time) or
    drop_newest, where its ring is full; drop_oldest or latest, where it has a mailbox."""
    depth: int = 0
    """Of its mailbox: how many messages may wait; with latest, of how many types. 0: there is
    none."""
    key: str | None = None
    """Of a group's: the pattern with the tokens in braces by which messages go to the same member;
    None: to any."""
    history: int = 0
    """Of a subscription: how many values of each type, of those that were kept, it wanted first."""
    method: MethodInfo | None = None
    """Of a handler that is a method of a service: what it takes and returns."""

    @property
    def rank(self) -> Rank:
        """Its endpoint's: of all that may handle a type, or are in a group, those of the lowest get
        messages."""
        return names.rank(self.endpoint)

    @property
    def losing(self) -> str:
        """What it loses rather than delay senders, in words; empty: nothing."""
        match self.overflow:
            case "drop_newest":
                return "drops the newest"
            case "drop_oldest":
                return f"keeps the last {self.depth}"
            case "latest":
                return f"keeps the newest of {self.depth} types"
        return ""


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """One interest that matches a type, and whether its endpoint would get the message."""

    endpoint: str
    """Its name."""
    pattern: str
    """By which it matches."""
    role: Role
    """How it wants the type: subscribe, handle or tap."""
    group: str | None
    """The group that it is a member of here; None: none."""
    chosen: bool
    """Whether its endpoint would get the message by this interest."""
    reason: str
    """Why, or why not, in words."""
    waits: bool = False
    """The message would wait in a backlog until this endpoint, or another one with ``waits`` beside
    it, is free."""
    site: str | None = None
    """The site on whose bus the endpoint is; None: this one."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Who would get a message of this type now, and why."""

    type: str
    """Of the message."""
    receivers: tuple[Receiver, ...]
    """All whose pattern matches: subscribers, then group members, then handlers; in each the chosen
    first."""

    @property
    def subscribers(self) -> tuple[str, ...]:
        """The endpoints that would get it as an event, each once."""
        found = (r.endpoint for r in self.receivers if r.chosen and r.role == "subscribe")
        return tuple(dict.fromkeys(found))

    @property
    def handler(self) -> str | None:
        """The endpoint that would get it as a command or a request; None also where it would wait
        until one of several is free."""
        return next((r.endpoint for r in self.receivers if r.chosen and r.role == "handle"), None)


def _lowest(interests: Iterable[Interest]) -> list[Interest]:
    """Those of the lowest rank."""
    found = list(interests)
    lowest = min((i.rank for i in found), default=Rank.HERE)
    return [i for i in found if i.rank == lowest]


def takers(group: str | None, type: str, interests: Iterable[Interest]) -> list[Interest]:
    """Those of these by which one endpoint gets a message of this type: of the lowest rank that
    there is the members of a group, or (None) the handlers of the most specific pattern."""
    role = "handle" if group is None else "subscribe"
    mine = _lowest(
        i for i in interests if (i.role, i.group) == (role, group) and covers(i.pattern, type)
    )
    if group is not None:
        return mine
    top = min((specificity(i.pattern) for i in mine), default=())
    return [i for i in mine if specificity(i.pattern) == top]


def route(
    type: str,
    interests: Iterable[Interest],
    *,
    load: Callable[[str], int] | None = None,
    why_not_free: Callable[[str], str] | None = None,
    waiting: Collection[tuple[str | None, tuple[str, ...]]] = (),
    owners: Mapping[str, str] | None = None,
    relayed: bool = False,
) -> Route:
    """Who would get a message of this type.

    An event goes to every endpoint with a plain subscription that matches, and to one member of
    each group. A command or request goes to one handler of the most specific pattern; a single one
    always gets it. Else, of those who are free (``why_not_free(endpoint)`` is empty), the one with
    the least ``load(endpoint)`` (messages in queue and in hand) is chosen; equals take turns, of
    which this names the first by name. Where nobody is free, or others wait for the same endpoints
    (``waiting``: group, and their names in order), it waits in a backlog until one is free. Of a
    group with a key it goes to whoever owns that (``owners``: endpoints by group), free or not.

    Where links are attached, what one of several gets is for them only where nobody else is a
    member or handles it (of no pattern, however specific), and for keepers only where no link is;
    keepers get nothing as plain subscribers. What a link brought (``relayed``) goes to neither.
    """
    found = [i for i in interests if i.role != "match" and covers(i.pattern, type)]
    if relayed:
        found = [i for i in found if i.rank == Rank.HERE]
    load = load or (lambda endpoint: 0)
    why_not_free = why_not_free or (lambda endpoint: "")

    def choose(group: str | None, candidates: Iterable[Interest]) -> tuple[str | None, str]:
        names = sorted({i.endpoint for i in candidates})
        if (group, tuple(names)) in waiting:
            return None, ""
        if group is None and len(names) == 1:
            return names[0], "the only one"
        free = [name for name in names if not why_not_free(name)]
        if not free:
            return None, ""
        best = min(free, key=lambda name: (load(name), name))
        if len(names) == 1:
            return best, "the only one"
        alike = [name for name in free if load(name) == load(best)]
        return best, "in turn with its likes" if len(alike) > 1 else "the least loaded free one"

    receivers: list[Receiver] = []

    def add(interest: Interest, chosen: bool, reason: str, waits: bool = False) -> None:
        receivers.append(
            Receiver(
                endpoint=interest.endpoint,
                pattern=interest.pattern,
                role=interest.role,
                group=interest.group,
                chosen=chosen,
                reason=reason,
                waits=waits,
            )
        )

    def not_chosen(interest: Interest, best: str | None) -> str:
        why = why_not_free(interest.endpoint)
        if best is None:
            return f"waits in the backlog until one is free; {why or 'others wait already'}"
        if why or load(interest.endpoint) == load(best):
            return why or f"in turn after {best}"
        return f"more loaded than {best}"

    for i in found:
        if i.role == "subscribe" and i.group is None:
            if i.rank == Rank.KEEPER:
                add(i, False, "keeps only what one of several gets")
            else:
                add(i, True, f"subscribes, {i.losing}" if i.depth else "subscribes")
    for group in sorted({i.group for i in found if i.role == "subscribe" and i.group is not None}):
        everybody = [i for i in found if i.role == "subscribe" and i.group == group]
        members = _lowest(everybody)
        if any(i.key for i in members):
            owner = (owners or {}).get(group)
            for i in sorted(members, key=lambda i: i.endpoint != owner):
                owns = i.endpoint == owner
                whose = f"by {owner}" if owner else "by nobody yet"
                key = f"the key of {i.key}"
                add(i, owns, f"group {group}: owns {key}" if owns else f"{key} is owned {whose}")
        else:
            best, why = choose(group, members)
            for i in sorted(members, key=lambda i: i.endpoint != best):
                chosen = i.endpoint == best
                reason = f"group {group}: {why if chosen else not_chosen(i, best)}"
                add(i, chosen, reason, waits=best is None)
        for i in everybody:
            if i not in members:
                add(i, False, f"group {group}: {members[0].endpoint} comes first")
    handlers = sorted(
        (i for i in found if i.role == "handle"), key=lambda i: (i.rank, specificity(i.pattern))
    )
    if handlers:
        first = handlers[0]
        top = [i for i in handlers if (i.rank, i.pattern) == (first.rank, first.pattern)]
        best, why = choose(None, top)
        for i in sorted(handlers, key=lambda i: (i not in top, i.endpoint != best)):
            if i in top and i.endpoint == best:
                add(i, True, f"most specific pattern: {why}")
            elif i in top:
                add(i, False, not_chosen(i, best), waits=best is None)
            elif i.rank == first.rank:
                add(i, False, f"{first.pattern} is more specific")
            else:
                add(i, False, f"{first.endpoint} comes first")
    return Route(type=type, receivers=tuple(receivers))
