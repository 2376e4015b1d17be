"""Pools: nobody sees a block change while he looks at it, and each block comes back to its sender,
whoever is killed.

Describes pool.h and share.h in shmbus/dispatcher/native and in shmbus/endpoint/native. `S` sends
messages 1, 2, ... in the blocks of its pool; `A` and `B` take them from rings, `C` from a mailbox
of one entry. A message's number stands for its position in S's ring, and so for its use.

The words, and who writes each:

    data[i]              S: what lies in block i: the number of the message
    use[i]               S: the last message that was sent with it
    record[m], out       S: the block of message m; the last message that is published
    tail                 dispatcher: the last one that it has forwarded to all
    owed                 dispatcher: to whom that of its next one is still owed
    returned[i]          dispatcher: the last use of block i that is over
    ring[r], head[r]     dispatcher: the messages in r's ring, by positions 1, 2, ...
    kept                 dispatcher: the last value that is kept; 0: none
    listed               dispatcher: 1, until the mailbox is closed
    number, at, came     dispatcher: of the mailbox: of what is in its entry, 0: nothing; which
                         message; how many came
    share[r], block[r]   r: its table, of one entry
    taken[r]             r: positions up to here are taken; C: numbers up to here are
    ended[r]             r: raised after its entry is free again
    nack[r], given[r]    r: the message that it gives back; 1 once that is published
    void[r]              dispatcher: positions of r's whose records are for it no more
    dealt[r]             dispatcher: 1 once that is forwarded
    gone[r]              dispatcher: 1 once all that the dead r left is dealt with
    pool                 dispatcher: 0 once S's pool is removed
    shares               dispatcher, its own memory: (holder, position or number, block)
    over                 likewise: of these, those that were found to be over
    seen[r]              likewise: `taken` and `ended` at the last look

The steps:

    S            a block with use = 0 or use = returned: write it; use = m; record; out = m
    dispatcher   shares + one for the target; the target's ring, its head; owed, one fewer; tail
                 tail >= use[i], and no share of block i? returned[i] = use[i]
    A, B         block, share = the position; the pool is mapped; taken = the position; look
                 given back? nack, given = 1. Then share = 0; ended + 1
    the look     taken or ended have changed? taken, then share, then given: what is before taken
                 and not in the table is over, once all given back by then is forwarded
    to C         the entry holds another? number = 0; fence; its share is over if it is not in the
                 table; at; shares + one; number; came
    C            came, number, at; block, share = the number; fence; number again: is it the same?
                 it has it: taken = the number; look. Otherwise, and then: share = 0; ended + 1
    revoked      S waits, A has not taken what is at a position: lost + one; void, that position,
                 too; fence; its share is over if the table has not got it
    A, B         share = the position; fence; is it void? share = 0; ended + 1; taken: it is skipped
    to slow A    while it has taken nothing since, what comes for it is lost: lost + one
    closed       number = 0; fence; its share is over if the table has not got it; listed = 0
    kept         shares + one; kept; the one before is over
    yielding     S waits? kept = 0; that one's share is over
    successor    of each: taken, then share, block, share again, then given. Its shares are those in
                 the rings beyond taken, in the tables, in the mailbox, kept, and those given back
                 and not forwarded
    S is dead    all is forwarded and no share is left? pool = 0

Why it holds. A share is in the ring, or in the table before it is not in the ring any more; what is
given back is published before it leaves the table. So who looks at these places in the order in
which a share passes through them cannot miss it, and where it meets it twice it is one, by its
name. Nothing is told, so nothing that is told can be lost: whoever looks again finds the same.

What is revoked is void before the table is looked at, as a number in a mailbox; of that look and
the receiver's second one at least one sees what the other has stored. It is counted before it is
void, so that a kill in between has it counted twice and not forgotten.

What is explored: store buffers where that matters, kills of each at every step, an adoption at
every moment, fan-outs, messages given back and handed on, an observer that reads what is kept, what
is kept yielding to S, a mailbox that is closed while its reader does not know. Shown: who looks
sees his message and nothing else; a pool is there when it is mapped; nobody honest is taken for a
forger; S gets all blocks back, but for what is kept or in the mailbox.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from .explore import Model, Part, Program, Step, View, atomic, choose, fence, load, store, until

Words = dict[str, Any]
NACK = -1  # in the place of a position: it is given back, and not forwarded


def pools(
    routes: tuple[str, ...],
    *,
    blocks: int = 1,
    kills: int = 1,
    mortal: tuple[str, ...] = ("S", "A", "dispatcher"),
    gives_back: bool = False,
    idles: bool = False,
    yields: bool = False,
    closes: bool = False,
    hands_on: bool = False,
    observer: bool = False,
    buffered: bool = False,
    entered_before_taken: bool = True,
    cleared_after_given_back: bool = True,
    counted_before_released: bool = True,
    returned_once_consumed: bool = True,
    returned_once_let_go: bool = True,
    kept_is_counted: bool = True,
    use_before_published: bool = True,
    taken_is_looked_at_first: bool = True,
    given_is_looked_at_last: bool = True,
    given_is_awaited: bool = True,
    looks_again: bool = True,
    receiver_fences: bool = True,
    dispatcher_fences: bool = True,
    looks_at_void: bool = True,
    void_before_table: bool = True,
    lost_is_counted_first: bool = True,
    adopts_no_void: bool = True,
    entry_before_mail_is_taken: bool = True,
    adopts_tables: bool = True,
    adopts_rings: bool = True,
    adopts_mail: bool = True,
    adopts_kept: bool = True,
    adopts_given_back: bool = True,
    adopts_in_order: bool = True,
    pool_outlives: bool = True,
    kept_goes: bool = True,
    kept_goes_before_it_is_over: bool = True,
    void_once_closed: bool = True,
    void_before_unlisted: bool = True,
    table_outlives_mailbox: bool = True,
) -> Model:
    """`routes`: of each message to whom it goes: A, B and C; k: it is kept, too. What A gives back,
    or leaves behind, B has. `idles`: A may stop, and what S waits for is revoked. `yields`: what S
    waits for is not kept. `closes`: the mailbox is closed, at any moment."""
    everybody = "".join(routes)
    receivers = tuple(r for r in "ABC" if r in everybody or (r == "B" and (gives_back or hands_on)))
    by_block = tuple(range(blocks))
    sent = tuple(range(1, len(routes) + 1))

    # The sender ------------------------------------------------------------------------------

    def free_block(words: Words) -> int | None:
        free = [i for i in by_block if words[f"use[{i}]"] in (0, words[f"returned[{i}]"])]
        return free[0] if free else None

    finding = atomic("find a block", free_block)

    def sender() -> Program:
        for m in sent:
            i = yield finding
            yield store(f"data[{i}]", m)
            if use_before_published:
                yield store(f"use[{i}]", m)
            yield store(f"record[{m}]", i)
            yield store("out", m)
            if not use_before_published:
                yield store(f"use[{i}]", m)
            del i

    # The receivers ---------------------------------------------------------------------------

    def map_pool() -> Part[None]:
        if "S" in mortal:
            pool = yield load("pool")
            assert pool, "the pool has gone"

    def look(i: int, m: int) -> Part[None]:
        there = yield load(f"data[{i}]")
        assert there == m, f"message {m} became {there}"

    def clear(r: str) -> Part[None]:
        yield store(f"share[{r}]", 0)
        ended = yield load(f"ended[{r}]")
        yield store(f"ended[{r}]", ended + 1)

    def enter(r: str, i: int, share: int) -> Part[None]:
        yield store(f"block[{r}]", i)
        yield store(f"share[{r}]", share)

    def peek(r: str, position: int, words: Words) -> tuple[int, int] | None:
        """The message there, and its block: what is published does not change."""
        if words[f"head[{r}]"] < position:
            return None
        m = words[f"ring[{r}]"][position - 1]
        return m, words[f"record[{m}]"]

    peeking = {
        (r, at): atomic(f"peek at {at}", partial(peek, r, at))
        for r in receivers
        for at in range(1, 2 * len(sent) + 2)
    }

    def note(word: str, at: int, words: Words) -> bool:
        words[word] |= {at}
        return True

    def receiver(r: str) -> Program:
        position = 0
        while True:
            position += 1
            if idles:
                goes_on = yield choose(f"{r} goes on", (True, False))
                if not goes_on:
                    yield until("never", 1)
                del goes_on
            m, i = yield peeking[r, position]
            if not entered_before_taken:
                yield store(f"taken[{r}]", position)
            yield from enter(r, i, position)
            if idles:
                if receiver_fences:
                    yield fence()
                void = yield load(f"void[{r}]")
                if position in void and looks_at_void:
                    yield from clear(r)
                    yield store(f"taken[{r}]", position)
                    del void, m, i
                    continue
                del void
            yield from map_pool()
            if entered_before_taken:
                yield store(f"taken[{r}]", position)
            if idles:
                yield got[r, position]
            yield from look(i, m)
            if gives_back and r == "A" and position == 1:
                yield store(f"nack[{r}]", m)
                if not cleared_after_given_back:
                    yield from clear(r)
                yield store(f"given[{r}]", 1)
                if not cleared_after_given_back:
                    del m, i
                    continue
            yield from look(i, m)
            yield from clear(r)
            del m, i

    got = {
        (r, at): atomic(f"{r} has {at}", partial(note, f"had[{r}]", at))
        for r in receivers
        for at in range(1, 2 * len(sent) + 2)
    }

    def mail_reader() -> Program:
        taken = 0
        while True:
            came = yield until("came", taken + 1)
            number = yield load("number")
            m = yield load("at")
            if not taken < number <= came:
                # What came is being written over: there will be more.
                yield until("number", taken + 1)
                continue
            del came
            i = yield load(f"record[{m}]")
            if not entry_before_mail_is_taken:
                yield store("taken[C]", number)
            yield from enter("C", i, number)
            if receiver_fences:
                yield fence()
            again = number
            if looks_again:
                again = yield load("number")
            if again == number:
                yield from map_pool()
                if entry_before_mail_is_taken:
                    yield store("taken[C]", number)
                yield from look(i, m)
                yield from look(i, m)
                taken = number
            del again, number, m
            yield from clear("C")
            del i

    def observe() -> Program:
        m = yield until("kept", 1)
        i = yield load(f"record[{m}]")
        there = yield load(f"data[{i}]")
        again = yield load("kept")
        assert there == m or again != m, f"{there} was taken for {m}"

    def buried(r: str) -> Program:
        """In the place of one that was killed."""
        yield store(f"dead[{r}]", 1)

    # The dispatcher --------------------------------------------------------------------------

    def block_of(words: Words, m: int) -> int:
        return int(words[f"record[{m}]"])

    def over(words: Words) -> list[tuple[int, int]]:
        """Blocks that can go back, and their uses."""
        found = []
        for i in by_block:
            use = words[f"use[{i}]"]
            shared = returned_once_let_go and any(one[2] == i for one in words["shares"])
            consumed = use <= (words["tail"] if returned_once_consumed else words["out"])
            if use != words[f"returned[{i}]"] and consumed and not shared:
                found.append((i, use))
        return found

    def awaited(words: Words, r: str) -> bool:
        """All that r had given back when its share was found to be over is forwarded."""
        return words[f"dealt[{r}]"] >= words[f"at over[{r}]"] or not given_is_awaited

    def revocable(words: Words, r: str, position: int, i: int) -> bool:
        untaken = position > words[f"taken[{r}]"] and position not in words[f"void[{r}]"]
        return untaken and (r, position, i) not in words["over"]

    def next_job(words: Words) -> tuple[Any, ...] | None:
        jobs: list[tuple[Any, ...]] = []
        m = words["tail"] + 1
        if m <= words["out"]:
            i = block_of(words, m)
            jobs.append(("forward", m, i, words[f"use[{i}]"]))
        for r in receivers:
            if words[f"given[{r}]"] and not words[f"dealt[{r}]"]:
                back = words[f"nack[{r}]"]
                jobs.append(("give back", r, back, block_of(words, back)))
            elif words[f"dead[{r}]"]:
                if not words[f"gone[{r}]"]:
                    jobs.append(("bury", r))
            else:
                now = words[f"taken[{r}]"], words[f"ended[{r}]"]
                if words[f"seen[{r}]"] != now:
                    jobs.append(("sweep", r, now))
        if idles and m <= len(sent) and free_block(words) is None:
            jobs += [("revoke", *one) for one in sorted(words["shares"]) if revocable(words, *one)]
        if yields and kept_goes and words["kept"] and m <= len(sent) and free_block(words) is None:
            jobs.append(("yield", words["kept"], block_of(words, words["kept"])))
        if closes and words["listed"]:
            jobs.append(("close",))
        jobs += [("drop", one) for one in sorted(words["over"]) if awaited(words, one[0])]
        if not words["dead[S]"]:
            jobs += [("return", *one) for one in over(words)]
        elif words["pool"] and m > words["out"] and not (words["shares"] and pool_outlives):
            jobs.append(("remove",))
        return tuple(jobs) or None

    looking = atomic("look", next_job)

    def without(words: Words, *which: tuple[str, int]) -> bool:
        for known in ("shares", "over"):
            words[known] = frozenset(one for one in words[known] if one[:2] not in which)
        return True

    @cache  # a step is the same at the same place
    def drop(holder: str, position: int) -> Step:
        return atomic(f"drop {holder} {position}", lambda words: without(words, (holder, position)))

    @cache
    def publish(m: int, i: int, r: str, struck: str) -> Step:
        """With the journal: once. `struck`: what is dealt with by it."""

        def effect(words: Words) -> bool:
            if struck == "owed" and not owes(words, m, r):
                return True
            if words[f"slow[{r}]"] == words[f"taken[{r}]"]:
                words[f"lost[{r}]"] += 1
                return True
            words[f"ring[{r}]"] = (*words[f"ring[{r}]"], m)
            words[f"head[{r}]"] += 1
            if counted_before_released:
                words["shares"] |= {(r, words[f"head[{r}]"], i)}
            if struck != "owed":
                words[struck] += 1
            if struck == f"dealt[{struck[-2]}]":
                without(words, (struck[-2], NACK))
            return True

        return atomic(f"publish {m} to {r}", effect)

    def owes(words: Words, m: int, r: str) -> bool:
        """Strikes r, too."""
        if words["owed"][0] != m:
            words["owed"] = (m, routes[m - 1].replace("k", ""))
        owed = words["owed"][1]
        words["owed"] = (m, owed.replace(r, ""))
        return r in owed and not words[f"dead[{r}]"]

    def count_lost(r: str, words: Words) -> bool:
        words[f"lost[{r}]"] += 1
        words[f"slow[{r}]"] = words[f"taken[{r}]"]
        return True

    losing = {r: atomic(f"{r} loses one", partial(count_lost, r)) for r in receivers}

    def revoke(r: str, position: int) -> Part[None]:
        if lost_is_counted_first:
            yield losing[r]
        if not void_before_table:
            share = yield load(f"share[{r}]")
        void = yield load(f"void[{r}]")
        yield store(f"void[{r}]", void | {position})
        del void
        if not lost_is_counted_first:
            yield losing[r]
        if dispatcher_fences:
            yield fence()
        if void_before_table:
            share = yield load(f"share[{r}]")
        if share != position:
            yield drop(r, position)

    @cache
    def keep(m: int, i: int) -> Step:
        def effect(words: Words) -> bool:
            before = words["kept"]
            if before < m:
                words["kept"] = m
                without(words, ("kept", before))
                if kept_is_counted:
                    words["shares"] |= {("kept", m, i)}
            return True

        return atomic(f"keep {m}", effect)

    @cache
    def mail(m: int, i: int, number: int) -> Step:
        """What follows once the entry is void."""

        def effect(words: Words) -> bool:
            words["shares"] |= {("C", number, i)}
            words["number"] = number
            return True

        return atomic(f"{m} is mail {number}", effect)

    @cache
    def publish_mail(m: int, number: int) -> Step:
        def effect(words: Words) -> bool:
            words["came"] = number
            return owes(words, m, "C") or True

        return atomic(f"publish mail {number}", effect)

    def leave_mailbox() -> Part[None]:
        """What stands in the entry can be taken no more."""
        before = yield load("number")
        if not before:
            return
        yield store("number", 0)
        if dispatcher_fences:
            yield fence()
        entered = yield load("share[C]")
        if entered != before:
            yield drop("C", before)

    def put_into_mailbox(m: int, i: int) -> Part[None]:
        owed = yield load("owed")
        if owed[0] == m and "C" not in owed[1]:
            return
        del owed
        listed = yield load("listed")
        if not listed:
            return
        del listed
        number = (yield load("came")) + 1
        yield from leave_mailbox()
        yield store("at", m)
        yield mail(m, i, number)
        yield publish_mail(m, number)

    def close_mailbox() -> Part[None]:
        if not void_before_unlisted:
            yield store("listed", 0)
        if void_once_closed:
            yield from leave_mailbox()
        if not void_once_closed or not table_outlives_mailbox:
            yield dropping_mail
        if void_before_unlisted:
            yield store("listed", 0)

    dropping_mail = atomic(
        "drop what C has", lambda words: end_shares(words, lambda one: one[0] == "C")
    )

    def yield_kept(m: int, i: int) -> Part[None]:
        if kept_goes_before_it_is_over:
            yield store("kept", 0)
        yield drop("kept", m)
        if not kept_goes_before_it_is_over:
            yield store(f"returned[{i}]", m)
            yield store("kept", 0)

    def forward(m: int, i: int) -> Part[None]:
        route = routes[m - 1]
        if "k" in route:
            yield keep(m, i)
        for r in route.replace("k", ""):
            if r == "C":
                yield from put_into_mailbox(m, i)
            else:
                yield publish(m, i, r, "owed")
        yield store("tail", m)
        if not counted_before_released:
            yield counting_late

    def count_late(words: Words) -> bool:
        words["shares"] |= shares_in_rings(words, dict.fromkeys(receivers, 0))
        return True

    def shares_in_rings(words: Words, taken: dict[str, int]) -> set[tuple[str, int, int]]:
        return {
            (r, at, block_of(words, m))
            for r, passed in taken.items()
            for at, m in enumerate(words[f"ring[{r}]"], start=1)
            if at > passed and not (adopts_no_void and at in words[f"void[{r}]"])
        }

    counting_late = atomic("count late", count_late)

    def bury(r: str) -> Part[None]:
        """What it has left goes to B, or is counted."""
        while hands_on and r == "A":
            left = yield left_of[r]
            if not left:
                break
            yield publish(*left, "B", f"reclaim[{r}]")
            del left
        yield ending[r]

    def left_by(r: str, words: Words) -> tuple[int, ...]:
        """The next message that it had not done: it was in hand, or it is untouched."""
        done = words[f"taken[{r}]"] - (words[f"share[{r}]"] == words[f"taken[{r}]"] > 0)
        at = done + words[f"reclaim[{r}]"]
        if at >= words[f"head[{r}]"]:
            return ()
        m = words[f"ring[{r}]"][at]
        return m, block_of(words, m)

    def end_shares(words: Words, which: Callable[[tuple[str, int, int]], bool]) -> bool:
        for known in ("shares", "over"):
            words[known] = frozenset(one for one in words[known] if not which(one))
        return True

    def end(r: str, words: Words) -> bool:
        words[f"gone[{r}]"] = 1
        return end_shares(words, lambda one: one[0] == r)

    left_of = {r: atomic(f"what {r} left", partial(left_by, r)) for r in receivers}
    ending = {r: atomic(f"{r} is reclaimed", partial(end, r)) for r in receivers}

    def sweep(r: str, now: tuple[int, int]) -> Part[None]:
        yield store(f"seen[{r}]", now)
        del now
        if not given_is_looked_at_last:
            given = yield load(f"given[{r}]")
        if not taken_is_looked_at_first:
            share = yield load(f"share[{r}]")
        taken = yield load(f"taken[{r}]")
        if taken_is_looked_at_first:
            share = yield load(f"share[{r}]")
        if given_is_looked_at_last:
            given = yield load(f"given[{r}]")
        yield finding_over(r, taken, share, given)

    @cache
    def finding_over(r: str, taken: int, share: int, given: int) -> Step:
        def effect(words: Words) -> bool:
            here = {one for one in words["shares"] if one[0] == r and one[1] != NACK}
            void = {one for one in here if r == "C" and one[1] != words["number"]}
            void |= {one for one in here if one[1] in words[f"void[{r}]"]}
            passed = {one for one in here if one[1] <= taken} | void
            words["over"] |= {one for one in passed if one[1] != share}
            words[f"at over[{r}]"] = given
            return True

        return atomic(f"{r} has taken {taken} and looks at {share}", effect)

    def give_back(r: str, m: int, i: int) -> Part[None]:
        shares = yield load("shares")
        known = any(one[0] == r and one[2] == i for one in shares)
        assert known, f"{r} passes for a forger"
        del shares, known
        yield publish(m, i, "B", f"dealt[{r}]")

    def serve() -> Program:
        while True:
            jobs = yield looking
            job = yield choose("what first", jobs)
            del jobs
            match job:
                case ("forward", m, i, use):
                    assert use == m, "S passes for a forger"
                    del job, use
                    yield from forward(m, i)
                    del m, i
                case ("give back", r, m, i):
                    del job
                    yield from give_back(r, m, i)
                    del r, m, i
                case ("sweep", r, now):
                    del job
                    yield from sweep(r, now)
                    del r, now
                case ("revoke", r, position, _):
                    del job
                    yield from revoke(r, position)
                    del r, position
                case ("yield", m, i):
                    del job
                    yield from yield_kept(m, i)
                    del m, i
                case ("close",):
                    del job
                    yield from close_mailbox()
                case ("bury", r):
                    yield from bury(r)
                    del r, job
                case ("drop", (r, position, _)):
                    yield drop(r, position)
                    del r, position, job
                case ("return", i, use):
                    yield store(f"returned[{i}]", use)
                    del i, use, job
                case ("remove",):
                    yield store("pool", 0)
                    del job

    # Adoption --------------------------------------------------------------------------------

    def begin(words: Words) -> bool:
        words["shares"] = words["over"] = frozenset()
        for r in receivers:
            words[f"seen[{r}]"], words[f"at over[{r}]"] = (0, 0), 0
            words[f"slow[{r}]"] = None
        if words["number"] > words["came"]:
            words["number"] = 0
        return True

    beginning = atomic("begin anew", begin)

    @cache
    def counting(r: str, taken: int, share: int, block: int, given: int) -> Step:
        def effect(words: Words) -> bool:
            found = {(r, share, block)} if share and adopts_tables else set()
            if given and not words[f"dealt[{r}]"] and adopts_given_back:
                found.add((r, NACK, block_of(words, words[f"nack[{r}]"])))
            if r == "C":
                if words["listed"] and words["number"] > taken and adopts_mail:
                    found.add((r, words["number"], block_of(words, words["at"])))
            elif adopts_rings:
                found |= shares_in_rings(words, {r: 0 if words[f"dead[{r}]"] else taken})
            if not words[f"gone[{r}]"]:
                words["shares"] |= found
            return True

        return atomic(f"count those of {r}", effect)

    def count_kept(words: Words) -> bool:
        if words["kept"] and adopts_kept and kept_is_counted:
            words["shares"] |= {("kept", words["kept"], block_of(words, words["kept"]))}
        return True

    counting_kept = atomic("count what is kept", count_kept)

    def successor() -> Program:
        yield fence()  # what a dead one has stored is in memory
        yield beginning
        for r in receivers:
            if not adopts_in_order:
                given = yield load(f"given[{r}]")
            taken = yield load(f"taken[{r}]")
            share = yield load(f"share[{r}]")
            block = yield load(f"block[{r}]")
            again = yield load(f"share[{r}]")
            if adopts_in_order:
                given = yield load(f"given[{r}]")
            yield counting(r, taken, share if share == again else 0, block, given)
            del taken, share, block, again, given
        yield counting_kept
        yield from serve()

    # What must be so at last -----------------------------------------------------------------

    def at_rest(view: View) -> str | None:
        if view.status("dispatcher") == "killed":
            return None
        held = [view["kept"]] if view["kept"] else []
        if view["number"] > (view["taken[C]"] if "C" in receivers else 0):
            held.append(view["at"])
        for r in receivers if idles else ():
            taken, void = view[f"taken[{r}]"], view[f"void[{r}]"]
            left = [
                m
                for at, m in enumerate(view[f"ring[{r}]"], start=1)
                if at > taken and at not in void
            ]
            due = sum(r in route for route in routes[: view["tail"]])
            if len(view[f"had[{r}]"]) + view[f"lost[{r}]"] + len(left) < due:
                return "one is lost and not counted"
            held += left
        if view["dead[S]"]:
            return None if held or not view["pool"] else "the pool stays"
        kept = {view["kept"]} if yields else set()
        if view.status("S") != "ended" and len(set(held) - kept) < blocks:
            return "the sender waits for ever"
        for i in by_block:
            use = view[f"use[{i}]"]
            if use != view[f"returned[{i}]"] and use not in held:
                return f"block {i} does not come back"
        return None

    words: Words = {
        "out": 0,
        "tail": 0,
        "owed": (0, ""),
        "kept": 0,
        "listed": 1,
        "pool": 1,
        "dead[S]": 0,
        "never": 0,
    }
    words |= {"number": 0, "at": 0, "came": 0}
    words |= {"shares": frozenset(), "over": frozenset()}
    writers = dict.fromkeys(("out", "dead[S]"), "S")
    for i in by_block:
        words |= {f"{word}[{i}]": 0 for word in ("data", "use", "returned")}
        writers |= {f"{word}[{i}]": "S" for word in ("data", "use")}
    for m in sent:
        words[f"record[{m}]"] = 0
        writers[f"record[{m}]"] = "S"
    for r in receivers:
        own = ("share", "block", "taken", "ended", "nack", "given", "dead")
        words |= {f"{word}[{r}]": 0 for word in own}
        writers |= {f"{word}[{r}]": r for word in own}
        words |= {f"{word}[{r}]": 0 for word in ("head", "dealt", "gone", "at over", "reclaim")}
        words |= {f"ring[{r}]": (), f"seen[{r}]": (0, 0), f"had[{r}]": frozenset()}
        words |= {f"void[{r}]": frozenset(), f"lost[{r}]": 0, f"slow[{r}]": None}
        writers[f"had[{r}]"] = r
    writers |= {word: "dispatcher" for word in words if word not in writers}
    programs = {"S": sender, "dispatcher": serve}
    programs |= {r: mail_reader if r == "C" else partial(receiver, r) for r in receivers}
    if observer:
        programs["observer"] = observe
    heirs = {r: partial(buried, r) for r in ("S", *receivers)}
    return Model(
        words=words,
        programs=programs,
        at_rest=at_rest,
        buffered=buffered,
        kills=kills,
        mortal=tuple(one for one in mortal if one in programs),
        heirs={**heirs, "dispatcher": successor},
        writers=writers,
    )
