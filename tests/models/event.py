"""The eventfd: how an event loop that serves an endpoint is woken, and never left asleep.

Describes shmbus/shared/native/event.h (`sb_ring_event`), shmbus/endpoint/native/event.h
(`ep_event_arm`, `ep_event_disarm`, `ep_event_rest`) and `dp_open_event` in
shmbus/dispatcher/native/dispatcher.h.

The words, and who writes each:

    head      the dispatcher   how much it has published
    state     the watcher      of the endpoint's own process: what else has changed
    epoch     the endpoint     odd while the eventfd is to be written
    wants     the endpoint     for what
    eventfd   all              written, and not read yet

and private to each of the two that ring, the dispatcher and the watcher: `written`, the last epoch
for which it wrote.

The steps:

    sleep  read the eventfd; wants.store; epoch -> odd (seq_cst); look (seq_cst);
           nothing? poll the eventfd
    awake  epoch -> even; look
    ring   what is new.store (seq_cst), or store and fence; e = epoch.load;
           odd, not the one written for last, among the wants? write

It is the doorbell (bell.py) at a descriptor. What is different: what was written stays readable
until it is read, so what is read too late is a wake-up lost; nobody wakes by himself after a slice;
the dispatcher that rings does not have the descriptor from the beginning.  Its successor
gets it at some time and may have published before.  It rings then, whatever it has written: that
stands for what its predecessor owed, and for what it owed itself.

`watched` is the descriptor that `fileno` returns: a loop that is not ours polls it, and receives
where it is readable; other threads receive, too.  It is armed anew only by a call that found
nothing to receive, which writes it itself where there is something by then.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from typing import Any

from .explore import (
    Model,
    Part,
    Program,
    View,
    atomic,
    choose,
    exchange,
    fence,
    load,
    sem_post,
    store,
    store_seq,
    until,
)

DATA, STATE = 1, 2


def ring(what: int, written: int) -> Part[int]:
    """Returns the last epoch for which it wrote."""
    epoch = yield load("epoch")
    if epoch % 2 == 0 or epoch == written or not (yield load("wants")) & what:
        return written
    yield sem_post("eventfd")
    return int(epoch)


def publish(run: int, written: int, seq_cst: bool, epoch_first: bool) -> Part[int]:
    """One run of a dispatcher that has the eventfd."""
    if epoch_first:
        epoch = yield load("epoch")
        yield store_seq("head", run)
        if epoch % 2 and epoch != written:
            yield sem_post("eventfd")
            return int(epoch)
        return written
    yield (store_seq if seq_cst else store)("head", run)
    return (yield from ring(DATA, written))


def successor(
    runs: int, *, fence_before_the_ring: bool = True, rings_what_it_gets: bool = True
) -> Program:
    """Goes on where the head stands; has the eventfd after one run at the latest."""
    run = yield load("head")
    written = 0
    if run < runs and (yield choose("publishes first", (True, False))):
        run += 1
        yield store("head", run)
    if fence_before_the_ring:
        yield fence()
    if rings_what_it_gets:
        written = yield from ring(DATA | STATE, written)
    while run < runs:
        run += 1
        written = yield from publish(run, written, True, False)


def event(
    runs: int = 2,
    *,
    kills: int = 1,
    odd_store_is_seq_cst: bool = True,
    head_store_is_seq_cst: bool = True,
    epoch_is_loaded_after_the_head_store: bool = True,
    read: str = "before the odd store",
    looks_again: bool = True,
    wants_before_the_epoch: bool = True,
    new_epoch_each_time: bool = True,
    successor_rings: bool = True,
    successor_fences: bool = True,
) -> Model:
    """A loop of our own, which arms and looks. At first it waits for a state alone."""

    def loop() -> Program:
        epoch, seen_data, seen_state, wants = 0, 0, 0, STATE
        while True:
            if read == "before the odd store":
                yield exchange("eventfd", 0)
            if wants_before_the_epoch:
                yield store("wants", wants)
            if new_epoch_each_time or epoch == 0:
                epoch += 1
            yield (store_seq if odd_store_is_seq_cst else store)("epoch", epoch)
            if not wants_before_the_epoch:
                yield store("wants", wants)
            if read == "after the odd store":
                yield exchange("eventfd", 0)
            data, state = seen_data, seen_state
            if looks_again:
                if wants & DATA:
                    data = yield load("head")
                state = yield load("state")
            if read == "after the look":
                yield exchange("eventfd", 0)
            if (data, state) == (seen_data, seen_state):
                yield until("eventfd", 1)
                if new_epoch_each_time:
                    epoch += 1
                    yield store("epoch", epoch)
                data = yield load("head")
                state = yield load("state")
            elif new_epoch_each_time:
                epoch += 1
                yield store("epoch", epoch)
            seen_data, seen_state, wants = data, state, DATA | STATE

    def dispatcher() -> Program:
        written = 0
        for run in range(1, runs + 1):
            written = yield from publish(
                run, written, head_store_is_seq_cst, not epoch_is_loaded_after_the_head_store
            )

    def watcher() -> Program:
        yield store_seq("state", 1)
        yield from ring(STATE, 0)

    def at_rest(view: View) -> str | None:
        if view.local("loop", "wants") & DATA and view.local("loop", "seen_data") < view["head"]:
            return "the loop sleeps and has not seen what was published"
        if view.local("loop", "seen_state") < view["state"]:
            return "the loop sleeps and has not seen what has changed"
        return None

    return Model(
        words={"head": 0, "state": 0, "epoch": 0, "wants": 0, "eventfd": 0},
        programs={"loop": loop, "dispatcher": dispatcher, "watcher": watcher},
        heirs={
            "dispatcher": lambda: successor(
                runs,
                rings_what_it_gets=successor_rings,
                fence_before_the_ring=successor_fences,
            )
        },
        at_rest=at_rest,
        kills=kills,
        mortal=("dispatcher",),
        writers={"head": "dispatcher", "state": "watcher", "epoch": "loop", "wants": "loop"},
    )


def lock(words: dict[str, Any]) -> Any:
    if words["lock"]:
        return None
    words["lock"] = 1
    return True


def receive(
    *, arms: bool = True, new_epoch: bool = True, looks: bool = True, writes: bool = True
) -> Part[bool]:
    """`receive(0)`: whether there was something; where not, the eventfd is armed anew."""
    yield atomic("lock", lock)
    head = yield load("head")
    taken = yield load("taken")
    if head > taken:
        yield store("taken", taken + 1)
        yield store("lock", 0)
        return True
    yield store("lock", 0)  # of its wait, which ends at once
    if not arms:
        return False
    yield atomic("lock", lock)
    epoch = yield load("epoch")
    yield exchange("eventfd", 0)
    yield store_seq("epoch", epoch + 2 if new_epoch else epoch)
    if looks:
        head = yield load("head")
        taken = yield load("taken")
        if head > taken and writes:
            yield sem_post("eventfd")
    yield store("lock", 0)
    return False


def watched(
    runs: int = 2,
    *,
    kills: int = 1,
    thread: bool = True,
    new_epoch: bool = True,
    looks: bool = True,
    writes: bool = True,
    threads_read_and_do_not_arm: bool = False,
    successor_rings: bool = True,
) -> Model:
    """A loop that is not ours polls the eventfd; another thread receives as well."""

    def loop() -> Program:
        while True:
            yield until("eventfd", 1)
            more = True
            while more:
                more = yield from receive(new_epoch=new_epoch, looks=looks, writes=writes)
            del more

    def other() -> Program:
        if threads_read_and_do_not_arm:
            yield exchange("eventfd", 0)
            yield from receive(arms=False)
        else:
            yield from receive(new_epoch=new_epoch, looks=looks, writes=writes)

    def dispatcher() -> Program:
        written = 0
        for run in range(1, runs + 1):
            written = yield from publish(run, written, True, False)

    def at_rest(view: View) -> str | None:
        if view["taken"] < view["head"]:
            return "it is not readable, and something waits to be received"
        return None

    return Model(
        words={"head": 0, "epoch": 1, "wants": DATA, "eventfd": 0, "taken": 0, "lock": 0},
        programs={
            "loop": loop,
            "dispatcher": dispatcher,
            **({"other thread": other} if thread else {}),
        },
        heirs={"dispatcher": lambda: successor(runs, rings_what_it_gets=successor_rings)},
        at_rest=at_rest,
        kills=kills,
        mortal=("dispatcher",),
        writers={"head": "dispatcher"},
    )
