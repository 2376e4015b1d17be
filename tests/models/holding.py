"""Taking and holding: what a dead endpoint had not touched, had begun, and had done.

Describes shmbus/endpoint/native/take.h and hold.h, and what the dispatcher does with
it at a death.

The words are all the endpoint's:

    taken                 the first record not surfaced; moved by the endpoint's leader alone
    held[k].position      a group message begun (0: the entry is free), and
    held[k].done          whether it is done; marked by the thread that handled it
    tail                  the least position held and not done, or else `taken`

The steps:

    take:   a group message: in a free entry done = 0, then position = its
            taken = position + 1
            then it is surfaced
    done:   held[k].done = 1, then position = 0; tail = the least held and not done, or taken

A record is, once its receiver is dead, untouched from `taken` on; begun, where a held entry names
it and is not done; else done.  The untouched goes to another member as it was, the begun once more
with its attempt counted.

Why in this order.  A message is entered before `taken` moves: after a kill in between it is held
*and* untouched, and untouched is checked first.  The other way round it would be neither.  An entry
is free while its `done` is reset: else the message that it held before would be begun again.

What is explored: the leader and two handler threads that finish in any order, two held entries,
plain and group messages between each other.  The process may be killed at every step: the words
as they are then are judged, as the dispatcher would, in every state.  Shown: no message
that is not finished is taken for done or lies before the tail, none that was surfaced goes on as
untouched, none whose end was marked goes on at all.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .explore import Model, Part, Program, View, atomic, store

Words = dict[str, Any]


def holding(
    ring: str = "gpggp",
    entries: int = 2,
    *,
    held_before_taken: bool = True,
    entry_is_freed_when_done: bool = True,
    taken_before_surfaced: bool = True,
    done_is_marked_after_the_work: bool = True,
    tail_waits_for_the_held: bool = True,
    untouched_is_asked_first: bool = True,
) -> Model:
    """A ring of plain (p) and group (g) messages; positions begin with 1."""
    head = len(ring) + 1
    all_entries = tuple(range(entries))

    def is_held(words: Words, position: int) -> bool:
        return any(
            words[f"held[{k}].position"] == position and not words[f"held[{k}].done"]
            for k in all_entries
        )

    def free_entry(words: Words) -> int | None:
        """None: all are in use, the leader waits."""
        in_use = {k for k, _ in words["queue"]} | set(words["in work"])
        return next((k for k in all_entries if k not in in_use), None)

    def surface(position: int, words: Words) -> bool:
        words["surfaced"] |= {position}
        return True

    def pass_on(k: int, position: int, words: Words) -> bool:
        words["queue"] = (*words["queue"], (k, position))
        return True

    def next_work(words: Words) -> tuple[int, int] | None:
        if not words["queue"]:
            return None
        (k, position), *rest = words["queue"]
        words["queue"] = tuple(rest)
        words["in work"] |= {k}
        words["surfaced"] |= {position}
        return k, position

    def finish(position: int, words: Words) -> bool:
        words["finished"] |= {position}
        return True

    def let_go(k: int, position: int, words: Words) -> bool:
        words["in work"] -= {k}
        words["marked"] |= {position}
        return True

    def move_tail(words: Words) -> bool:
        """Under the endpoint's lock."""
        held = [words[f"held[{k}].position"] for k in all_entries if not words[f"held[{k}].done"]]
        here = [position for position in held if 0 < position < words["taken"]]
        least = min(here, default=words["taken"])
        words["tail"] = max(words["tail"], least if tail_waits_for_the_held else words["taken"])
        return True

    def judge(words: Words) -> tuple[str, ...]:
        """What the dispatcher makes of each record once the endpoint is dead."""
        verdicts = []
        for position in range(1, head):
            begun = ring[position - 1] == "g" and is_held(words, position)
            untouched = position >= words["taken"]
            if position < words["tail"]:
                verdicts.append("gone")
            elif untouched and (untouched_is_asked_first or not begun):
                verdicts.append("untouched")
            else:
                verdicts.append("begun" if begun else "done")
        return tuple(verdicts)

    finding_entry, taking_work = atomic("find an entry", free_entry), atomic("next", next_work)
    moving_tail = atomic("tail", move_tail)
    by_position = range(1, head)
    surfacing = {at: atomic(f"surface {at}", partial(surface, at)) for at in by_position}
    finishing = {at: atomic(f"finish {at}", partial(finish, at)) for at in by_position}
    both = [(k, at) for k in all_entries for at in by_position]
    passing = {(k, at): atomic(f"pass on {at}", partial(pass_on, k, at)) for k, at in both}
    letting = {(k, at): atomic(f"let go of {at}", partial(let_go, k, at)) for k, at in both}

    def hold(k: int, position: int) -> Part[None]:
        yield store(f"held[{k}].done", 0)
        yield store(f"held[{k}].position", position)

    def leader() -> Program:
        for position in by_position:
            if ring[position - 1] == "p":
                if not taken_before_surfaced:
                    yield surfacing[position]
                yield store("taken", position + 1)
                if taken_before_surfaced:
                    yield surfacing[position]
            else:
                k = yield finding_entry
                if not held_before_taken:
                    yield store("taken", position + 1)
                yield from hold(k, position)
                if held_before_taken:
                    yield store("taken", position + 1)
                yield passing[k, position]
                del k
            yield moving_tail

    def handler() -> Program:
        while True:
            k, position = yield taking_work
            if not done_is_marked_after_the_work:
                yield store(f"held[{k}].done", 1)
            yield finishing[position]
            if done_is_marked_after_the_work:
                yield store(f"held[{k}].done", 1)
            if entry_is_freed_when_done:
                yield store(f"held[{k}].position", 0)
            yield letting[k, position]
            yield moving_tail
            del k, position

    def invariant(view: View) -> str | None:
        """What a death at this very step would bring."""
        words = {word: view[word] for word in words_at_first}
        for position, verdict in enumerate(judge(words), start=1):
            over = verdict in ("gone", "done")
            unfinished = ring[position - 1] == "g" and position not in view["finished"]
            if over and unfinished:
                return f"{position} is {verdict} and was not finished"
            if position in view["surfaced"] and verdict == "untouched":
                return f"{position} was surfaced and is taken for untouched"
            if position in view["marked"] and not over:
                return f"{position} was done and is {verdict}"
            if position >= view["taken"] and verdict == "begun":
                return f"{position} was not begun"
        return None

    def at_rest(view: View) -> str | None:
        if view["tail"] < head:
            return f"the tail stays at {view['tail']}"
        return None

    nobody: frozenset[int] = frozenset()
    words_at_first: Words = {"taken": 1, "tail": 1, "queue": (), "in work": nobody}
    words_at_first |= dict.fromkeys(("surfaced", "finished", "marked"), nobody)
    words_at_first |= {f"held[{k}].{word}": 0 for k in all_entries for word in ("position", "done")}
    return Model(
        words=words_at_first,
        programs={"leader": leader, "handler 1": handler, "handler 2": handler},
        at_rest=at_rest,
        invariant=invariant,
        buffered=False,
    )
