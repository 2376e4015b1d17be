"""Growth of pools: all of them together never have more reserved than they may.

Describes growth.h in shmbus/dispatcher/native and pool.h in shmbus/endpoint/native, with two
senders, of which each would have all that there is.

The words, and who writes each:

    asked[s]      sender s: the number of its question, and how many pages it wants
    reserved[s]   sender s: how many it has
    granted[s]    dispatcher: the last question that it answers, and how many pages s may have

The steps:

    to have more    asked = the next number, and how many
    to have less    reserved, fewer; only then asked likewise
    sender          granted has that number? so many. Not yet? the lesser of what it might have, and
                    wants
    dispatcher      what the others were granted leaves so many: granted = the number, the lesser of
                    that and what is wanted

    who waits       was only a part granted, for long? it gives back what is not in use; that is
                    answered; then it asks anew

    short           dispatcher: how many pages are wanted and not granted
    who is idle     short? it gives back all, and asks for none

A successor reads all of that, and goes on. :func:`growth` has senders that come to an end whatever
they are granted, :func:`parts` those that wait until they have all, :func:`idle` one that waits for
what another has and does not use.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .explore import Model, Program, Step, View, atomic, choose, load, store, until

Words = dict[str, Any]
Look = Callable[[Words], Any]
SENDERS = (0, 1)
TOTAL = 2


def looks(granted_is_counted: bool) -> Look:
    def look(words: Words) -> tuple[tuple[int, tuple[int, int]], ...] | None:
        answers = []
        for s in SENDERS:
            number, want = words[f"asked[{s}]"]
            others = words[f"{'granted' if granted_is_counted else 'reserved'}[{1 - s}]"]
            left = TOTAL - (others[1] if granted_is_counted else others)
            answer = (number, min(want, left))
            if number and answer != words[f"granted[{s}]"]:
                answers.append((s, answer))
        return tuple(answers) or None

    return look


def answering(looking: Step) -> Program:
    while True:
        answers = yield looking
        s, answer = yield choose("whom first", answers)
        del answers
        yield store(f"granted[{s}]", answer)
        del s, answer


def growth(
    *,
    kills: int = 1,
    gives_back_first: bool = True,
    answer_is_numbered: bool = True,
    lesser_until_answered: bool = True,
    granted_is_counted: bool = True,
) -> Model:
    def sender(s: int) -> Program:
        might, has = 0, 0
        for number, want in enumerate((2, 1, 2) if s else (2, 0), start=1):
            if not gives_back_first:
                yield store(f"asked[{s}]", (number, want))
            if want < has:
                has = want
                yield store(f"reserved[{s}]", has)
            if gives_back_first:
                yield store(f"asked[{s}]", (number, want))
            might = min(might, want) if lesser_until_answered else might
            for _ in (1, 2):
                granted = yield load(f"granted[{s}]")
                if granted[0] == number or not answer_is_numbered:
                    might = granted[1]
                del granted
                if has < min(might, want):
                    has = min(might, want)
                    yield store(f"reserved[{s}]", has)

    looking = atomic("look", looks(granted_is_counted))

    def dispatcher() -> Program:
        yield from answering(looking)

    def invariant(view: View) -> str | None:
        reserved = sum(view[f"reserved[{s}]"] for s in SENDERS)
        return f"{reserved} pages are reserved" if reserved > TOTAL else None

    words: Words = {f"asked[{s}]": (0, 0) for s in SENDERS}
    words |= {f"granted[{s}]": (0, 0) for s in SENDERS} | {f"reserved[{s}]": 0 for s in SENDERS}
    return Model(
        words=words,
        programs={
            "sender 0": partial(sender, 0),
            "sender 1": partial(sender, 1),
            "dispatcher": dispatcher,
        },
        at_rest=lambda view: None,
        invariant=invariant,
        buffered=False,
        kills=kills,
        mortal=("dispatcher",),
        heirs={"dispatcher": dispatcher},
    )


def parts(*, parts_are_given_back: bool = True) -> Model:
    """Each has a half, waits until it has all that there is, and then needs it no more."""

    def sender(s: int) -> Program:
        asked, number = f"asked[{s}]", 1
        yield store(asked, (number, TOTAL))
        while True:
            pages = yield answers[s, number]
            if pages == TOTAL:
                break
            del pages
            if parts_are_given_back and (yield choose("for long?", (False, True))):
                yield store(asked, (number + 1, 0))
                yield answers[s, number + 1]
                number = (number + 2) % 4
                yield store(asked, (number, TOTAL))
        yield store(asked, (number + 1, 0))

    def answer_to(granted: str, number: int) -> Look:
        return lambda words: words[granted][1] if words[granted][0] == number else None

    answers = {
        (s, number): atomic(f"answer {number}", answer_to(f"granted[{s}]", number))
        for s in SENDERS
        for number in (1, 2, 3, 4)
    }
    looking = atomic("look", looks(True))
    words: Words = {f"{word}[{s}]": (4, 1) for word in ("asked", "granted") for s in SENDERS}
    return Model(
        words=words,
        programs={
            "sender 0": partial(sender, 0),
            "sender 1": partial(sender, 1),
            "dispatcher": partial(answering, looking),
        },
        at_rest=lambda view: (
            None
            if all(view[f"asked[{s}]"][1] == 0 for s in SENDERS)
            else "one waits for what another has been granted"
        ),
        buffered=False,
    )


def idle(*, kills: int = 2, says: bool = True, says_anew: bool = True) -> Model:
    """0 has all that there is and does not use it; 1 waits until it has that."""

    def looking_short(words: Words) -> tuple[tuple[str, Any], ...] | None:
        jobs = [("grant", answer) for answer in looks(True)(words) or ()]
        wanted = sum(words[f"asked[{s}]"][1] - words[f"granted[{s}]"][1] for s in SENDERS)
        if not jobs and says and words["short"] != wanted:
            jobs.append(("say", wanted))
        return tuple(jobs) or None

    looking = atomic("look", looking_short)

    def dispatcher() -> Program:
        while True:
            jobs = yield looking
            job, what = yield choose("what first", jobs)
            del jobs
            if job == "grant":
                s, answer = what
                yield store(f"granted[{s}]", answer)
                del s, answer
            else:
                yield store("short", what)
            del job, what

    def successor() -> Program:
        if not says_anew:
            yield until("never", 1)
        yield from dispatcher()

    def owner() -> Program:
        yield until("short", 1)
        yield store("asked[0]", (2, 0))

    def waiter() -> Program:
        yield store("asked[1]", (1, TOTAL))
        yield atomic("all of it", lambda words: words["granted[1]"] == (1, TOTAL) or None)
        yield store("asked[1]", (2, 0))

    words: Words = {"asked[0]": (1, TOTAL), "granted[0]": (1, TOTAL), "short": 0, "never": 0}
    words |= {"asked[1]": (0, 0), "granted[1]": (0, 0)}
    return Model(
        words=words,
        programs={"sender 0": owner, "sender 1": waiter, "dispatcher": dispatcher},
        at_rest=lambda view: (
            ("1 waits for what 0 does not use" if view.status("sender 1") != "ended" else None)
            or ("something is said to be short" if view["short"] else None)
        ),
        buffered=False,
        kills=kills,
        mortal=("dispatcher",),
        heirs={"dispatcher": successor},
    )
