"""Queues: who sleeps is woken, and a kill loses and doubles nothing.

Describes shmbus/queues/native: sleep.h (`sleeping`), put.h and chain.h (`putting`), get.h, hand.h,
rows.h and orphan.h (`taking`).

`sleeping`.  `naps` is raised by who is about to sleep, after it has read `number` and before it
looks; `rung` and `number` are raised by the holder of the role, after it has published, a fence,
and a look at `naps`.  Shown, with store buffers as on x86-TSO and no time limit: nobody sleeps
while there is a message for it.

`putting`.  A holder stores what the count will be when the head is at its next position, moves the
head, stores the count; where the ring is full it makes the next one and links it with one store.
Killed at any step, twice.  Shown: what is visible is what is counted, in every ring of the chain,
and a consumer that follows it gets all, and leaves no ring behind.

`taking`.  The row names what is taken before the tail moves; who heals the role takes back what
the tail did not pass; who buries says first in the book what it does; who takes over writes its own
row between two entries in the book.  Two of three users are killed, at any step.  Shown: each
message is completed by its taker, or comes to somebody else, once.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .explore import Model, Part, Program, Step, View, atomic, fence, load, store, until

Words = dict[str, Any]


def sleeping(
    *,
    messages: int = 2,
    fenced: bool = True,
    number_before_nap: bool = True,
    number_is_raised: bool = True,
    looks_after_nap: bool = True,
    a_vain_wake_ends_naps: str = "those counted before it",
) -> Model:
    """Two consumers, each of whom wants one message, and one who holds the producers' role."""

    def take(words: Words) -> bool:
        if words["put"] > words["taken"]:
            words["taken"] += 1
            return True
        return False

    taking = atomic("take", take)

    def nap(words: Words) -> bool:
        words["naps"] += 1
        return True

    napping = atomic("naps + 1", nap)

    def futex_wait(who: str, number: int, words: Words) -> bool:
        words[f"asleep[{who}]"] = words["number"] == number
        return True

    def futex_wake(words: Words) -> int:
        for who in ("a", "b"):
            if words[f"asleep[{who}]"]:
                words[f"asleep[{who}]"] = False
                return 1
        return 0

    waiting = {
        (who, number): atomic(f"futex_wait {number}", partial(futex_wait, who, number))
        for who in "ab"
        for number in range(messages + 1)
    }
    awaking = {who: atomic("asleep", partial(_awake, who)) for who in "ab"}
    waking = atomic("futex_wake", futex_wake)

    def consumer(who: str) -> Program:
        while not (yield taking):
            number = 0
            if number_before_nap:
                number = yield load("number")
            there = False
            if not looks_after_nap:
                put = yield load("put")
                taken = yield load("taken")
                there = put > taken
                del put, taken
            yield napping
            if looks_after_nap:
                put = yield load("put")
                taken = yield load("taken")
                there = put > taken
                del put, taken
            if not number_before_nap:
                number = yield load("number")
            if there:
                continue
            yield waiting[who, number]
            del number, there
            yield awaking[who]

    def producer() -> Program:
        none_asleep = 0
        for message in range(1, messages + 1):
            yield store("put", message)
            if fenced:
                yield fence()
            naps = yield load("naps")
            rung = yield load("rung")
            if naps == rung:
                continue
            yield store("rung", max(rung, none_asleep) + 1 if naps > none_asleep else naps)
            if number_is_raised:
                yield store("number", message)
            del rung
            if naps > none_asleep:
                yield fence()
                woken = yield waking
                if not woken:
                    after = 0
                    if a_vain_wake_ends_naps == "all until now":
                        after = yield load("naps")
                    none_asleep = max(naps, after)
                    del after
                del woken
            del naps

    def at_rest(view: View) -> str | None:
        asleep = [who for who in "ab" if view[f"asleep[{who}]"]]
        left = view["put"] - view["taken"]
        return f"{left} messages while {asleep} sleep" if left and asleep else None

    return Model(
        words=dict.fromkeys(("put", "taken", "naps", "rung", "number"), 0)
        | dict.fromkeys(("asleep[a]", "asleep[b]"), False),
        programs={"a": partial(consumer, "a"), "b": partial(consumer, "b"), "producer": producer},
        at_rest=at_rest,
        writers={"put": "producer", "rung": "producer", "number": "producer"},
    )


