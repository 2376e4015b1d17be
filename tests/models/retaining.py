"""Last values: what is kept, and given to who comes late, whoever kills the dispatcher.

Describes keep.h, recall.h and history.h in shmbus/dispatcher/native, and what a successor does
first. One source `p` publishes events of one type; `o` subscribes to it all the time, through a
small ring, so that values are kept and not yet delivered; `r` comes late, at any moment, with
`history`.

The words, all the dispatcher's but the last line:

    last                 the highest number that was given
    number[i], bytes[i]  cell i: the number of the value in it, 0: none; where its record ends in
                         p's ring (and, for the observer's sake, that number)
    to, number           of p, in DOWN: where the last record that was kept ends, and its number
    tail, owed           of p: the first record not forwarded, and to whom that is still owed
    journal              one operation with absolute values, as in forwarding.py
    read, waiting        of r's interest: it was read; it has not begun
    listed, filled       r's mailbox, if it is to have one: it is there; the number up to which it
                         was made with what was kept
    known                this dispatcher has read it (its own: a successor reads it again)
    backlog, into, out   its backlog: the number of the snapshot (0: there is none), what lies in
                         it, how much of that has left
    data[t], head[t]     the ring that leads to o or r
    log, tail[t]         r: it subscribes; o, r: how much was taken

The steps are those in docs/protocols.md. The journal is one word here: its own words, torn, are
explored in forwarding.py. What it says was published is done again by a successor, with the values
that stand in it.

What is explored: kills of dispatchers at every step, full rings, a subscription at every moment,
values that are replaced, cleared and evicted, an observer that copies cells. Shown: what r hears is
exactly what was kept at one moment, followed by all that comes after it; o hears everything once; a
record is kept once; an observer that finds the same number twice has copied one value.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from .explore import Model, Part, Program, View, atomic, choose, load, store

Words = dict[str, Any]


class Heard(NamedTuple):
    """A record in a ring: of p's, or that the past is over."""

    position: int
    number: int = 0
    past: bool = False


LIVE = 0  # in the place of the position


