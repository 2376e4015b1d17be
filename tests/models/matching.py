"""Is anybody there? Whoever asked is told at changes, each once, whatever dies in between.

Describes shmbus/dispatcher/native/matching.h and tell.h, and shmbus/endpoint/matching.py.

The words, and who writes each:

    log        consumer     how often it has changed its interests: it subscribes, changes another
                            one, leaves
    routes     dispatcher   `routes_version`, which stays when a dispatcher dies
    ring       dispatcher   what it has told and nobody has taken: (receivers, version)
    noted      producer     the latest of what was told: (receivers, version)
    known      producer     what the callback was called with last
    calling    producer     a thread is in the callback

The steps:

    the dispatcher   reads the log: routes + 1; at the end of the pass, is what is so not what it
                     told last? Into the ring, if there is space; then it has told that
    a thread         takes what was told; is its version later than that noted? noted = it
                     nobody calls, and `known` is something else? calling; known = it; the callback
                     not calling any more; the same again

Why it holds.  What is told is state, so the last that was told is what counts, and what was told
twice is no change.  A dispatcher that does not know what was told tells.  Versions only rise, also
from one dispatcher to the next, so of two that threads have taken in the wrong order the later one
is known.  Whoever finds another thread in the callback has noted before it looked, and that thread
looks again when it is out.

What is explored: a consumer that comes and goes; a ring with space for one; two threads of the
producer; a kill of the dispatcher at every step.  Shown: the callback is called with somebody and
nobody in turns, by one thread at a time, not more often than the consumer came or went; and in the
end it knows what is so.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from typing import Any

from .explore import Model, Part, Program, View, atomic, store

Words = dict[str, Any]
NOTHING = -1

RECEIVES = (0, 1, 1, 0)
"""Whether the consumer does, after so many changes."""

CAME_OR_WENT = (0, 1, 1, 2)


def matching(
    *,
    changes: int = 3,
    kills: int = 1,
    told_by_adopters: bool = True,
    told_only_with_space: bool = True,
    told_at_the_end: bool = True,
    lasting_versions: bool = True,
    latest_counts: bool = True,
    one_calls: bool = True,
    looks_again: bool = True,
) -> Model:
    """Without `told_at_the_end` what is so is told in the midst of reading a log anew, too."""

    def consumer() -> Program:
        for change in range(1, changes + 1):
            yield store("log", change)

    def look(words: Words) -> bool | None:
        """Sleeps while it has read the log, and has told what is so or finds no space."""
        unread = words["log"] != words["read"]
        untold = RECEIVES[words["read"]] != words["told"] and not words["ring"]
        return True if unread or untold else None

    def read(words: Words) -> bool:
        """Its memory is lost with it: `read` and `told` are set anew by who adopts."""
        if words["log"] != words["read"]:
            words["read"] = words["log"]
            words["routes"] += 1
        return True

    def publish(words: Words) -> int:
        """What it has told by now."""
        receivers = RECEIVES[words["read"]]
        if receivers != words["told"] and not words["ring"]:
            words["ring"] = ((receivers, words["routes"]),)
            return receivers
        return receivers if not told_only_with_space else int(words["told"])

    def publish_nobody(words: Words) -> bool:
        """In the midst of reading a log anew, with nothing in it yet."""
        if words["told"] == 1 and not words["ring"]:
            words["routes"] += 1
            words["ring"] = ((0, words["routes"]),)
            words["told"] = 0
        return True

    def adopt(words: Words) -> bool:
        words["read"] = NOTHING
        words["told"] = NOTHING if told_by_adopters else 0
        if not lasting_versions:
            words["routes"] = 0
        return True

    looking, reading, publishing = (
        atomic("look", look),
        atomic("read the log", read),
        atomic("tell", publish),
    )
    reading_none, adopting = (
        atomic("tell in the midst of it", publish_nobody),
        atomic("adopt", adopt),
    )

    def dispatcher() -> Program:
        while True:
            yield looking
            if not told_at_the_end:
                yield reading_none
            yield reading
            told = yield publishing
            yield store("told", told)
            del told

    def successor() -> Program:
        yield adopting
        yield from dispatcher()

    def take(words: Words) -> tuple[int, int] | None:
        if not words["ring"]:
            return None
        (told,) = words["ring"]
        words["ring"] = ()
        return told  # type: ignore[no-any-return]

    def begin_call(words: Words) -> bool:
        """Whether this thread is to call."""
        receivers = words["noted"][0]
        if (one_calls and words["calling"]) or receivers == words["known"]:
            return False
        words["calling"] += 1
        words["known"] = receivers
        words["calls"] = (*words["calls"], receivers)
        return True

    def end_call(words: Words) -> bool:
        words["calling"] -= 1
        return True

    taking, beginning, ending = (
        atomic("take", take),
        atomic("begin to call", begin_call),
        atomic("end the call", end_call),
    )

    def note(told: tuple[int, int]) -> Any:
        def effect(words: Words) -> bool:
            if told[1] > words["noted"][1] or not latest_counts:
                words["noted"] = told
            return True

        return effect

    notes = {
        (receivers, version): atomic(
            f"note {receivers} of version {version}", note((receivers, version))
        )
        for receivers in (0, 1)
        for version in range(3 * changes + 8)
    }

    def call() -> Part[None]:
        calls = yield beginning
        while calls:
            yield ending
            calls = False
            if looks_again:
                calls = yield beginning

    def thread() -> Program:
        while True:
            told = yield taking
            yield notes[told]
            del told
            yield from call()

    def invariant(view: View) -> str | None:
        if view["calling"] > 1:
            return "two threads call at a time"
        if any(call != (n + 1) % 2 for n, call in enumerate(view["calls"])):
            return f"it is called with {view['calls']}"
        if len(view["calls"]) > CAME_OR_WENT[view["log"]]:
            return f"it is called with {view['calls']} after {view['log']} changes"
        return None

    def at_rest(view: View) -> str | None:
        if view["known"] != RECEIVES[view["log"]]:
            return f"it knows of {view['known']} receivers after {view['log']} changes"
        return None

    return Model(
        words={
            "log": 0,
            "read": 0,
            "told": NOTHING,
            "routes": 1,
            "ring": (),
            "noted": (0, 0),
            "known": 0,
            "calling": 0,
            "calls": (),
        },
        programs={
            "consumer": consumer,
            "dispatcher": dispatcher,
            "thread 1": thread,
            "thread 2": thread,
        },
        at_rest=at_rest,
        invariant=invariant,
        buffered=False,
        kills=kills,
        mortal=("dispatcher",),
        heirs={"dispatcher": successor},
    )