def _awake(who: str, words: Words) -> bool | None:
    return None if words[f"asleep[{who}]"] else True


def _lock(lock: str, who: str, words: Words) -> bool | None:
    if words[lock]:
        return None
    words[lock] = who
    return True


def locking(lock: str, who: str) -> Step:
    return atomic(f"lock {lock}", partial(_lock, lock, who))


def putting(
    *,
    kills: int = 2,
    count_is_stored_before_the_head: bool = False,
    next_is_stored_before_the_head: bool = True,
    linked_once_complete: bool = True,
    left_rings_are_looked_at_again: bool = True,
    healed: bool = True,
) -> Model:
    """Each of two puts one message, then the second a third; a ring has room for one message."""
    locked = {who: locking("lock", who) for who in "pq"}

    def put(who: str, messages: int) -> Program:
        for _ in range(messages):
            yield locked[who]
            yield from heal()
            ring = yield load("ring")
            head = yield load(f"head[{ring}]")
            count = yield load("count")
            if head > ring:  # full: it begins at its own number
                if linked_once_complete:
                    yield store(f"made[{ring + 1}]", True)
                yield store("ring", ring + 1)
                if not linked_once_complete:
                    yield store(f"made[{ring + 1}]", True)
                ring, head = ring + 1, ring + 1
            if next_is_stored_before_the_head:
                yield store("next", (head + 1, count + 1))
            if count_is_stored_before_the_head:
                yield store("count", count + 1)
            yield store(f"head[{ring}]", head + 1)
            if not count_is_stored_before_the_head:
                yield store("count", count + 1)
            if not next_is_stored_before_the_head:
                yield store("next", (head + 1, count + 1))
            del ring, head, count
            yield store("lock", "")
        yield atomic("ended", ended)

    def ended(words: Words) -> bool:
        words["over"] += 1
        return True

    def heal() -> Part[None]:
        hurt = yield load("hurt")
        if hurt and healed:
            ring = yield load("ring")
            head = yield load(f"head[{ring}]")
            following = yield load("next")
            if following[0] == head:
                yield store("count", following[1])
            yield store("hurt", False)

    def die(who: str, words: Words) -> bool:
        if words["lock"] == who:
            words["lock"], words["hurt"] = "", True
        words["over"] += 1
        return True

    def consumer() -> Program:
        ring, tail = 0, 0
        while True:
            over = yield load("over")
            head = yield load(f"head[{ring}]")
            if head > tail:
                tail = head
                continue
            at = yield load("ring")
            if at > ring:
                if left_rings_are_looked_at_again:
                    head = yield load(f"head[{ring}]")
                    if head > tail:
                        tail = head
                        continue
                made = yield load(f"made[{ring + 1}]")
                assert made, "the ring that is linked is not complete"
                assert tail == ring + 1 or over is None, "a message stays behind in a ring"
                ring, tail = ring + 1, ring + 1
                continue
            if over == 2:
                break
            del at, head
            yield until("over", over + 1)
        yield locked["q"]
        yield from heal()
        count = yield load("count")
        assert count == tail, f"{count} are counted, {tail} are there"

    return Model(
        words={f"head[{i}]": i for i in range(4)}
        | {f"made[{i}]": i == 0 for i in range(4)}
        | {"lock": "", "hurt": False, "ring": 0, "count": 0, "next": (0, 0), "over": 0},
        programs={"p": partial(put, "p", 1), "q": partial(put, "q", 2), "consumer": consumer},
        at_rest=lambda view: None if view.status("consumer") == "ended" else "it waits for ever",
        buffered=False,
        kills=kills,
        mortal=("p", "q"),
        heirs={who: partial(_dies, atomic("die", partial(die, who))) for who in "pq"},
    )


def _dies(dying: Step) -> Program:
    yield dying


