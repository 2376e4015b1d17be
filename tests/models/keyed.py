"""Groups with a key: messages of one key are worked on one after another, in order, while members
come and go.

Describes keyed.h and members.h in shmbus/dispatcher/native, and handing on by the key in
departure.h. How a message gets from one ring into another, exactly once, is the subject of
forwarding.py: here it is one step.

The words.  All but the last two lines are the dispatcher's:

    whom[x], joined[x], left[x], mark[x]    the entry of member x; left 0: it has not
    epoch, settled                          the latest, and the one of which all is settled
    sent                                    how many messages it has taken from their sender
    owed                                    of a fan-out that waits: (message, target)
    ring[x], wait[x]                        what was delivered to x; the backlog with x's name
    reclaim[x]                              of one that has gone: how far it is handed on, plus 1
    letters                                 messages for which no member was left; those lost
    taken[x], tail[x]                       x's: how many it has begun, and done or let go
    from[x]                                 x's: the first it has let go and not done, plus 1; or 0
    wants[x], dead[x], done                 x's interest; its death; what was done, by key

The steps:

    x leaves         mark[x] = len(ring[x]); left[x] = epoch + 1; epoch = epoch + 1
    x joins          settled = epoch, or no members: joined[x] = epoch + 1; left[x] = 0; whom[x] = 1
                     mark[y] = len(ring[y]) of all other members y; epoch = epoch + 1
    a message        the owners of its key from `settled` to `epoch`: all the same? to that one
                     the others done with their marks, wait[the first] empty? to the latest
                     otherwise into wait[the first]
                     that cannot be made? it stays with its sender, then it is lost
    out of wait[x]   to the latest owner, when all others are done
    handing on       of dead x: to the latest owner, when those are done that came after x
    x begins         taken[x] += 1. It may let it go: from[x] = taken[x]; tail[x] += 1
    x is done        from[x] = 0 or tail[x] += 1
    settled          all are done, nothing waits: settled = epoch; whom[x] = 0 of those that left
    a successor      forgets entries of which `joined` or `left` is beyond `epoch`

Why in this order.  All words of a change are stored before `epoch`, which makes it one step for
whoever comes later.  x is done when its tail, or what is handed on after its death, has reached the
mark, and nothing from before it is let go and not done: from[x] is stored before the tail, and
loaded after it.  The tail counts what is done, not what is begun.  Messages wait under the first
owner's name since that does not change while anything is unsettled, so all of one key wait in one
line.  What a dead one left is older than what later owners have; so it waits for those, and not
they for it.

What is explored: kills of members and of the dispatcher at every step, one that joins at any
moment, one that leaves, and comes back, at any moment; keys that move to and fro; a fan-out that
waits for space while its key moves; without backlogs, waiting that is over at any moment.  Shown:
of one key no message is begun before the one before is done or lost, or its holder is dead; where
there are backlogs none is lost; none is done twice; nothing waits for ever.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from .explore import Model, Part, Program, Step, View, atomic, choose, load, store, until_dead

Words = dict[str, Any]
Message = tuple[str, int]  # its key, and its number among those of that key


class Done(dict[str, tuple[int, ...]]):
    """What is done of each key, in order; hashable."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def keyed(
    sent: tuple[Message, ...],
    wants_most: Mapping[str, str],
    *,
    at_first: str = "AB",
    joins: str = "",
    leaves: str = "",
    returns: bool = False,
    kills: int = 1,
    mortal: tuple[str, ...] = ("d",),
    fan_out: bool = False,
    backlogs: bool = True,
    let_go: str = "",
    let_go_is_in_hand: bool = True,
    let_go_is_shown_first: bool = True,
    keys_wait: bool = True,
    done_and_not_begun: bool = True,
    others_wait_behind_what_waits: bool = True,
    epoch_is_stored_last: bool = True,
    unfinished_changes_are_forgotten: bool = True,
    new_ones_wait_for_handing_on: bool = True,
    handing_on_waits_for_later_owners: bool = True,
    handing_on_waits_for_earlier_owners: bool = False,
    settled_when_nothing_waits: bool = True,
    first_owner_names_the_backlog: bool = True,
    fan_out_is_chosen_again: bool = True,
    lost_when_waiting_is_over: bool = True,
) -> Model:
    """`wants_most`: of each key, the members in the order in which they would own it. `joins` and
    `leaves`: who does that at any moment; `returns`: and comes back. `fan_out`: each message waits
    for space first. `backlogs`: they can be made. `let_go`: who lets go all that it begins."""
    members = "".join(sorted({*"".join(wants_most.values())}))

    # What the dispatcher sees ---------------------------------------------------------------------

    def member_in(words: Words, x: str, epoch: int) -> bool:
        left = words[f"left[{x}]"]
        joined = words[f"joined[{x}]"] <= epoch
        return bool(words[f"whom[{x}]"] and joined and (not left or epoch < left))

    def owner(words: Words, key: str, epoch: int) -> str:
        return next((x for x in wants_most[key] if member_in(words, x, epoch)), "")

    def past(words: Words, x: str) -> bool:
        mark = words[f"mark[{x}]"]
        if words[f"dead[{x}]"] and new_ones_wait_for_handing_on:
            return bool(words[f"reclaim[{x}]"] > mark)
        if let_go_is_in_hand and 0 < words[f"from[{x}]"] <= mark:
            return False
        return bool(words[f"tail[{x}]" if done_and_not_begun else f"taken[{x}]"] >= mark)

    def owners(words: Words, key: str) -> list[str]:
        return [owner(words, key, e) for e in range(words["settled"], words["epoch"] + 1)]

    def choose_owner(words: Words, key: str) -> str:
        """x: to this member. <x: into this backlog. Empty: there is no member."""
        line = owners(words, key)
        latest, others = line[-1], [x for x in line if x and x != line[-1]]
        undone = [x for x in others if not past(words, x)] if keys_wait else []
        if not latest or not others:
            return latest
        first = next(x for x in line if x)
        if undone and not first_owner_names_the_backlog:
            first = undone[-1]
        waits = words[f"wait[{first}]"] and others_wait_behind_what_waits
        return f"<{first}" if undone or waits else latest

    def next_of(words: Words, key: str, gone: str) -> str | None:
        """Who gets what the dead `gone` left of this key; None: nobody yet."""
        line = owners(words, key)
        after = line
        if gone in line and not handing_on_waits_for_earlier_owners:
            after = line[len(line) - line[::-1].index(gone) :]
        later = [x for x in after if x not in ("", gone, line[-1])]
        if handing_on_waits_for_later_owners and not all(past(words, x) for x in later):
            return None
        return line[-1]

    def count(words: Words, message: Message) -> None:
        key, number = message
        words["done"] = Done({**words["done"], key: (*words["done"][key], number)})

    def give(words: Words, message: Message, to: str) -> None:
        if not to:
            words["letters"] += 1
            count(words, message)
        elif to[0] == "<":
            words[f"wait[{to[1]}]"] = (*words[f"wait[{to[1]}]"], message)
        else:
            words[f"ring[{to}]"] = (*words[f"ring[{to}]"], message)

    def found(words: Words) -> list[tuple[str, str]]:
        """What there is to do."""
        epoch, settled = words["epoch"], words["settled"]
        now = [x for x in members if member_in(words, x, epoch)]
        for x in now:
            if words[f"dead[{x}]"] or not words[f"wants[{x}]"]:
                return [("leave", x)]
        for x in members:
            if words[f"dead[{x}]"] and not words[f"reclaim[{x}]"]:
                return [("freeze", x)]
        everybody = [x for x in members if words[f"whom[{x}]"]]
        waits = any(words[f"wait[{x}]"] for x in members) and settled_when_nothing_waits
        if epoch != settled and all(past(words, x) for x in everybody) and not waits:
            return [("settle", "")]
        for x in members:
            wants = words[f"wants[{x}]"] and not words[f"dead[{x}]"]
            if wants and x not in now and (epoch == settled or not now):
                return [("join", x)]
        jobs = []
        for x in members:
            reclaim = words[f"reclaim[{x}]"]
            if reclaim and reclaim <= len(words[f"ring[{x}]"]):
                key, number = words[f"ring[{x}]"][reclaim - 1]
                over = number in words["done"][key]
                if over or next_of(words, key, x) is not None:
                    jobs.append(("hand on", x))
            if words[f"wait[{x}]"]:
                line = owners(words, words[f"wait[{x}]"][0][0])
                if all(past(words, y) for y in line if y not in ("", line[-1])) or not keys_wait:
                    jobs.append(("drain", x))
        if words["owed"] or words["sent"] < len(sent):
            waits = not backlogs and choose_owner(words, sent[words["sent"]][0])[:1] == "<"
            jobs.append(("give up" if waits else "forward", ""))
        return jobs

    # What it does ---------------------------------------------------------------------------------

    def look(words: Words) -> tuple[tuple[str, str], ...] | None:
        return tuple(found(words)) or None

    def forward(words: Words) -> bool:
        if fan_out and not words["owed"]:
            message = sent[words["sent"]]
            words["owed"] = (message, choose_owner(words, message[0]))
            return True
        message, to = words["owed"] or (sent[words["sent"]], "")
        if not to or fan_out_is_chosen_again or words.get(f"dead[{to}]"):
            to = choose_owner(words, message[0])
        give(words, message, to)
        words["sent"] += 1
        words["owed"] = ()
        return True

    def give_up(words: Words) -> bool:
        key, _ = message = sent[words["sent"]]
        give(words, message, "" if lost_when_waiting_is_over else owners(words, key)[-1])
        words["sent"] += 1
        words["owed"] = ()
        return True

    def drain(x: str, words: Words) -> bool:
        message, *rest = words[f"wait[{x}]"]
        words[f"wait[{x}]"] = tuple(rest)
        give(words, message, owner(words, message[0], words["epoch"]))
        return True

    def hand_on(x: str, words: Words) -> bool:
        key, number = message = words[f"ring[{x}]"][words[f"reclaim[{x}]"] - 1]
        to = next_of(words, key, x)
        if number not in words["done"][key]:
            give(words, message, to or "")
        words[f"reclaim[{x}]"] += 1
        return True

    def freeze(x: str, words: Words) -> bool:
        words[f"reclaim[{x}]"] = words[f"tail[{x}]"] + 1
        return True

    @cache  # a step is the same at the same place
    def doing(kind: str, x: str) -> Step:
        effects = {"hand on": hand_on, "drain": drain, "freeze": freeze}
        alone = {"forward": forward, "give up": give_up}
        return atomic(f"{kind} {x}", partial(effects[kind], x) if x else alone[kind])

    def marks(words: Words) -> tuple[tuple[str, int], ...]:
        now = [x for x in members if member_in(words, x, words["epoch"])]
        return tuple((x, len(words[f"ring[{x}]"])) for x in now)

    def those_that_left(words: Words) -> tuple[str, ...]:
        return tuple(x for x in members if words[f"whom[{x}]"] and words[f"left[{x}]"])

    looking, marking = atomic("look", look), atomic("heads", marks)
    leaving = atomic("who left", those_that_left)

    def leave(x: str) -> Part[None]:
        epoch = yield load("epoch")
        heads = yield marking
        if not epoch_is_stored_last:
            yield store("epoch", epoch + 1)
        yield store(f"mark[{x}]", dict(heads)[x])
        yield store(f"left[{x}]", epoch + 1)
        if epoch_is_stored_last:
            yield store("epoch", epoch + 1)

    def join(x: str) -> Part[None]:
        epoch = yield load("epoch")
        heads = yield marking
        yield store(f"joined[{x}]", epoch + 1)
        yield store(f"left[{x}]", 0)
        yield store(f"mark[{x}]", 0)
        yield store(f"whom[{x}]", 1)
        if not epoch_is_stored_last:
            yield store("epoch", epoch + 1)
        for y, head in heads:
            yield store(f"mark[{y}]", head)
        if epoch_is_stored_last:
            yield store("epoch", epoch + 1)

    def settle() -> Part[None]:
        epoch = yield load("epoch")
        yield store("settled", epoch)
        gone = yield leaving
        for x in gone:
            yield store(f"whom[{x}]", 0)

    def dispatcher() -> Program:
        while True:
            jobs = yield looking
            kind, x = yield choose("first", jobs)
            del jobs
            if kind == "leave":
                yield from leave(x)
            elif kind == "join":
                yield from join(x)
            elif kind == "settle":
                yield from settle()
            else:
                yield doing(kind, x)
            del kind, x

    def forget(words: Words) -> bool:
        for x in members if unfinished_changes_are_forgotten else "":
            if words[f"left[{x}]"] > words["epoch"]:
                words[f"left[{x}]"] = 0
            late = words[f"joined[{x}]"] > words["epoch"]
            if late or 0 < words[f"left[{x}]"] <= words["settled"]:
                words[f"whom[{x}]"] = 0
        return True

    forgetting = atomic("what was not finished is forgotten", forget)

    def successor() -> Program:
        yield forgetting
        yield from dispatcher()

    # The others -----------------------------------------------------------------------------------

    def begin(x: str, words: Words) -> Message | None:
        if words[f"taken[{x}]"] == len(words[f"ring[{x}]"]):
            return None
        message: Message = words[f"ring[{x}]"][words[f"taken[{x}]"]]
        words[f"taken[{x}]"] += 1
        return message

    def finish(x: str, words: Words) -> bool:
        count(words, words[f"ring[{x}]"][words[f"taken[{x}]"] - 1])
        if x in let_go:
            words[f"from[{x}]"] = 0
        else:
            words[f"tail[{x}]"] += 1
        return True

    def show(x: str, words: Words) -> bool:
        words[f"from[{x}]"] = words[f"taken[{x}]"]
        return True

    def pass_over(x: str, words: Words) -> bool:
        words[f"tail[{x}]"] += 1
        return True

    def member(x: str) -> Program:
        while True:
            key, number = yield beginning[x]
            had = yield looking_at_done
            before = dict(had)[key]
            assert number not in before, f"{key}{number} is begun a second time"
            assert {*range(number)} <= {*before}, f"{key}{number} is begun too early"
            del had, before, key, number
            if x in let_go:
                yield letting_go[x][not let_go_is_shown_first]
                yield letting_go[x][let_go_is_shown_first]
            yield finishing[x]

    def what_is_done(words: Words) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple(words["done"].items())

    beginning = {x: atomic(f"{x} begins", partial(begin, x)) for x in members}
    finishing = {x: atomic(f"{x} is done", partial(finish, x)) for x in members}
    letting_go = {
        x: (
            atomic(f"{x} shows it", partial(show, x)),
            atomic(f"{x} lets go", partial(pass_over, x)),
        )
        for x in members
    }
    looking_at_done = atomic("what is done", what_is_done)

    def watcher(x: str) -> Program:
        yield until_dead(x)
        yield store(f"dead[{x}]", 1)

    def joiner(x: str) -> Program:
        yield store(f"wants[{x}]", 1)

    def leaver(x: str) -> Program:
        yield store(f"wants[{x}]", 0)
        if returns:
            yield store(f"wants[{x}]", 1)

    def at_rest(view: View) -> str | None:
        done = sum(len(each) for each in view["done"].values())
        if done != len(sent):
            return f"only {done} of {len(sent)} are done or dead letters"
        if view["letters"] and backlogs and not {*at_first} <= {*mortal, *leaves}:
            return "a dead letter, though there was always a member"
        return None

    words: Words = {"epoch": 1, "settled": 1, "sent": 0, "owed": (), "letters": 0}
    words["done"] = Done(dict.fromkeys(wants_most, ()))
    for x in members:
        there = int(x in at_first)
        words |= {f"whom[{x}]": there, f"joined[{x}]": 1, f"left[{x}]": 0, f"mark[{x}]": 0}
        words |= {f"ring[{x}]": (), f"wait[{x}]": (), f"reclaim[{x}]": 0, f"dead[{x}]": 0}
        words |= {f"taken[{x}]": 0, f"tail[{x}]": 0, f"from[{x}]": 0}
        words |= {f"wants[{x}]": there}
    programs = {"d": dispatcher} | {x: partial(member, x) for x in members}
    programs |= {f"watcher of {x}": partial(watcher, x) for x in members if x in mortal}
    programs |= {f"{x} joins": partial(joiner, x) for x in joins}
    programs |= {f"{x} leaves": partial(leaver, x) for x in leaves}
    return Model(
        words=words,
        programs=programs,
        at_rest=at_rest,
        buffered=False,
        kills=kills,
        mortal=mortal,
        heirs={"d": successor},
    )
