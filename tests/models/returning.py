"""Giving work back: who has a message whose receiver dies, or is evicted, while it gives it back.

Describes ep_nack in shmbus/endpoint/native/nack.h, and dp_freeze, dp_gave_back and dp_holds in
shmbus/dispatcher/native/departure.h. The message came for two groups of the endpoint, which gives
it back for both: each has a copy; or it gives it back for the one later, and does it for the other.

The words:

    head       endpoint: 2 once both copies of the message are published in its outgoing ring
    returned   endpoint: where the last copy ends, 2; 0: there is none; 9: it is to be given back
               later
    held       endpoint: whether the message is begun and not done
    settled    endpoint: whether it is done for the other group, and only one copy is given back
    evicted    dispatcher: the endpoint is not to be listened to any more
    last       dispatcher: the head up to which it was listened to; NOWHERE before its end
    tail       dispatcher: how many copies it has taken
    dealt      dispatcher: 1 once the held message was handed on, or seen to be done or given back
    reclaimed  dispatcher: 1 once all of it is over

The steps:

    give back      returned = 2; head = 2; fence; not evicted? held = 0
    later          returned = 9, until then
    its end        evicted = 1 (it may live); fence; last = head, unless it stands there already
                   what lies in the ring up to `last` is forwarded
                   held, and not returned up to `last`? handed on; dealt = 1, by the journal at once

Why in this order.  `returned` comes before `head`: after a kill in between the copy was not
published, and `returned` is beyond `last`, so the message is handed on as one begun; the other way
round it would be forwarded *and* handed on.  Both copies are published at once, for the same
reason: a kill after the first would hand on the whole, too.  It is done only once they are
published: else a kill in between would lose it.  One that is evicted lives on: of the endpoint's
look at `evicted` and the dispatcher's at `head` at least one sees what the other has stored.  What
it publishes later does not count, for a successor of that dispatcher neither: so `last` stands in
shared memory before anything is handed on.

What is explored: kills at every step; evictions with store buffers; a dispatcher that forwards
before, or is killed while it evicts, and a successor; messages that wait for their time when the
end comes.  Shown: whoever dies or is evicted,
the message is given on exactly once.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .explore import Model, Part, Program, Step, View, atomic, choose, fence, load, store, until

COPIES = 2
LATER = 9
NOWHERE = 99
GIVEN_ON = ("given on to the one", "given on to the other")


def returning(
    *,
    evicted: bool = False,
    adopted: bool = False,
    later: bool = False,
    one_is_done: bool = False,
    marked_before_published: bool = True,
    published_at_once: bool = True,
    published_before_done: bool = True,
    eviction_is_looked_for: bool = True,
    endpoint_fences: bool = True,
    dispatcher_fences: bool = True,
    mark_is_compared: bool = True,
    settled_is_heeded: bool = True,
    last_is_kept: bool = True,
    last_before_handing_on: bool = True,
) -> Model:
    """One message, in hand; its receiver is killed at any step, or `evicted`, by a dispatcher that
    may be killed meanwhile and `adopted`."""
    copies = 1 if one_is_done else COPIES

    @cache  # a step is the same at the same place
    def forward(last: int) -> Step:
        def move(words: dict[str, Any]) -> bool:
            for group in GIVEN_ON[words["tail"] : last]:
                words[group] += 1
            words["tail"] = max(words["tail"], last)
            return True

        return atomic(f"forward up to {last}", move)

    @cache
    def deal(on: bool) -> Step:
        def hand_on(words: dict[str, Any]) -> bool:
            groups = GIVEN_ON[:1] if words["settled"] and settled_is_heeded else GIVEN_ON
            for group in groups if on and not words["dealt"] else ():
                words[group] += 1
            words["dealt"] = 1
            return True

        return atomic("hand on" if on else "it is not here any more", hand_on)

    def endpoint() -> Program:
        if later:
            yield store("returned", LATER)
        if one_is_done:
            yield store("settled", 1)
        if not published_at_once:
            yield store("head", 1)
        if marked_before_published:
            yield store("returned", copies)
        if not published_before_done:
            yield store("held", 0)
        yield store("head", copies)
        if not marked_before_published:
            yield store("returned", copies)
        if endpoint_fences:
            yield fence()
        if not (eviction_is_looked_for and (yield load("evicted"))):
            yield store("held", 0)

    def end() -> Part[None]:
        last = yield load("last")
        if last == NOWHERE or not last_is_kept:
            last = yield load("head")
            if last_before_handing_on:
                yield store("last", last)
        yield forward(last)
        held = yield load("held")
        returned = yield load("returned")
        given = returned and (returned <= last or not mark_is_compared)
        yield deal(bool(held and not given))
        if not last_before_handing_on:
            yield store("last", last)
        yield store("reclaimed", 1)

    def undertaker() -> Program:
        yield from end()

    def forwarder() -> Program:
        yield until("head", copies)
        yield forward(copies)

    def evictor() -> Program:
        early = yield choose("look before", (False, True))
        begun = yield load("evicted")
        if early and not begun:
            head = yield load("head")
            yield forward(head)
        yield store("evicted", 1)
        if dispatcher_fences:
            yield fence()
        yield from end()

    def at_rest(view: View) -> str | None:
        for group in GIVEN_ON:
            done_here = bool(view["settled"]) and group == GIVEN_ON[1]
            # One that is evicted may have done it after that had gone on.
            if view[group] != 1 - done_here and not (done_here and evicted and view[group] == 1):
                return f"it was {group} group {view[group]} times"
        return None

    words = {"head": 0, "returned": 0, "held": 1, "evicted": 0, "last": NOWHERE}
    words |= {"tail": 0, "dealt": 0, "reclaimed": 0, "settled": 0}
    words |= dict.fromkeys(GIVEN_ON, 0)
    if evicted:
        return Model(
            words=words,
            programs={"endpoint": endpoint, "dispatcher": evictor},
            at_rest=at_rest,
            kills=adopted,
            mortal=("dispatcher",),
            heirs={"dispatcher": evictor},
        )
    return Model(
        words=words,
        programs={"endpoint": endpoint, "dispatcher": forwarder},
        at_rest=at_rest,
        buffered=False,
        kills=1,
        mortal=("endpoint",),
        heirs={"endpoint": undertaker},
    )
