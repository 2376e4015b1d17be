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

A successor reads all of that, and goes on.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .explore import Model, Program, View, atomic, choose, load, store

Words = dict[str, Any]
SENDERS = (0, 1)
TOTAL = 2


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

    looking = atomic("look", look)

    def dispatcher() -> Program:
        while True:
            answers = yield looking
            s, answer = yield choose("whom first", answers)
            del answers
            yield store(f"granted[{s}]", answer)
            del s, answer

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
