"""Work goes to who is free: an endpoint that becomes free for what waits in a backlog rings.

Describes shmbus/dispatcher/native/drain.h (`dp_want`, `dp_look_for_work`), `dp_free` in choose.h,
and shmbus/endpoint/native/work.h, take.h and hold.h.

The words, and who writes each; the dispatcher's of an endpoint e are in its DOWN:

    head[e]         dispatcher   what was given to e; what was sent and is in no ring waits
    delivered[e]    dispatcher   the same, counted; stored before the head
    wanted[e]       dispatcher   which question this is, and how little is to be untouched when e
                                 rings (0: it need not)
    in_hand[e]      endpoint     messages begun and not done
    taken_count[e]  endpoint     messages taken
    work_done[e]    endpoint     messages that were work, begun and done

and private to the endpoint, under its lock: how far it knows the head (`head_seen`), and for which
question it has rung (`offered_for`); to the dispatcher: `work_done` when time was last found to
have passed, and which time that was (`before`).

The steps:

    take        in_hand + 1; taken_count + 1 (release); with the last that it knows of: fence
    done        work_done + 1; in_hand - 1; fence
    both then   wanted asks, for the first time, less is untouched, and one more may be there: ring
    free?       taken_count.load (acquire), then in_hand: untouched and in hand are fewer than
                `prefetch`, or than one for each thread; and untouched fewer than threads with
                nothing in hand, one at least, and what was done lately
    drain       somebody is free: give it the first message
                nobody: a new question to each, fence; free? to each; still nobody: sleep
    e has rung  it was asked: is it free? No question any more, drain. Is it not? Ask it again

Why it holds.  Either the endpoint's look sees the question, or the dispatcher's second look sees
what was taken or done: a fence stands between store and look on both sides.  The endpoint
needs one only where it may become free for good: with each that is done, and with the last taken,
since until then whoever takes the next one looks again.

Why `in_hand` goes up first and is read last: a message that is taken in between is counted
twice, not never: so nobody ever has more than may be.  `work_done` is a word of its own, and not
what was taken less what is in hand: events for the endpoint itself would then earn it work.

Why each question is another one: an endpoint that rang *once for what was delivered to it*, as it
was at first, is silent for ever when the dispatcher finds it at a message that takes long, or
gives what waits to another and asks it again.

What is explored: store buffers as on x86-TSO; one and two endpoints, two threads at one, under a
lock; at most 1, 2 and 4 messages at each; one that comes later, takes long, or never ends; a
kill of the dispatcher at every step.  Shown: whenever nothing can move any more, nobody is free
while something waits in the backlog, without the look at every backlog now and then; and nobody
ever has more than `prefetch`, or one for each thread, untouched and in hand, nor more
untouched than threads with nothing in hand, one at least, and what it has done.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .explore import Model, Part, Program, View, atomic, choose, fence, load, store

Words = dict[str, Any]


def work(
    endpoints: str = "a",
    *,
    waiting: int = 2,
    later: int = 0,
    given: int = 0,
    prefetch: int = 1,
    threads: int = 1,
    clock: int = 0,
    hangs: bool = False,
    kills: int = 0,
    untouched_are_bound: bool = True,
    in_hand_before_taken: bool = True,
    done_when_it_is_done: bool = True,
    taken_read_before_in_hand: bool = True,
    fence_with_the_last_taken: bool = True,
    fence_when_done: bool = True,
    looks_when_taken: bool = True,
    looks_when_done: bool = True,
    dispatcher_fence: bool = True,
    second_look: bool = True,
    all_are_asked: bool = True,
    each_question_is_new: bool = True,
    asked_again_when_not_free: bool = True,
    rung_once_for: str = "a question",
    question_ends: str = "before the drain",
    delivered_is_counted_by_the_next: bool = True,
    the_next_drains: bool = True,
) -> Model:
    """`waiting` messages in a backlog and `later` that come; `clock`: how often time passes.

    `given`: so many of them the first endpoint has got already.  With `hangs` any message may be
    one that never ends.
    """
    most = max(prefetch, threads)

    def rings(e: str, words: Words) -> bool:
        words[f"rung[{e}]"] = 1
        return True

    def who_rang(words: Words) -> str | None:
        for who in (*endpoints, "source"):
            if words[f"rung[{who}]"]:
                words[f"rung[{who}]"] = 0
                return str(who)
        return None

    def lock_to_take(e: str, words: Words) -> int | None:
        """Answers how many it has taken, or waits; its ring's head is looked at where it must."""
        taken = words[f"taken_count[{e}]"]
        if words[f"lock[{e}]"]:
            return None
        if taken == words[f"head_seen[{e}]"]:
            if words[f"head[{e}]"] == taken:
                return None
            words[f"head_seen[{e}]"] = words[f"head[{e}]"]
        words[f"lock[{e}]"] = 1
        words[f"begun[{e}]"] += 1
        return int(taken)

    def lock_when_done(e: str, words: Words) -> bool | None:
        if words[f"lock[{e}]"]:
            return None
        words[f"lock[{e}]"] = 1
        words[f"finished[{e}]"] += 1
        return True

    locking_to_take = {e: atomic(f"{e} locks to take", partial(lock_to_take, e)) for e in endpoints}
    locking_done = {e: atomic(f"{e} is done", partial(lock_when_done, e)) for e in endpoints}
    ringing = {e: atomic(f"{e} rings", partial(rings, e)) for e in (*endpoints, "source")}
    waking = atomic("sleep until somebody rings", who_rang)

    it_hangs = choose("does it hang?", (False, True))

    # The endpoint ---------------------------------------------------------------------------------

    def offer(e: str) -> Part[None]:
        """As ep_offer_work, without its fence."""
        question, least = yield load(f"wanted[{e}]")
        if not least:
            return
        delivered = yield load(f"delivered[{e}]")
        taken = yield load(f"taken_count[{e}]")
        in_hand = yield load(f"in_hand[{e}]")
        if delivered - taken >= least or delivered - taken + in_hand >= most:
            return
        about = question if rung_once_for == "a question" else delivered
        for_what = yield load(f"offered_for[{e}]")
        if about == for_what or (rung_once_for == "ever" and for_what):
            return
        yield store(f"offered_for[{e}]", about)
        yield ringing[e]

    def change_in_hand(e: str, by: int) -> Part[None]:
        in_hand = yield load(f"in_hand[{e}]")
        yield store(f"in_hand[{e}]", in_hand + by)

    def count_done(e: str) -> Part[None]:
        done = yield load(f"work_done[{e}]")
        yield store(f"work_done[{e}]", done + 1)

    def thread(e: str) -> Program:
        while True:
            taken = yield locking_to_take[e]
            if in_hand_before_taken:
                yield from change_in_hand(e, 1)
            yield store(f"taken_count[{e}]", taken + 1)
            if not done_when_it_is_done:
                yield from count_done(e)
            if not in_hand_before_taken:
                yield from change_in_hand(e, 1)
            seen = yield load(f"head_seen[{e}]")
            if seen == taken + 1 and fence_with_the_last_taken:
                yield fence()
            del seen, taken
            if looks_when_taken:
                yield from offer(e)
            yield store(f"lock[{e}]", 0)
            if hangs and (yield it_hangs):
                return
            yield locking_done[e]
            if done_when_it_is_done:
                yield from count_done(e)
            yield from change_in_hand(e, -1)
            if fence_when_done:
                yield fence()
            if looks_when_done:
                yield from offer(e)
            yield store(f"lock[{e}]", 0)

    # The dispatcher -------------------------------------------------------------------------------

    def room(e: str) -> Part[tuple[int, int]]:
        """How much is untouched, and how much may be."""
        delivered = yield load(f"delivered[{e}]")
        if taken_read_before_in_hand:
            taken = yield load(f"taken_count[{e}]")
            in_hand = yield load(f"in_hand[{e}]")
        else:
            in_hand = yield load(f"in_hand[{e}]")
            taken = yield load(f"taken_count[{e}]")
        untouched = delivered - taken
        if not untouched_are_bound:
            return untouched, most - in_hand
        done = yield load(f"work_done[{e}]")
        if clock:
            time = yield load("clock")
            seen, before = yield load(f"before[{e}]")
            if time != seen:
                before = done
                yield store(f"before[{e}]", (time, before))
            done -= before
        return untouched, max(min(max(threads - in_hand, 1) + done, most - in_hand), 0)

    def is_free(e: str) -> Part[bool]:
        untouched, may = yield from room(e)
        return untouched < may

    def somebody_free() -> Part[str]:
        for e in endpoints:
            if (yield from is_free(e)):
                return e
        return ""

    def something_waits() -> Part[bool]:
        given = 0
        for e in endpoints:
            head = yield load(f"head[{e}]")
            given += head
        sent = yield load("sent")
        return bool(given < sent)

    def give(e: str) -> Part[None]:
        head = yield load(f"head[{e}]")
        delivered = yield load(f"delivered[{e}]")
        yield store(f"delivered[{e}]", delivered + 1)
        yield store(f"head[{e}]", head + 1)

    def ask(e: str) -> Part[None]:
        question, _ = yield load(f"wanted[{e}]")
        _, may = yield from room(e)
        yield store(f"wanted[{e}]", (question + each_question_is_new, may // 2 + 1))

    def want() -> Part[str]:
        """Answers who is free by now."""
        for e in endpoints if all_are_asked else endpoints[:1]:
            yield from ask(e)
        if dispatcher_fence:
            yield fence()
        if not second_look:
            return ""
        return (yield from somebody_free())

    def drain() -> Part[None]:
        while True:
            if not (yield from something_waits()):
                return
            free = yield from somebody_free()
            if free:
                yield from give(free)
                continue
            free = yield from want()
            if not free:
                return

    def end_question(e: str) -> Part[None]:
        question, _ = yield load(f"wanted[{e}]")
        yield store(f"wanted[{e}]", (question, 0))

    def look_for_work(e: str) -> Part[bool]:
        """Answers whether the backlog is to be looked at."""
        _, least = yield load(f"wanted[{e}]")
        if not least:
            return False
        del least
        free = yield from is_free(e)
        if not free and asked_again_when_not_free:
            yield from ask(e)
            if dispatcher_fence:
                yield fence()
            free = yield from is_free(e)
        if free and question_ends == "before the drain":
            yield from end_question(e)
        return free

    def dispatcher() -> Program:
        yield from drain()
        while True:
            who = yield waking
            if who == "source":
                yield from drain()
            elif (yield from look_for_work(who)):
                yield from drain()
                if question_ends == "after the drain":
                    yield from end_question(who)
            del who

    def successor() -> Program:
        for e in endpoints:
            if delivered_is_counted_by_the_next:
                head = yield load(f"head[{e}]")
                yield store(f"delivered[{e}]", head)
                del head
        if the_next_drains:
            yield from drain()
        while True:
            who = yield waking
            if who == "source" or (yield from look_for_work(who)):
                yield from drain()
            del who

    # The others -----------------------------------------------------------------------------------

    def source() -> Program:
        for sent in range(waiting + 1, waiting + later + 1):
            yield store("sent", sent)
            yield ringing["source"]

    def passing(words: Words) -> bool:
        words["clock"] += 1
        return True

    time_passes = atomic("time passes", passing)

    def time() -> Program:
        for _ in range(clock):
            yield time_passes

    def invariant(view: View) -> str | None:
        for e in endpoints:
            head, begun, finished = (view[f"{w}[{e}]"] for w in ("head", "begun", "finished"))
            if head - finished > most:
                return f"{e} has more than {most}"
            if not given and head - begun > max(threads - (begun - finished), 1) + finished:
                return f"{head - begun} wait behind what {e} has in hand"
        return None

    def at_rest(view: View) -> str | None:
        waits = view["sent"] - sum(view[f"head[{e}]"] for e in endpoints)
        for e in endpoints:
            hanging = sum(view.status(f"{e}{n}") == "ended" for n in range(threads))
            untouched = view[f"head[{e}]"] - view[f"taken_count[{e}]"]
            if untouched and hanging < threads:
                return f"{e} sleeps over a message"
            if waits and untouched < min(max(threads - hanging, 1), most - hanging):
                return f"{e} is free, and {waits} wait in the backlog for ever"
        return None

    words: Words = {"sent": waiting, "rung[source]": 0}
    for e in endpoints:
        words |= {f"{word}[{e}]": 0 for word in ("head", "delivered", "in_hand", "taken_count")}
        words |= {f"{word}[{e}]": 0 for word in ("head_seen", "offered_for", "begun")}
        words |= {f"{word}[{e}]": 0 for word in ("finished", "work_done", "lock", "rung")}
        words[f"wanted[{e}]"] = (0, 0)
        if clock:
            words |= {"clock": 0, f"before[{e}]": (0, 0)}
    words |= {f"{word}[{endpoints[0]}]": given for word in ("head", "delivered", "head_seen")}
    programs = {"dispatcher": dispatcher}
    programs |= {f"{e}{n}": partial(thread, e) for e in endpoints for n in range(threads)}
    if later:
        programs["source"] = source
    if clock:
        programs["time"] = time
    writers = {f"{word}[{e}]": "dispatcher" for e in endpoints for word in ("delivered", "wanted")}
    writers |= {f"head[{e}]": "dispatcher" for e in endpoints}
    writers["sent"] = "source" if later else ""
    private = {"lock", "head_seen", "offered_for"} if threads == 1 else set()
    if threads == 1:
        own = (*private, "in_hand", "taken_count", "work_done", "finished")
        writers |= {f"{word}[{e}]": f"{e}0" for e in endpoints for word in own}
    return Model(
        words=words,
        programs=programs,
        writers=writers,
        private=frozenset(f"{word}[{e}]" for e in endpoints for word in private),
        at_rest=at_rest,
        invariant=invariant,
        kills=kills,
        mortal=("dispatcher",),
        heirs={"dispatcher": successor},
    )
