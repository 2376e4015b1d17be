"""Mailboxes: what an endpoint takes is whole and there is nothing newer of its kind left, though
the dispatcher writes over it meanwhile, and is killed.

Describes mailbox.h in shmbus/dispatcher/native and in shmbus/endpoint/native.

The words, and who writes each; all but none are the dispatcher's:

    number[i]   which message entry i is; 0: none
    at[i]       the cell in which it stands
    a[c], b[c]  the halves of cell c: the number of the message that was written there
    head        the last message that is published
    journal     the message that is about to be
    tail        the last one that its source need not keep

The steps:

    dispatcher   a cell that no entry names; is there none? the oldest entry: number = 0, and its
                 own
                 write both halves
                 its entry: number = 0; at = the cell; number = the message
                 journal, head, tail = the message
    next one     journal <= head? tail = journal. number > head? number = 0
    endpoint     n = head; a round: all entries with a number up to n that it has not taken
                 copy: head, number, at, both halves, number again: is it the same, and up to
                 the head?

Why it holds. A cell is written only after no entry names it, and an entry changes only after
its number is 0. So whoever reads a half of something newer has read a number that is not there
any more. What is above the head may be written again by a successor, with the same number, and is
taken by nobody: what has a number up to a head that was loaded before is there for good.

What is explored: store buffers as on x86-TSO; three messages, of which two have one entry; with
a cell to spare and with none; kills of the dispatcher at every step, also in its adoption,
after which messages of the other type may come first. Shown: what is taken is whole, published,
in the order of each entry and never twice; the last message is taken, and no loss is told of
that does not stay one.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from .explore import Model, Part, Program, View, choose, load, store, until

ENTRIES = (0, 1)
LAST = 3


def mailbox(
    *,
    latest: bool = True,
    spare: bool = True,
    kills: int = 1,
    voids_before_the_entry_changes: bool = True,
    voids_before_its_cells_are_written: bool = True,
    looks_twice: bool = True,
    looks_at_the_head: bool = True,
    head_before_the_number: bool = True,
    journal_before_the_head: bool = True,
    head_before_the_tail: bool = True,
    successor_voids: bool = True,
) -> Model:
    """`latest`: an entry for each of two types, of which the newest is taken; else for each second
    message, and its own is. `spare`: there is a cell more than entries."""
    cells = (0, 1, 2) if spare else (0, 1)

    def free_cell() -> Part[int]:
        """After the oldest entry is void, where there is none."""
        named: tuple[tuple[int, int, int], ...] = ()
        for i in ENTRIES:
            number = yield load(f"number[{i}]")
            at = yield load(f"at[{i}]")
            if number:
                named = (*named, (number, i, at))
        taken = {at for _, _, at in named}
        free = [c for c in cells if c not in taken]
        if free:
            return free[0]
        _, oldest, at = min(named)
        del taken, free, named
        if voids_before_its_cells_are_written:
            yield store(f"number[{oldest}]", 0)
        return int(at)

    def write(message: int, i: int) -> Part[None]:
        c = yield from free_cell()
        yield store(f"a[{c}]", message)
        yield store(f"b[{c}]", message)
        if voids_before_the_entry_changes:
            yield store(f"number[{i}]", 0)
        yield store(f"at[{i}]", c)
        yield store(f"number[{i}]", message)

    def adopt() -> Part[None]:
        journal = yield load("journal")
        head = yield load("head")
        if journal <= head:
            yield store("tail", journal)
        del journal
        for i in ENTRIES:
            number = yield load(f"number[{i}]")
            if number > head and successor_voids:
                yield store(f"number[{i}]", 0)

    def dispatcher(types: int = 0) -> Program:
        yield from adopt()
        message = yield load("tail")
        while message < LAST:
            message += 1
            yield from write(message, (message - 1 + types) % 2)
            if journal_before_the_head:
                yield store("journal", message)
            if not head_before_the_tail:
                yield store("tail", message)
            yield store("head", message)
            if not journal_before_the_head:
                yield store("journal", message)
            if head_before_the_tail:
                yield store("tail", message)

    def successor() -> Program:
        """It may begin with what another has sent."""
        types = yield choose("whose turn is it?", (0, 1))
        yield from dispatcher(types)

    def copy(i: int) -> Part[int]:
        head = LAST
        if looks_at_the_head and head_before_the_number:
            head = yield load("head")
        number = yield load(f"number[{i}]")
        at = yield load(f"at[{i}]")
        if looks_at_the_head and not head_before_the_number:
            head = yield load("head")
        a = yield load(f"a[{at}]")
        b = yield load(f"b[{at}]")
        del at
        again = number
        if looks_twice:
            again = yield load(f"number[{i}]")
        if not number or number > head or number != again:
            return 0
        assert a == b == number, f"{a} and {b} was taken for {number}"
        return int(number)

    def endpoint() -> Program:
        taken, lost, head = (0, 0), 0, 0
        ever: tuple[int, ...] = ()
        while head < LAST:
            head = yield until("head", head + 1)
            waiting: tuple[tuple[int, int], ...] = ()
            for i in ENTRIES:
                number = yield load(f"number[{i}]")
                if taken[i] < number and (number <= head or not looks_at_the_head):
                    waiting = (*waiting, (number, i))
            gone = head - len(ever) - len(waiting)
            assert gone >= lost, f"{lost} were lost, and now {gone}"
            lost = max(gone, lost)
            del gone
            for number, i in sorted(waiting):
                got = yield from copy(i)
                if got and (latest or got == number):
                    assert got > taken[i], f"{got} comes after {taken[i]}"
                    assert got not in ever, f"{got} comes twice"
                    taken, ever = (got, taken[1]) if i == 0 else (taken[0], got), (*ever, got)
                del got
        assert LAST in ever, f"{taken} are the last"

    def at_rest(view: View) -> str | None:
        if view.status("dispatcher") == "killed":
            return None
        return None if view.status("endpoint") == "ended" else "the endpoint waits for ever"

    words = {f"number[{i}]": 0 for i in ENTRIES} | {f"at[{i}]": 0 for i in ENTRIES}
    words |= {f"{half}[{c}]": 0 for half in "ab" for c in cells}
    words |= {"head": 0, "journal": 0, "tail": 0}
    return Model(
        words=words,
        programs={"dispatcher": dispatcher, "endpoint": endpoint},
        at_rest=at_rest,
        kills=kills,
        mortal=("dispatcher",),
        heirs={"dispatcher": successor},
        writers=dict.fromkeys(words, "dispatcher"),
        private=frozenset({"journal", "tail"}),
    )
