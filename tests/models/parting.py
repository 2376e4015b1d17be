"""Parting: what somebody looks at becomes private memory before the bus forgets that he looks.

Describes ep_enter_share, ep_part_shares, ep_end_shares and the forks of
shmbus/endpoint/native/share.h, with dp_depart and dp_may_look of
shmbus/dispatcher/native/departure.h. A block of `S` was sent to `A`, whose user looks at it, lets
go of it, and looks in a forked child; whose closer closes it, at any moment, or finds it evicted;
and which copies in two ways, for one of which others need not wait.

The words, and who writes each:

    data                 S: what lies in the block: 1, and 2 once it is used again
    returned             dispatcher: 1 once its use is over
    gone                 dispatcher: 1 once A is evicted
    share, taken         A: its table, of one entry; 1 once the record is taken
    closing, closed      A: its calls end; its UP.state
    private, child       A, its child: what is found at the address; 0: the block itself
    copies, dropped      A: it is being copied without the lock; its user has let go meanwhile
    over                 A: nothing of it is said to the dispatcher any more
    lock, copied         A: of its shares; 1: a child has what it looks at

The steps:

    A         share = 1; fence; evicted, or closing? share = 0, and it is not looked at. Else
              taken = 1; look
    let go    under the lock: it is being copied? dropped = 1. Else share = 0
    parting   without the lock: private = the data, unless it is that already; both at once, of each
              page, since the kernel does it; then, with the lock: dropped? share = 0
    ending    closing = 1; under the lock: private = the data, unless it is that already; over;
              share = 0; then closed = 1
    a fork    under the lock: what is private already, the child has; the rest it copies; then
              copied = 1. Until then nothing is let go
    S         returned? data = 2
    evicting  gone = 1; fence; the table is empty, or A is closed? returned = 1
    else      taken, and not in the table? returned = 1

Of A's look at `gone` and the dispatcher's look at the table at least one sees what the other has
stored. What a killed parent has not copied for its child may change there: nobody is left to say
that it looks.

What is explored: store buffers, an eviction, a close, a fork and a look at every moment, kills of
the dispatcher at every step. Shown: whoever looks sees 1; the block comes back.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .explore import Model, Part, Program, View, atomic, choose, fence, load, store, until

Words = dict[str, Any]


def parting(
    *,
    evicts: bool = False,
    forks: bool = False,
    kills: int = 1,
    private_before_cleared: bool = True,
    private_before_closed: bool = True,
    looks_again: bool = True,
    receiver_fences: bool = True,
    dispatcher_fences: bool = True,
    table_is_awaited: bool = True,
    parent_waits: bool = True,
) -> Model:
    def lock(who: str, words: Words) -> bool | None:
        if words["lock"]:
            return None
        words["lock"] = who
        return True

    locking = {who: atomic("lock", partial(lock, who)) for who in ("user", "closer", "watcher")}

    def look(copy: str, words: Words) -> int:
        return int(words[copy] or words["data"])

    looking = {copy: atomic(f"look ({copy})", partial(look, copy)) for copy in ("private", "child")}

    def see(copy: str = "private") -> Part[None]:
        there = yield looking[copy]
        assert there == 1, "what is looked at has changed"

    # A -----------------------------------------------------------------------------------------

    def clear() -> Part[None]:
        over = yield load("over")
        if not over:
            yield store("share", 0)

    def let_go() -> Part[None]:
        yield locking["user"]
        copies = yield load("copies")
        if copies:
            yield store("dropped", 1)
        else:
            yield from clear()
        yield store("lock", "")

    def fork() -> Part[None]:
        yield locking["user"]
        inherited = yield load("private")
        yield store("inherited", inherited)
        del inherited
        yield store("forked", 1)
        if parent_waits:
            yield until("copied", 1)
        yield store("lock", "")

    def user() -> Program:
        yield store("share", 1)
        if receiver_fences:
            yield fence()
        gone = yield load("gone")
        closing = yield load("closing")
        if (gone or closing) and looks_again:
            yield from let_go()
            return
        del gone, closing
        yield store("taken", 1)
        yield from see()
        if forks:
            yield from fork()
        yield from see()
        yield from let_go()

    def child() -> Program:
        yield until("forked", 1)
        inherited = yield load("inherited")
        if not inherited:
            copy = yield load("data")
            yield store("child", copy)
            del copy
        else:
            yield store("child", inherited)
        del inherited
        yield store("copied", 1)
        yield from see("child")

    def own(words: Words) -> bool:
        words["private"] = words["private"] or words["data"]
        return True

    owning = atomic("own the page", own)

    def make_private() -> Part[None]:
        yield owning

    def watcher() -> Program:
        """As it is closed, or was evicted: without holding anybody up."""
        yield locking["watcher"]
        here = yield load("share")
        private = yield load("private")
        over = yield load("over")
        if not here or private or over:
            yield store("lock", "")
            return
        del here, private, over
        yield store("copies", 1)
        yield store("lock", "")
        yield owning
        yield locking["watcher"]
        yield store("copies", 0)
        dropped = yield load("dropped")
        if dropped:
            yield from clear()
        yield store("lock", "")

    def closer() -> Program:
        yield store("closing", 1)
        yield locking["closer"]
        here = yield load("share")
        private = yield load("private")
        parts = here and not private
        del here, private
        if not private_before_closed:
            yield store("closed", 1)
        if parts and private_before_cleared:
            yield from make_private()
        yield store("over", 1)
        yield store("share", 0)
        if parts and not private_before_cleared:
            yield from make_private()
        if private_before_closed:
            yield store("closed", 1)
        yield store("lock", "")

    # The others --------------------------------------------------------------------------------

    def sender() -> Program:
        yield until("returned", 1)
        yield store("data", 2)

    def due(words: Words) -> tuple[str, ...] | None:
        found = ["evict"] if evicts and not words["gone"] else []
        over = words["taken"] and not words["share"]
        if words["closed"] or (words["gone"] and not (words["share"] and table_is_awaited)):
            over = True
        if over and not words["returned"] and (words["gone"] or not evicts or words["taken"]):
            found.append("look")
        return tuple(found) or None

    awaiting = atomic("something is due", due)

    def dispatcher() -> Program:
        while True:
            jobs = yield awaiting
            job = yield choose("what first", jobs)
            del jobs
            if job == "evict":
                yield store("gone", 1)
                if dispatcher_fences:
                    yield fence()
            del job
            yield from judge()

    def judge() -> Part[None]:
        gone = yield load("gone")
        taken = yield load("taken")
        closed = yield load("closed")
        share = yield load("share")
        entered = share and (table_is_awaited or not gone)
        if closed or not (entered or not (taken or gone)):
            yield store("returned", 1)

    def at_rest(view: View) -> str | None:
        if view.status("dispatcher") == "killed":
            return None
        return None if view["returned"] else "the block does not come back"

    words: Words = dict.fromkeys(
        ("returned", "gone", "share", "taken", "closed", "private", "child", "copies"), 0
    )
    words |= dict.fromkeys(("dropped", "closing", "over", "copied", "forked", "inherited"), 0)
    words |= {"data": 1, "lock": ""}
    programs = {"S": sender, "dispatcher": dispatcher, "user": user, "closer": closer}
    programs |= {"child": child} if forks else {"watcher": watcher}
    return Model(
        words=words,
        programs=programs,
        at_rest=at_rest,
        kills=kills,
        mortal=("dispatcher",),
        heirs={"dispatcher": dispatcher},
        writers={"data": "S", "returned": "dispatcher", "gone": "dispatcher", "closed": "closer"},
    )
