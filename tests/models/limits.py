"""Limits: whose handler has taken longer than it may is told, and nobody else is.

Describes shmbus/endpoint/native/limit.h and shmbus/dispatcher/native/limits.h.

The words, and who writes each:

    limit      endpoint     when the time of the message that is named beside it is over; 0:
                            there is none
    what       endpoint     that message
    reply[m]   endpoint     its reply, in the endpoint's ring
    ended[m]   dispatcher   how the request ended: with its reply, or with an error
    told       dispatcher   the `limit` of which it has told

The steps:

    a handler begins, or gets a limit while it is at work
                          what = m; limit = now + what it may take
    it returns, or is about to answer what has a limit of its own
                          limit = 0; reply[m]
    the dispatcher looks  limit.load; is it over, and not told of? what.load; limit.load again: is
                          it the same? Then the replies first; m has not ended? An error ends it
                          told = limit

Why it holds.  Whoever reads `what` of the next message reads another `limit` afterwards: it was 0
in between, and the next one lies in the future of a moment at which this one was over.  A reply
that was in the ring before is read before, however late the dispatcher is.  `told` comes last: a
dispatcher that is killed in between leaves it to the next one, which finds what has ended.

What is explored: store buffers as on x86-TSO; two messages one after the other at one handler,
which may hang at either; time that passes at any step; a handler that replies itself and goes on; a
kill of the dispatcher at every step.  Shown: an error never comes before the time is over, nor to
whom a reply was there in time; and whoever's handler hangs gets one.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .explore import Model, Part, Program, View, atomic, choose, load, store

Words = dict[str, Any]
MESSAGES = (1, 2)


def limits(
    *,
    ticks: int = 3,
    kills: int = 1,
    replies_itself: bool = False,
    named_before_the_limit: bool = True,
    cleared_between: bool = True,
    read_again: bool = True,
    replies_first: bool = True,
    told_last: bool = True,
) -> Model:
    """Each may take one tick. With `replies_itself` the handler goes on after it has replied."""

    def begin(m: int, words: Words) -> int:
        words[f"until[{m}]"] = words["time"] + 1
        return int(words["time"]) + 1

    def reply(m: int, words: Words) -> bool:
        words[f"reply[{m}]"] = 1 + words["time"]
        return True

    def look(words: Words) -> int | None:
        """What is over, 0 where there are replies, or it sleeps."""
        if 0 < words["limit"] <= words["time"] and words["limit"] != words["told"]:
            return int(words["limit"])
        waits = any(words[f"reply[{m}]"] and not words[f"ended[{m}]"] for m in MESSAGES)
        return 0 if waits else None

    def forward(words: Words) -> bool:
        for m in MESSAGES:
            if words[f"reply[{m}]"] and not words[f"ended[{m}]"]:
                words[f"ended[{m}]"] = "reply"
        return True

    def fail(m: int, words: Words) -> bool:
        if m and not words[f"ended[{m}]"]:
            words[f"ended[{m}]"] = "error"
            replied = words[f"reply[{m}]"]
            if words["time"] < words[f"until[{m}]"]:
                words["wrong"] = f"{m} ended before its time was over"
            elif replied and replied - 1 < words[f"until[{m}]"]:
                words["wrong"] = f"{m} had its reply in time"
        return True

    def tick(words: Words) -> bool:
        words["time"] += 1
        return True

    beginning = {m: atomic(f"begin {m}", partial(begin, m)) for m in MESSAGES}
    replying = {m: atomic(f"reply to {m}", partial(reply, m)) for m in MESSAGES}
    failing = {m: atomic(f"fail {m}", partial(fail, m)) for m in (0, *MESSAGES)}
    looking, forwarding = atomic("look", look), atomic("forward replies", forward)
    ticking = atomic("time passes", tick)

    def handler() -> Program:
        for m in MESSAGES:
            until = yield beginning[m]
            if named_before_the_limit:
                yield store("what", m)
            yield store("limit", until)
            if not named_before_the_limit:
                yield store("what", m)
            del until
            if replies_itself:
                yield replying[m]
            hangs = yield choose("does it hang?", (False, True))
            if hangs:
                return
            del hangs
            if cleared_between:
                yield store("limit", 0)
            if not replies_itself:
                yield replying[m]
        if not cleared_between:
            yield store("limit", 0)

    def tell(until: int) -> Part[None]:
        m = yield load("what")
        again = until
        if read_again:
            again = yield load("limit")
        if again != until:
            return
        del again
        if not told_last:
            yield store("told", until)
        if replies_first:
            yield forwarding
        yield failing[m]
        if told_last:
            yield store("told", until)

    def dispatcher() -> Program:
        while True:
            until = yield looking
            if until:
                yield from tell(until)
            else:
                yield forwarding
            del until

    def time() -> Program:
        for _ in range(ticks):
            yield ticking

    def invariant(view: View) -> str | None:
        return view["wrong"] or None

    def at_rest(view: View) -> str | None:
        if view.status("dispatcher") == "killed":
            return None
        for m in MESSAGES:
            over = 0 < view[f"until[{m}]"] <= view["time"]
            if over and not view[f"ended[{m}]"]:
                return f"{m} waits for ever"
        return None

    words: Words = {"time": 0, "limit": 0, "what": 0, "told": 0, "wrong": ""}
    words |= {f"{word}[{m}]": 0 for word in ("until", "reply", "ended") for m in MESSAGES}
    return Model(
        words=words,
        programs={"handler": handler, "dispatcher": dispatcher, "time": time},
        at_rest=at_rest,
        invariant=invariant,
        kills=kills,
        mortal=("dispatcher",),
        heirs={"dispatcher": dispatcher},
    )