def taking(
    *,
    kills: int = 2,
    named_before_the_tail: bool = True,
    corrected: bool = True,
    step_is_written_first: bool = True,
    taker_before_the_orphan: bool = True,
    taker_is_looked_at: bool = True,
) -> Model:
    """t and s take two messages; f, who is not killed, takes what is left by them and there."""
    users = "tsf"
    consuming = {who: locking("role", who) for who in users}
    booking = {who: locking("book", who) for who in users}

    def heal() -> Part[None]:
        """Of the role: what a dead holder named and did not take is not in its hand."""
        hurt = yield load("hurt")
        if hurt:
            tail = yield load("tail")
            named = yield load(f"hand[{hurt}]")
            if corrected and named is not None and named >= tail:
                yield store(f"hand[{hurt}]", None)
            del tail, named
            yield store("hurt", "")

    def finish() -> Part[None]:
        """What the book says that its holder is in the midst of."""
        step = yield load("step")
        if step is None:
            return
        what, row, taker, position = step
        del step
        if what == "bury":
            named = yield load(f"hand[{row}]")
            yield store(f"state[{row}]", "free" if named is None else "orphan")
            del named
        else:
            named = yield load(f"hand[{taker}]")
            if named == position or not taker_is_looked_at:
                yield store(f"hand[{row}]", None)
                yield store(f"state[{row}]", "free")
            del named
        yield store("step", None)

    def bury(who: str) -> Part[None]:
        dead = yield load("dead")
        if not dead:
            return
        yield consuming[who]
        yield from heal()
        yield store("role", "")
        yield booking[who]
        yield from finish()
        for other in dead:
            state = yield load(f"state[{other}]")
            if state == "used":
                yield store("step", ("bury", other, "", 0))
                yield from finish()
            del state
        yield store("book", "")

    def get(who: str) -> Part[Any]:
        yield from bury(who)
        yield booking[who]
        yield from finish()
        for other in users:
            state = yield load(f"state[{other}]")
            if state == "orphan":
                del state
                position = yield load(f"hand[{other}]")
                assert position is not None, "an orphan has nothing in hand"
                if step_is_written_first:
                    yield store("step", ("take", other, who, position))
                if taker_before_the_orphan:
                    yield store(f"hand[{who}]", position)
                    yield from finish()
                if not (step_is_written_first and taker_before_the_orphan):
                    yield store(f"hand[{other}]", None)
                    yield store(f"state[{other}]", "free")
                    yield store(f"hand[{who}]", position)
                    yield store("step", None)
                yield store("book", "")
                return position
            del state
        yield store("book", "")
        yield consuming[who]
        yield from heal()
        tail = yield load("tail")
        if tail == 2:
            yield store("role", "")
            return None
        if named_before_the_tail:
            yield store(f"hand[{who}]", tail)
        yield store("tail", tail + 1)
        if not named_before_the_tail:
            yield store(f"hand[{who}]", tail)
        yield store("role", "")
        return tail

    def complete(who: str, position: int, words: Words) -> bool:
        words[f"hand[{who}]"] = None
        words["completed"] += (position,)
        return True

    completing = {
        (who, position): atomic(f"complete {position}", partial(complete, who, position))
        for who in users
        for position in (0, 1)
    }

    def user(who: str) -> Program:
        while True:
            position = yield from get(who)
            if position is None:
                break
            yield completing[who, position]
            del position
        yield store(f"state[{who}]", "left")

    def die(who: str, words: Words) -> bool:
        if words["role"] == who:
            words["role"], words["hurt"] = "", words["hurt"] or who
        if words["book"] == who:
            words["book"] = ""
        words["dead"] += (who,)
        return True

    def others_over(words: Words) -> bool | None:
        over = [words[f"state[{who}]"] != "used" or who in words["dead"] for who in "ts"]
        return True if all(over) else None

    awaiting = atomic("the others are over", others_over)

    def survivor() -> Program:
        yield awaiting
        yield from user("f")

    def at_rest(view: View) -> str | None:
        if view.status("f") != "ended":
            return "the survivor waits for ever"
        return None if sorted(view["completed"]) == [0, 1] else f"completed: {view['completed']}"

    words: Words = {f"hand[{who}]": None for who in users} | {f"state[{w}]": "used" for w in users}
    words |= {"role": "", "book": "", "hurt": "", "step": None, "tail": 0}
    words |= {"completed": (), "dead": ()}
    programs: dict[str, Callable[[], Program]] = {w: partial(user, w) for w in "ts"}
    return Model(
        words=words,
        programs=programs | {"f": survivor},
        at_rest=at_rest,
        buffered=False,
        kills=kills,
        mortal=("t", "s"),
        heirs={who: partial(_dies, atomic("die", partial(die, who))) for who in "ts"},
    )