def retaining(
    sent: str,
    *,
    history: int = 2,
    cells: int = 3,
    room: int = 4,
    kills: int = 1,
    observer: bool = False,
    kept_before_delivered: bool = True,
    number_is_stored_last: bool = True,
    number_is_cleared_first: bool = True,
    last_is_stored_first: bool = True,
    newest_is_looked_at: bool = True,
    told_once_it_is_kept: bool = True,
    known_by_number: bool = True,
    waiting_before_read: bool = True,
    read_is_said_again: bool = True,
    waits_until_published: bool = True,
    live_is_in_journal: bool = True,
    behind_the_past: bool = True,
    owed_is_awaited: bool = True,
    past_is_copied: bool = True,
    mailbox: bool = False,
    filled_before_listed: bool = True,
    filled_are_spared: bool = True,
) -> Model:
    """`sent`: what p publishes: k to be kept, c clears, s neither. `room`: records in r's ring; o
    has room for one. With an `observer` r does not come. With a `mailbox` r has one instead of a
    ring, which is made with what was kept; here nothing in it is written over."""
    numbers = [f"number[{i}]" for i in range(cells)]

    # What it sees ----------------------------------------------------------------------------

    def values(words: Any) -> list[tuple[int, int, int]]:
        """Number, cell and position of what is kept, the oldest first."""
        there = [(words[name], i) for i, name in enumerate(numbers) if words[name]]
        return [(number, i, words[f"bytes[{i}]"][0]) for number, i in sorted(there)]

    def free(words: Words, t: str) -> int:
        if t == "r" and mailbox:
            return 1
        return (room if t == "r" else 1) - int(words[f"head[{t}]"] - words[f"tail[{t}]"])

    def way(words: Words) -> str:
        """Where an event for r's subscription goes."""
        if not words["known"] or words["waiting"]:
            return ""
        if mailbox:
            number = words["number"] if words["to"] == words["tail"] else 0
            return "" if 0 < number <= words["filled"] and filled_are_spared else "r"
        return "b" if words["backlog"] and behind_the_past else "r"

    def past(words: Words) -> tuple[Heard, ...]:
        return tuple(Heard(p, n, past=True) for n, _, p in values(words)[-history:])

    def owed(words: Any) -> tuple[str, ...] | None:
        """To whom the first record is still owed; None: nobody has been chosen yet. What is owed of
        one that is behind the tail is over."""
        position, *to = words["owed"]
        return tuple(to) if position == words["tail"] else None

    def attend(words: Words) -> tuple[Any, ...] | bool:
        """What there is to do for r."""
        if words["log"] and not words["known"]:
            return ("read",)
        if words["waiting"]:
            if len(past(words)) + 1 <= free(words, "r"):
                return ("at once", past(words), words["last"])
            return ("backlog", past(words) if past_is_copied else (), max(words["last"], 1))
        if not words["backlog"]:
            return False
        if not past_is_copied:
            later = [v for v in past(words) if v.position > words["read to"]]
            if later and later[0].number <= words["backlog"]:
                return bool(free(words, "r")) and ("late", later[0])
        if words["out"] < len(words["into"]):
            first = words["into"][words["out"]]
            if not first.past and 0 < first.number <= words["backlog"] and known_by_number:
                return ("drop", words["out"])
            return bool(free(words, "r")) and ("drain", words["out"], first)
        if "b" in (owed(words) or ()) and owed_is_awaited:
            return False
        return bool(free(words, "r")) and ("end", words["backlog"])

    def forward(words: Words) -> tuple[Any, ...] | bool:
        position = words["tail"]
        if position > len(sent):
            return False
        kept = words["to"] >= position
        if sent[position - 1] in "kc" and not kept and kept_before_delivered:
            return ("keep", position)
        to = owed(words)
        if to is None:
            return ("owe", (position, "o", *filter(None, [way(words)])))
        number = words["number"] if words["to"] == position else 0
        for t in to:
            if t == "b" and not words["backlog"]:
                return ("strike", position, t)  # what it leads to has gone
            if t == "b" or free(words, t):
                return ("deliver", t, Heard(position, number))
        if not to:
            if sent[position - 1] in "kc" and not kept:
                return ("keep", position)
            return ("release", position)
        return False

    def look(words: Words) -> tuple[Any, ...] | None:
        """What there is to do, in either order."""
        return tuple(job for job in (attend(words), forward(words)) if job) or None

    looking = atomic("look", look)

    # What it does ----------------------------------------------------------------------------

    def keep(position: int) -> Part[None]:
        number = 0
        if not told_once_it_is_kept:
            yield store("to", position)
        if sent[position - 1] == "k":
            number = (yield load("last")) + 1
            if last_is_stored_first:
                yield store("last", number)
            cell = yield choosing
            if cell < 0:
                yield clearing[~cell]
                cell = ~cell
            if number_is_stored_last:
                yield store(f"bytes[{cell}]", (position, number))
                yield store(f"number[{cell}]", number)
            else:
                yield store(f"number[{cell}]", number)
                yield store(f"bytes[{cell}]", (position, number))
            if not last_is_stored_first:
                yield store("last", number)
            del cell
            while True:
                oldest = yield trimming
                if oldest < 0:
                    break
        else:
            while True:
                oldest = yield wiping
                if oldest < 0:
                    break
        yield store("number", number)
        yield store("to", position)

    def choose_cell(words: Words) -> int:
        """A free one; else, as ~cell, that of the oldest."""
        there = [i for i, name in enumerate(numbers) if not words[name]]
        return there[0] if there else ~values(words)[0][1]

    def drop_oldest(most: int, words: Words) -> int:
        there = values(words)
        if len(there) <= most:
            return -1
        words[f"number[{there[0][1]}]"] = 0
        return there[0][1]

    def clear_cell(i: int, words: Words) -> bool:
        if number_is_cleared_first:
            words[f"number[{i}]"] = 0
        return True

    choosing = atomic("choose a cell", choose_cell)
    trimming = atomic("drop what is too old", partial(drop_oldest, history))
    wiping = atomic("clear", partial(drop_oldest, 0))
    clearing = {i: atomic(f"evict cell {i}", partial(clear_cell, i)) for i in range(cells)}

    def publish(t: str, records: tuple[Heard, ...], kind: str, detail: Any) -> Part[None]:
        """The journal, then the head; `detail` is what a successor needs to finish it."""
        head = yield load(f"head[{t}]")
        there = yield load(f"data[{t}]")
        yield store(f"data[{t}]", (*there[:head], *records))
        if live_is_in_journal or kind != "live":
            yield store("journal", (kind, t, head, detail))
        yield store(f"head[{t}]", head + len(records))

    def finish(kind: str, detail: Any) -> Part[None]:
        """What follows a publication; twice does no harm."""
        if kind == "live":
            yield store("waiting", 0)
            yield store("backlog", 0)
        elif kind == "drain":
            yield store("out", detail)
        elif kind == "deliver":
            yield from strike(detail)

    def strike(detail: tuple[int, str]) -> Part[None]:
        position, t = detail
        now = yield load("owed")
        if now[0] == position:
            yield store("owed", tuple(one for one in now if one != t))

    def read() -> Part[None]:
        """What r has logged. What waits was read; a kill may have come before it was said."""
        if mailbox:
            yield from make_mailbox()
            return
        waits = yield load("waiting")
        if waits:
            if read_is_said_again:
                yield store("read", 1)
        elif not (yield load("read")):
            if waiting_before_read:
                yield store("waiting", 1)
            yield store("read", 1)
            if not waiting_before_read:
                yield store("waiting", 1)
        del waits
        yield store("known", 1)

    def make_mailbox() -> Part[None]:
        """With what was kept, unless it is there. One that was not listed is made anew."""
        if not (yield load("listed")):
            if not filled_before_listed:
                yield store("listed", 1)
            records = yield recalling
            last = yield load("last")
            yield store("filled", last)
            del last
            yield store("data[r]", records)
            yield store("head[r]", len(records))
            if filled_before_listed:
                yield store("listed", 1)
            del records
        yield store("known", 1)

    recalling = atomic("recall", past)

    def dispatcher() -> Program:
        while True:
            jobs = yield looking
            job = yield choose("what first", jobs)
            del jobs
            match job:
                case ("read",):
                    yield from read()
                case ("at once", records, number):
                    if not waits_until_published:
                        yield store("waiting", 0)
                    yield from publish("r", (*records, Heard(LIVE, number)), "live", 0)
                    yield from finish("live", 0)
                case ("backlog", records, number):
                    yield store("into", records)
                    yield store("out", 0)
                    yield store("backlog", number)
                    yield store("waiting", 0)
                case ("late", record):
                    yield from publish("r", (record,), "late", 0)
                    yield store("read to", record.position)
                case ("drop", out):
                    yield store("out", out + 1)
                case ("drain", out, record):
                    yield from publish("r", (record,), "drain", out + 1)
                    yield from finish("drain", out + 1)
                case ("end", number):
                    yield from publish("r", (Heard(LIVE, number),), "live", 0)
                    yield from finish("live", 0)
                case ("keep", position):
                    yield from keep(position)
                case ("owe", targets):
                    yield store("owed", targets)
                case ("strike", position, t):
                    yield from strike((position, t))
                case ("deliver", "b", record):
                    into = yield load("into")
                    yield store("into", (*into, record))
                    yield from strike((record.position, "b"))
                    del into
                case ("deliver", t, record):
                    yield from publish(t, (record,), "deliver", (record.position, t))
                    yield from finish("deliver", (record.position, t))
                case ("release", position):
                    yield store("tail", position + 1)
            del job

    # Adoption --------------------------------------------------------------------------------

    def unread(words: Words) -> tuple[Any, ...]:
        """What the journal names, if it was published."""
        if words["journal"]:
            kind, t, head, detail = words["journal"]
            if words[f"head[{t}]"] > head:
                return (kind, detail)
        return ("", 0)

    def newest(words: Words) -> bool:
        there = values(words)
        if there and newest_is_looked_at and words["to"] < there[-1][2]:
            words["number"], words["to"] = there[-1][0], there[-1][2]
        return True

    def owed_still(words: Words) -> bool:
        """A fan-out stands only at the tail; what was put into the backlog is known by its end."""
        if any(one.position == words["owed"][0] and not one.past for one in words["into"]):
            words["owed"] = tuple(one for one in words["owed"] if one != "b")
        return True

    reading = atomic("read the journal", unread)
    adopting = atomic("look at the newest value", newest)
    striking = atomic("strike what the backlog has", owed_still)

    def successor() -> Program:
        kind, detail = yield reading
        yield from finish(kind, detail)
        yield store("journal", ())
        yield adopting
        yield striking
        yield store("known", 0)
        if (yield load("log")):
            yield from read()
        while True:
            oldest = yield trimming
            if oldest < 0:
                break
        del kind, detail, oldest
        yield from dispatcher()

    # The others ------------------------------------------------------------------------------

    def take(t: str, words: Words) -> bool | None:
        if words[f"tail[{t}]"] == words[f"head[{t}]"] or (
            t == "r" and mailbox and not words["listed"]
        ):
            return None
        words[f"tail[{t}]"] += 1
        return True

    taking = {t: atomic(f"{t} takes", partial(take, t)) for t in "or"}

    def receiver(t: str) -> Program:
        if t == "r":
            yield store("log", 1)
        while True:
            yield taking[t]

    def watcher() -> Program:
        for i in range(cells):
            before = yield load(f"number[{i}]")
            half = yield load(f"bytes[{i}]")
            rest = yield load(f"bytes[{i}]")
            after = yield load(f"number[{i}]")
            assert not before or before != after or half[1] == rest[1] == before, "no one value"
            del before, half, rest, after

    def expected(since: int) -> list[tuple[int, bool]]:
        """Of who comes before the record at this position: what was kept, then what comes."""
        kept: list[int] = []
        for position in range(1, since):
            if sent[position - 1] == "c":
                kept = []
            elif sent[position - 1] == "k":
                kept = [*kept, position][-min(history, cells) :]
        return [(position, True) for position in kept] + from_now_on(since)

    def from_now_on(since: int) -> list[tuple[int, bool]]:
        return [(position, False) for position in range(since, len(sent) + 1)]

    def at_rest(view: View) -> str | None:
        if view["tail"] <= len(sent):
            return "what p has sent lies for ever"
        if [one.position for one in view["data[o]"][: view["head[o]"]]] != [
            *range(1, len(sent) + 1)
        ]:
            return f"o has got {view['data[o]']}"
        if view["waiting"] or view["backlog"]:
            return "r waits for ever"
        heard: list[tuple[int, bool]] = []
        live = -1
        for one in view["data[r]"][: view["head[r]"]]:
            if one.position == LIVE:
                live = one.number
            elif (
                one.past
                or mailbox
                or (one in view["into"])
                or (live >= 0 and not (0 < one.number <= live and known_by_number))
            ):
                heard.append((one.position, one.past))
        right = [expected(since) for since in range(1, len(sent) + 2)]
        # Who comes when a type is cleared, and nobody has been told yet, is told.
        right += [from_now_on(i + 1) for i, c in enumerate(sent) if c == "c"]
        if cells <= history:  # who comes when one was evicted, and the next is not there yet
            right += [one[1:] for one in right]
        if heard not in right and not observer:
            return f"r has heard {heard}"
        there = [position for _, _, position in values(view)]
        if there != [position for position, _ in expected(len(sent) + 1)]:
            return f"{there} are kept"
        return None

    words: Words = {"last": 0, "to": 0, "number": 0, "tail": 1, "owed": (0,), "journal": ()}
    words |= {
        "read": 0,
        "known": 0,
        "waiting": 0,
        "backlog": 0,
        "into": (),
        "out": 0,
        "log": 0,
        "read to": 0,
        "listed": 0,
        "filled": 0,
    }
    words |= dict.fromkeys(numbers, 0) | {f"bytes[{i}]": (0, 0) for i in range(cells)}
    for t in "or":
        words |= {f"data[{t}]": (), f"head[{t}]": 0, f"tail[{t}]": 0}
    programs: dict[str, Any] = {"d": dispatcher}
    programs["o"] = partial(receiver, "o")
    if observer:
        programs["v"] = watcher
    else:
        programs["r"] = partial(receiver, "r")
    of_others = {"log", "tail[o]", "tail[r]"}
    seen = {"head[o]", "head[r]", *(["listed"] if mailbox else [])} | (
        {*numbers, *(f"bytes[{i}]" for i in range(cells))} if observer else set()
    )
    mine = words.keys() - of_others
    return Model(
        words=words,
        programs=programs,
        at_rest=at_rest,
        buffered=False,
        kills=kills,
        mortal=("d",),
        heirs={"d": successor},
        writers=dict.fromkeys(mine, "d"),
        private=frozenset(mine - seen),
    )
