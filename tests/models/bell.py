"""The wait protocol: how a parked waiter is woken, and not more often than necessary.

Describes ringbuf/native/bell.h (`rb_bell_wait`, `rb_park` and `rb_ring_bell`).

The words, and who writes each:

    head[i]   poster i     how much it has published, which is what the waiter checks
    epoch     the waiter   odd while it is parked, and higher at each parking; 64 bits
    bell      everybody    the semaphore: tokens, a hint worth one look
    dead      the waiter's own watcher thread, once a poster's death is confirmed

and private to each poster: `posted`, the last epoch for which it posted.

The steps:

    wait:  look; loop: sem_trywait until empty; epoch -> odd (seq_cst); look again;
           nothing new? sem_wait; epoch -> even
    post:  head.store (seq_cst); e = epoch.load; if e is odd and e != posted: sem_post, posted = e

Why it holds.  Either the waiter's second look sees the poster's head, or the poster's load sees
the odd epoch: for both to miss, one of the two stores would have to be still in its store buffer
at the other side's load, which is what seq_cst forbids.  A poster that sees an epoch for which it
has posted need not post again: that token is still in the semaphore, or the waiter took it and
is awake.  The drain stands before the odd store since a token put there for this epoch must not be
taken by it.  Nobody but the waiter writes `epoch`, so that a poster who is stopped between its
load and its sem_post keeps nobody else from posting.

A killed poster may owe a post.  Who confirms its death, and not before, sets `dead` (both looks
read it), *then* rings the bell, whatever the epoch.

What is explored: store buffers as on x86-TSO, two and three posters, one of them killed, one
frozen, at any step, an interrupted sem_wait (EINTR, or the end of a slice); the other direction
too, with a dispatcher between two endpoints that wait for each other's answers, where one fence
serves a whole pass.  Shown: whenever nothing can move any more, the waiter has seen all whose
post was not cut short, and, where the poster is dead, all it ever published; the slices are not
needed for it.  And no poster ever has more than two tokens in the semaphore.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial

from .explore import (
    Model,
    Part,
    Program,
    View,
    exchange,
    fence,
    load,
    sem_post,
    sem_trywait,
    sem_wait,
    store,
    store_seq,
    until_dead,
)

TOKENS = 2  # at most, of one poster


def look_at(words: tuple[str, ...], seen: tuple[int, ...]) -> Part[tuple[int, ...]]:
    """What is new: goes on to the next word as long as there is nothing."""
    for i in range(len(words)):
        word = yield load(words[i])
        if word > seen[i]:
            return (*seen[:i], word, *seen[i + 1 :])
    return seen


def wait(
    who: str, words: tuple[str, ...], seen: tuple[int, ...], epoch: int
) -> Part[tuple[tuple[int, ...], int]]:
    """Returns what is seen once something is new, and the epoch."""
    while True:
        now = yield from look_at(words, seen)
        if now != seen:
            return now, epoch
        while (yield sem_trywait(f"bell[{who}]")):
            pass
        epoch += 1
        yield store_seq(f"epoch[{who}]", epoch)
        now = yield from look_at(words, seen)
        if now == seen:
            yield sem_wait(f"bell[{who}]")
        epoch += 1
        yield store(f"epoch[{who}]", epoch)
        if now != seen:
            return now, epoch


def post(who: str, posted: int) -> Part[int]:
    """Returns the last epoch for which it posted."""
    epoch = yield load(f"epoch[{who}]")
    if epoch % 2 == 0 or epoch == posted:
        return posted
    yield sem_post(f"bell[{who}]")
    return int(epoch)


def bell(
    posters: int = 2,
    runs: int = 2,
    *,
    kills: int = 1,
    freezes: int = 1,
    interrupts: int = 1,
    odd_store_is_seq_cst: bool = True,
    head_store_is_seq_cst: bool = True,
    epoch_is_loaded_after_the_head_store: bool = True,
    drain: str = "before the odd store",
    drain_until_empty: bool = True,
    epoch_modulus: int = 2**64,
    parked_flag_that_posters_clear: bool = False,
    second_look: bool = True,
    dead_is_looked_at_again: bool = True,
    dead_is_set_before_the_ring: bool = True,
    rung_after_the_death: bool = True,
    rung_at_all: bool = True,
) -> Model:
    """One waiter and its posters; the first poster may be killed and the second frozen."""
    all_posters = tuple(range(posters))
    heads = tuple(f"head[{i}]" for i in all_posters)
    looked_at = (*heads, "dead") if kills else heads

    def drained() -> Part[None]:
        while (yield sem_trywait("bell")) and drain_until_empty:
            pass

    def waiter() -> Program:
        seen, epoch = (0,) * len(looked_at), 0
        while True:
            now = yield from look_at(looked_at, seen)
            if now == seen:
                if drain == "before the odd store":
                    yield from drained()
                epoch = (epoch + 1) % epoch_modulus
                yield (store_seq if odd_store_is_seq_cst else store)("epoch", epoch)
                if drain == "after the odd store":
                    yield from drained()
                if second_look:
                    now = yield from look_at(looked_at if dead_is_looked_at_again else heads, seen)
                if drain == "after the second look":
                    yield from drained()
                if now == seen:
                    yield sem_wait("bell")
                epoch = (epoch + 1) % epoch_modulus
                yield store("epoch", epoch)
            seen = now

    def poster(i: int) -> Program:
        posted = 0
        for run in range(1, runs + 1):
            if not epoch_is_loaded_after_the_head_store:
                epoch = yield load("epoch")
            yield (store_seq if head_store_is_seq_cst else store)(f"head[{i}]", run)
            if epoch_is_loaded_after_the_head_store:
                epoch = yield load("epoch")
            if epoch % 2 and epoch != posted:
                yield sem_post("bell")
                posted = epoch
            del epoch

    def waiter_with_flag() -> Program:
        seen = (0,) * len(looked_at)
        while True:
            yield from drained()
            yield store_seq("parked", 1)
            now = yield from look_at(looked_at, seen)
            if now == seen:
                yield sem_wait("bell")
            yield store("parked", 0)
            seen = now

    def poster_with_flag(i: int) -> Program:
        for run in range(1, runs + 1):
            yield store_seq(f"head[{i}]", run)
            if (yield exchange("parked", 0)):
                yield sem_post("bell")

    def watcher() -> Program:
        if rung_after_the_death:
            yield until_dead("poster 0")
        if not rung_at_all:
            return
        if dead_is_set_before_the_ring:
            yield store_seq("dead", 1)
            yield sem_post("bell")
        else:
            yield sem_post("bell")
            yield store_seq("dead", 1)

    def at_rest(view: View) -> str | None:
        seen = view.local("waiter", "seen")
        for i in all_posters:
            status = view.status(f"poster {i}")
            done = view[f"head[{i}]"]
            if status == "frozen":  # its last post may be owed
                done = view.local(f"poster {i}", "run") - 1
            if status == "killed" and not seen[-1]:
                return f"the waiter sleeps and does not know of poster {i}'s death"
            if seen[i] < done:
                return f"the waiter sleeps and has not seen run {done} of poster {i}"
        return None

    def invariant(view: View) -> str | None:
        if view["bell"] > TOKENS * posters + kills:  # one of the watcher's
            return f"{view['bell']} tokens"
        return None

    return Model(
        words={
            **{f"head[{i}]": 0 for i in all_posters},
            ("parked" if parked_flag_that_posters_clear else "epoch"): 0,
            "bell": 0,
            "dead": 0,
        },
        programs={
            "waiter": waiter_with_flag if parked_flag_that_posters_clear else waiter,
            **{
                f"poster {i}": partial(
                    poster_with_flag if parked_flag_that_posters_clear else poster, i
                )
                for i in all_posters
            },
            **({"watcher": watcher} if kills else {}),
        },
        at_rest=at_rest,
        invariant=invariant,
        kills=kills,
        mortal=("poster 0",),
        freezes=freezes,
        freezable=("poster 1",),
        interrupts=interrupts,
    )


def conversation(
    endpoints: str = "ab",
    rounds: int = 1,
    *,
    kills: int = 0,
    freezes: int = 1,
    one_fence_a_pass: bool = True,
    endpoints_are_rung: bool = True,
) -> Model:
    """Endpoints that ask and wait, the dispatcher that waits for them and answers: both ways.

    `out[e]` and `epoch[e]` are the endpoint's, `in[e]` and `epoch[d]` the dispatcher's;
    `dead[e]` is written by the watcher in the dispatcher, `dead[d, e]` by the one in e.
    The first endpoint or the dispatcher may be killed, the last or the dispatcher frozen.
    """

    def endpoint(e: str) -> Program:
        posted, epoch = 0, 0
        seen: tuple[int, ...] = (0, 0)
        for asked in range(1, rounds + 1):
            yield store_seq(f"out[{e}]", asked)
            posted = yield from post("d", posted)
            while seen[0] < asked:
                seen, epoch = yield from wait(e, (f"in[{e}]", f"dead[d, {e}]"), seen, epoch)
                if seen[1]:
                    return

    def dispatcher() -> Program:
        words = (*(f"out[{e}]" for e in endpoints), f"dead[{endpoints[0]}]")
        epoch, seen = 0, (0,) * len(words)
        posted = answered = (0,) * len(endpoints)
        while True:
            seen, epoch = yield from wait("d", words, seen, epoch)
            run = tuple(i for i in range(len(endpoints)) if seen[i] > answered[i])
            answered = seen[: len(endpoints)]
            for i in run:
                yield store(f"in[{endpoints[i]}]", answered[i])
            if run and one_fence_a_pass:
                yield fence()
            for i in run:
                last = yield from post(endpoints[i], posted[i])
                posted = (*posted[:i], last, *posted[i + 1 :])
                del last
            del run

    def watcher_in_dispatcher() -> Program:
        yield until_dead(endpoints[0])
        yield store_seq(f"dead[{endpoints[0]}]", 1)
        yield sem_post("bell[d]")

    def watcher_in(e: str) -> Program:
        yield until_dead("dispatcher")
        yield store_seq(f"dead[d, {e}]", 1)
        if endpoints_are_rung:
            yield sem_post(f"bell[{e}]")

    def at_rest(view: View) -> str | None:
        if view.status("dispatcher") == "waiting":
            seen = view.local("dispatcher", "seen")
            for i, e in enumerate(endpoints):
                if seen[i] < view[f"out[{e}]"] and view.status(e) != "frozen":
                    return f"the dispatcher sleeps and has not seen what {e} asked"
            if view.status(endpoints[0]) == "killed" and not seen[-1]:
                return f"the dispatcher sleeps and does not know of {endpoints[0]}'s death"
        for e in endpoints:
            if view.status(e) == "waiting" and view.status("dispatcher") != "frozen":
                return f"{e} waits for ever"
        return None

    return Model(
        words={
            **{f"{word}[{e}]": 0 for e in endpoints for word in ("out", "in", "epoch", "bell")},
            **{f"dead[d, {e}]": 0 for e in endpoints},
            "epoch[d]": 0,
            "bell[d]": 0,
            f"dead[{endpoints[0]}]": 0,
        },
        programs={
            "dispatcher": dispatcher,
            **{e: partial(endpoint, e) for e in endpoints},
            **({"watcher in the dispatcher": watcher_in_dispatcher} if kills else {}),
            **({f"watcher in {e}": partial(watcher_in, e) for e in endpoints} if kills else {}),
        },
        at_rest=at_rest,
        kills=kills,
        mortal=(endpoints[0], "dispatcher"),
        freezes=freezes,
        freezable=(endpoints[-1], "dispatcher"),
    )
