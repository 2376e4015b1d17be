"""Confirmed delivery between two buses: nothing is lost and nothing comes twice, whoever is killed.

Describes shmbus/links/confirmed.py, with holding.py, receiving.py and keeper.py beside it. A is the
link of the bus that sends, B that of the bus that receives; both are started again when they are
killed. Messages are numbered; the number is the id.

The words, and who writes each:

    waiting      dispatcher  what lies in A's ring, untouched
    held         A           what it has taken, and is not done
    attached     dispatcher  whether there is an A
    asleep       dispatcher  what lies at a keeper: an endpoint of A's parent that takes nothing
    keepers      keeper      how many of them are attached
    run          A           how often it was started again
    wire         A           frames on their way: its run, a message, and what is settled
    sent         A           what it has sent since the way to B was cut last, or B was started
    confirms     B           confirmations on their way
    settled      A           what it will never send again
    out          B           what it has published, and the dispatcher has not forwarded
    delivered    dispatcher  messages that receivers have got
    note         dispatcher  the kept value with the ids of what B has published
    ids          B           the same, in its own memory
    peer         B           the last run of A that it knows

The steps:

    A            takes a message: held; sends it; once it is confirmed, and held: done; settled
    B            a frame of the last run: known? Else publish the message and the note, both at
                 once. Confirm it
    A killed     what was held and waiting goes to a keeper
    A again      attached; then another keeper is attached, and the one that has something leaves,
                 whose messages go to A, or where there is none, to the other keeper
    B killed     what it has published is forwarded; then there is another B
    B again      ids := the note

Why it holds.  A message is in `held` or waits, until B has published it. What B has published
stands in the note as long as A may send it again: they are published by one store, and a B begins
when all is forwarded that the one before had published.  The note has room for what is not
settled: at most `limit` of each A, and those of one that was killed come again.  Nothing is settled
that may come again: so a confirmation for the A before is passed over, and so is a frame of that
one, once the next has sent something.

What is explored: kills of A and of B between any two steps, a cut of the way between them, with
frames and confirmations lost or late.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from .explore import Model, Part, Program, View, atomic, choose

Words = dict[str, Any]
Job = tuple[str, int]


def confirming(
    messages: int = 2,
    *,
    limit: int = 1,
    room: int = 2,
    kills: int = 1,
    cuts: int = 0,
    note: Literal["with it", "before it", "after it"] = "with it",
    done_once_confirmed: bool = True,
    confirmed_once_published: bool = True,
    ids_are_compared: bool = True,
    settled_ids_go_first: bool = True,
    forwarded_before_the_next: bool = True,
    older_confirmations_are_passed_over: bool = True,
    older_frames_are_passed_over: bool = True,
    keeper_is_there: bool = True,
    keeper_is_followed: bool = True,
) -> Model:
    """`limit`: how many A holds; `room`: of the note, in ids."""
    numbers = range(1, messages + 1)

    # A, its parent, and the dispatcher of its bus ----------------------------------------------

    def jobs(words: Words) -> tuple[Job, ...] | None:
        found = [("confirmed", m) for m in words["confirms"]]
        found += [("send", m) for m in words["held"] - words["sent"]]
        if len(words["held"]) < limit:
            found += [("take", m) for m in words["waiting"]]
        return tuple(sorted(found)) or None

    def take(m: int, words: Words) -> bool:
        words["waiting"] -= {m}
        words["held"] |= {m}
        return True

    def send(m: int, words: Words) -> bool:
        words["sent"] |= {m}
        words["wire"] += ((words["run"], m, words["settled"]),)
        return True

    def hear(m: int, words: Words) -> bool:
        words["confirms"] -= {m}
        return m in words["held"] or not older_confirmations_are_passed_over

    def done(m: int, words: Words) -> bool:
        words["held"] -= {m}
        return True

    def settle(m: int, words: Words) -> bool:
        words["settled"] |= {m}
        return True

    def hand_on(left: frozenset[int], words: Words) -> None:
        if words["attached"]:
            words["waiting"] |= left
        elif words["keepers"]:
            words["asleep"] |= left
        else:
            words["lost"] |= left

    def depart(late: bool, words: Words) -> bool:
        """It was killed; what it has sent may arrive all the same."""
        left = words["held"] | words["waiting"]
        words |= {"held": frozenset(), "waiting": frozenset(), "attached": False}
        words |= {"sent": frozenset(), "settled": frozenset(), "run": words["run"] + 1}
        if not late:
            words |= {"wire": (), "confirms": frozenset()}
        hand_on(left, words)
        return True

    def attach(words: Words) -> bool:
        words["attached"] = True
        return True

    def needed(words: Words) -> bool | None:
        return bool(words["asleep"] and words["attached"]) or None

    def follow(words: Words) -> bool:
        words["keepers"] += 1
        return True

    def leave(words: Words) -> bool:
        left, words["asleep"] = words["asleep"], frozenset()
        words["keepers"] -= 1
        hand_on(left, words)
        return True

    taking = {m: atomic(f"take {m}", partial(take, m)) for m in numbers}
    sending = {m: atomic(f"send {m}", partial(send, m)) for m in numbers}
    hearing = {m: atomic(f"{m} is confirmed", partial(hear, m)) for m in numbers}
    finishing = {m: atomic(f"{m} is done", partial(done, m)) for m in numbers}
    settling = {m: atomic(f"settle {m}", partial(settle, m)) for m in numbers}
    departing = {late: atomic("A departs", partial(depart, late)) for late in (False, True)}
    attaching, looking = atomic("attach", attach), atomic("look", jobs)
    needing, following, leaving = (
        atomic("a keeper has something", needed),
        atomic("another keeper attaches", follow),
        atomic("the keeper leaves", leave),
    )

    def work() -> Program:
        while True:
            found = yield looking
            what, m = yield choose("what first", found)
            del found
            if what == "take":
                yield taking[m]
            elif what == "send":
                yield sending[m]
                if not done_once_confirmed:
                    yield finishing[m]
            else:
                here = yield hearing[m]
                if here:
                    yield finishing[m]
                    yield settling[m]
                del here
            del what, m

    def work_again() -> Program:
        late = yield choose("does arrive what was sent?", (False, True))
        yield departing[late]
        del late
        yield attaching
        yield from work()

    def keeper() -> Program:
        while True:
            yield needing
            if keeper_is_followed:
                yield following
            yield leaving
            if not keeper_is_followed:
                yield following

    # B, and the dispatcher of its bus ----------------------------------------------------------

    def runs(words: Words) -> tuple[int, ...] | None:
        """Of which something arrives: each has a way of its own."""
        return tuple(sorted({run for run, _, _ in words["wire"]})) or None

    def arrive(run: int, words: Words) -> tuple[int, frozenset[int]]:
        """0: nothing, it was lost meanwhile, or is passed over."""
        at = next((i for i, frame in enumerate(words["wire"]) if frame[0] == run), None)
        if at is None:
            return 0, frozenset()
        _, m, settled = words["wire"][at]
        words["wire"] = words["wire"][:at] + words["wire"][at + 1 :]
        if run < words["peer"] and older_frames_are_passed_over:
            return 0, frozenset()
        words["peer"] = max(run, words["peer"])
        return m, settled

    def known(m: int, words: Words) -> bool:
        return m in words["ids"] and ids_are_compared

    def noted(m: int, settled: frozenset[int], words: Words) -> tuple[int, ...]:
        gone = settled if settled_ids_go_first else frozenset()
        words["ids"] = tuple([*(i for i in words["ids"] if i not in gone), m][-room:])
        return ("note", *words["ids"])

    def publish(m: int, settled: frozenset[int], what: str, words: Words) -> bool:
        first: tuple[Any, ...] = () if what == "message" else (noted(m, settled, words),)
        words["out"] += first if what == "note" else (m, *first)
        return True

    def confirm(m: int, words: Words) -> bool:
        words["confirms"] |= {m}
        return True

    def forward(words: Words) -> bool | None:
        if not words["out"]:
            return None
        first, *rest = words["out"]
        words["out"] = tuple(rest)
        if isinstance(first, tuple):
            words["note"] = first[1:]
        elif first in words["delivered"]:
            words["twice"] |= {first}
        else:
            words["delivered"] |= {first}
        return True

    def begin(words: Words) -> bool | None:
        if words["out"] and forwarded_before_the_next:
            return None
        words |= {"ids": words["note"], "wire": (), "sent": frozenset(), "peer": words["run"]}
        return True

    def cut(frames: bool, confirms: bool, words: Words) -> bool:
        """A learns of it; what was under way is lost, or late."""
        words["sent"] = frozenset()
        words["wire"] = () if frames else words["wire"]
        words["confirms"] = frozenset() if confirms else words["confirms"]
        return True

    settlements = [
        frozenset(m for m in numbers if 1 << m & bits) for bits in range(0, 2 << messages, 2)
    ]
    knowing = {m: atomic(f"is {m} known?", partial(known, m)) for m in numbers}
    publishing = {
        (m, settled, what): atomic(f"publish {what} of {m}", partial(publish, m, settled, what))
        for m in numbers
        for settled in settlements
        for what in ("message", "note", "message and note")
    }
    confirming = {m: atomic(f"confirm {m}", partial(confirm, m)) for m in numbers}
    arriving = {run: atomic("a frame arrives", partial(arrive, run)) for run in range(kills + 1)}
    listening, forwarding = atomic("listen", runs), atomic("forward", forward)
    beginning = atomic("B begins", begin)
    cutting = {
        (frames, confirms): atomic("cut", partial(cut, frames, confirms))
        for frames in (False, True)
        for confirms in (False, True)
    }

    def enter(m: int, settled: frozenset[int]) -> Part[None]:
        if note == "with it":
            yield publishing[m, settled, "message and note"]
        elif note == "before it":
            yield publishing[m, settled, "note"]
            yield publishing[m, settled, "message"]
        else:
            yield publishing[m, settled, "message"]
            yield publishing[m, settled, "note"]

    def serve() -> Program:
        while True:
            there = yield listening
            run = yield choose("of which run", there)
            del there
            m, settled = yield arriving[run]
            del run
            if not m:
                continue
            seen = yield knowing[m]
            if not confirmed_once_published:
                yield confirming[m]
            if not seen:
                yield from enter(m, settled)
            if confirmed_once_published:
                yield confirming[m]
            del m, settled, seen

    def serve_again() -> Program:
        yield beginning
        yield from serve()

    def dispatcher() -> Program:
        while True:
            yield forwarding

    def cutter() -> Program:
        for _ in range(cuts):
            lost = yield choose("what is lost", tuple(cutting))
            yield cutting[lost]
            del lost

    def invariant(view: View) -> str | None:
        if view["twice"]:
            return f"{set(view['twice'])} came twice"
        return f"{set(view['lost'])} found nobody" if view["lost"] else None

    def at_rest(view: View) -> str | None:
        left = set(numbers) - view["delivered"]
        return f"{left or set(view['held'])} did not get there" if left or view["held"] else None

    words: Words = dict.fromkeys(
        ("held", "asleep", "sent", "confirms", "settled", "delivered", "twice", "lost"), frozenset()
    )
    words |= {"waiting": frozenset(numbers), "attached": True, "keepers": int(keeper_is_there)}
    words |= dict.fromkeys(("wire", "out", "note", "ids"), ()) | dict.fromkeys(("run", "peer"), 0)
    programs = {"A": work, "B": serve, "keeper": keeper, "dispatcher": dispatcher, "cut": cutter}
    return Model(
        words=words,
        programs=programs,
        at_rest=at_rest,
        invariant=invariant,
        kills=kills,
        mortal=("A", "B"),
        heirs={"A": work_again, "B": serve_again},
        buffered=False,
    )
