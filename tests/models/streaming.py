"""Replies in parts: all of them come once and in order, or the stream ends with an error or a
close.

Describes shmbus/endpoint/native/stream.h and outflow.h, shmbus/dispatcher/native/credit.h, and what
run.h and forward.h there do with parts.

The words, and who writes each:

    said        requester   what it has granted so far, record after record; `heard` (dispatcher)
                            is the tail
    withdrawn   requester   it has broken off: its entry is free, the cancel is in its data ring
    cancelled   dispatcher  that it has dealt with
    sent        server      parts, then the end, in its outgoing reply ring; `tail` (dispatcher)
    done        dispatcher  0, or one more than the position of the end that was accepted, or
                            BY_CANCEL, BY_ERROR
    journal     dispatcher  a run that is about to be published: from, to, the target's head before
    coming      dispatcher  what was published in the requester's reply ring; `drained` (requester)
    told        dispatcher  in the server's reply ring: grants, a cancel, what is for others;
                            `taken` (server)
    untold      dispatcher  its own memory: the server had no space for the cancel, or nobody knows
    granted     server      what it knows of
    broken_off  server      that it was told
    aside       server      nobody goes on with it

The steps:

    the requester   takes the next part, grants one more than before; waits where there is none,
                    and after a while says again what it has granted; or breaks off
    the dispatcher  of a grant: is the request given to the server, and not done? Into told, if
                    there is space
                    of a cancel: likewise; done, or untold
                    of records: those that are accepted, to the end; journal; done := where the end
                    is; publish; the tail
    the server      can it go on? A part, or the end; else aside, under the lock by which grants
                    are noted
                    any of its threads drains told: granted, broken_off, and not aside any more, if
                    it can go on

Why it holds.  A grant is absolute, so saying it twice, or late, grants nothing.  It is noted under
the lock under which an outflow is put aside, so either its thread sees it or whoever notes it sees
`aside`.  A part is accepted while the end has not been, *and* where it stands before an end that
was noted and not yet published.

What is explored: a stream of two or three parts with a window of one or two; a reader that breaks
off at any step; a server's ring that others fill at any step, so that grants and the cancel find no
space; a kill of the dispatcher at every step, or of the server.  Shown: the reader has all parts in
order, once, and the end behind them; what lies in its ring is never more than was granted; a server
whose reader has broken off ends; of one that has died, the reader learns behind its parts.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .explore import Model, Part, Program, View, atomic, choose, until_dead

Words = dict[str, Any]
BY_CANCEL, BY_ERROR = 90, 91
END, ERROR, FOREIGN, CANCEL = "end", "error", "foreign", "cancel"
NOTHING = (-1, -1, -1)
SPACE = 1  # records in the server's reply ring, beside those that are kept for errors


def streaming(
    *,
    parts: int = 2,
    window: int = 1,
    breaks_off: bool = False,
    crowded: bool = False,
    dies: str = "dispatcher",
    kills: int = 1,
    grants_are_absolute: bool = True,
    grants_are_repeated: bool = True,
    aside_under_the_lock: bool = True,
    parts_before_the_end_are_accepted: bool = True,
    end_is_noted_before_it_is_published: bool = True,
    journal_first: bool = True,
    cancel_is_told_later: bool = True,
    heir_tells_of_cancels: bool = True,
    cancel_makes_it_due: bool = True,
    error_behind_the_parts: bool = True,
) -> Model:
    """`dies`: who may, at every step."""

    # The requester ------------------------------------------------------------------------------

    def take(words: Words) -> Any:
        """The next record; None where it must wait."""
        if words["drained"] == len(words["coming"]):
            said = words["heard"] == len(words["said"])  # and a while has passed
            if words["refused"] and grants_are_repeated and said and space(words):
                words["refused"] = False
                return "repeat"
            return None
        record = words["coming"][words["drained"]]
        words["drained"] += 1
        if record not in (END, ERROR):
            if record != words["read"] + 1:
                words["wrong"] = f"part {record} after {words['read']}"
            words["read"] = record
        elif record == END and words["read"] != parts:
            words["wrong"] = f"the end after {words['read']} parts"
        elif record == ERROR and words["read"] < len(words["sent"]) and END not in words["sent"]:
            words["wrong"] = f"the error after {words['read']} parts of {len(words['sent'])}"
        return record

    def grant(words: Words) -> bool:
        words["said"] += (words["read"] + window if grants_are_absolute else 1,)
        return True

    def break_off(words: Words) -> bool:
        words["withdrawn"] = True
        return True

    # The dispatcher -----------------------------------------------------------------------------

    def accepts(place: int, words: Words) -> bool:
        done = words["done"]
        if not done:
            return True
        if done in (BY_CANCEL, BY_ERROR):
            return False
        is_end = words["sent"][place] == END
        return bool(
            done == place + 1
            or (not is_end and parts_before_the_end_are_accepted and place + 1 < done)
        )

    def look(words: Words) -> Any:
        """What is to be done next; it sleeps where there is nothing."""
        if words["heard"] < len(words["said"]):
            return "grant", 0
        if words["withdrawn"] and not words["cancelled"]:
            return "cancel", 0
        if words["dead"] and not error_behind_the_parts and words["done"] != BY_ERROR:
            return "error", 0
        if words["tail"] < len(words["sent"]):
            to = words["tail"]
            while to < len(words["sent"]) and accepts(to, words):
                to += 1
            return ("run", to) if to > words["tail"] else ("drop", 0)
        if words["dead"] and not words["done"]:
            return "error", 0
        tellable = cancel_is_told_later and space(words)
        if words["untold"] and words["withdrawn"] and not words["done"] and tellable:
            return "untold", 0
        return None

    def space(words: Words) -> bool:
        return len(words["told"]) - int(words["taken"]) < SPACE

    def tell_grant(words: Words) -> bool:
        if words["done"]:
            return True
        if space(words):
            words["told"] += (words["said"][words["heard"]],)
        else:
            words["refused"] = True
        return True

    def hear(words: Words) -> bool:
        words["heard"] += 1
        return True

    def tell_cancel(words: Words) -> bool:
        """Whether it is to be marked."""
        if words["done"]:
            return False
        if space(words):
            words["told"] += (CANCEL,)
            return True
        words["untold"] = True
        return False

    def mark(value: int, words: Words) -> bool:
        words["done"] = value
        return True

    def dealt(words: Words) -> bool:
        words["cancelled"] = True
        return True

    def write_journal(to: int, words: Words) -> bool:
        words["journal"] = (words["tail"], to, len(words["coming"]))
        return True

    def note_end(to: int, words: Words) -> bool:
        if words["sent"][to - 1] == END:
            words["done"] = to
        return True

    def publish(to: int, words: Words) -> bool:
        words["coming"] += words["sent"][words["tail"] : to]
        lie = [record for record in words["coming"][words["drained"] :] if record != END]
        if len(lie) > window:
            words["wrong"] = "there lies more than was granted"
        return True

    def consume(to: int, words: Words) -> bool:
        words["tail"] = to
        return True

    def drop(words: Words) -> bool:
        words["tail"] += 1
        return True

    def fail(words: Words) -> bool:
        words["done"] = BY_ERROR
        words["coming"] += (ERROR,)
        return True

    def recover(words: Words) -> bool:
        start, to, head = words["journal"]
        if start == words["tail"] and len(words["coming"]) > head:
            words["tail"] = to
        words["journal"] = NOTHING
        words["untold"] = heir_tells_of_cancels
        return True

    # The server ---------------------------------------------------------------------------------

    def can_go_on(words: Words) -> bool:
        return bool(words["broken_off"] or words["given"] < words["granted"])

    def step(words: Words) -> str:
        if words["broken_off"]:
            return "closed"
        if words["given"] == parts:  # the end needs no credit here: it comes with the last part
            words["sent"] += (END,)
            return "ended"
        if words["given"] >= words["granted"]:
            return "aside"
        words["given"] += 1
        words["sent"] += (words["given"],)
        return "gave"

    def put_aside(words: Words) -> bool:
        words["aside"] = not (aside_under_the_lock and can_go_on(words))
        return bool(words["aside"])

    def await_due(words: Words) -> bool | None:
        if words["aside"]:
            return None
        return True

    def drain(words: Words) -> bool | None:
        if words["taken"] == len(words["told"]):
            return None
        record = words["told"][words["taken"]]
        words["taken"] += 1
        if record == CANCEL:
            words["broken_off"] = True
        elif record != FOREIGN and grants_are_absolute:
            words["granted"] = max(words["granted"], record)
        elif record != FOREIGN:
            words["granted"] += record
        if words["aside"] and can_go_on(words) and (record != CANCEL or cancel_makes_it_due):
            words["aside"] = False
        return True

    def crowd(words: Words) -> bool:
        if space(words):
            words["told"] += (FOREIGN,)
        return True

    def bury(words: Words) -> bool:
        words["dead"] = True
        return True

    taking, granting, breaking = (
        atomic("take", take),
        atomic("grant", grant),
        atomic("break off", break_off),
    )
    looking, hearing = atomic("look", look), atomic("hear", hear)
    granting_on, cancelling = atomic("tell of a grant", tell_grant), atomic("tell", tell_cancel)
    marking = atomic("mark", partial(mark, BY_CANCEL))
    dealing, dropping, failing = atomic("dealt", dealt), atomic("drop", drop), atomic("fail", fail)

    def each(name: str, effect: Any) -> Any:
        return {to: atomic(f"{name} {to}", partial(effect, to)) for to in range(1, parts + 2)}

    writing, noting = each("journal", write_journal), each("note the end", note_end)
    publishing, consuming = each("publish", publish), each("consume", consume)
    recovering = atomic("recover", recover)
    stepping, putting = atomic("step", step), atomic("put aside", put_aside)
    awaiting, draining = atomic("due?", await_due), atomic("drain", drain)
    crowding, burying = atomic("crowd", crowd), atomic("bury", bury)

    def requester() -> Program:
        while True:
            broken = False
            if breaks_off:
                broken = yield choose("is it broken off?", (False, True))
            if broken:
                yield breaking
                return
            del broken
            record = yield taking
            if record in (END, ERROR):
                return
            del record
            yield granting

    def run(to: int) -> Part[None]:
        if journal_first:
            yield writing[to]
        if end_is_noted_before_it_is_published:
            yield noting[to]
        yield publishing[to]
        if not end_is_noted_before_it_is_published:
            yield noting[to]
        yield consuming[to]

    def tell() -> Part[None]:
        told = yield cancelling
        if told:
            yield marking

    def dispatcher() -> Program:
        while True:
            what, to = yield looking
            if what == "grant":
                yield granting_on
                yield hearing
            elif what == "cancel":
                yield from tell()
                yield dealing
            elif what == "untold":
                yield from tell()
            elif what == "run":
                yield from run(to)
            elif what == "drop":
                yield dropping
            else:
                yield failing
            del what, to

    def heir() -> Program:
        yield recovering
        yield from dispatcher()

    def server() -> Program:
        while True:
            how = yield stepping
            if how in ("closed", "ended"):
                return
            if how == "aside":
                aside = yield putting
                if aside:
                    yield awaiting
                del aside
            del how

    def threads() -> Program:
        """Those of the server that drain its replies."""
        while True:
            yield draining

    def others() -> Program:
        """Who have something to say to the server, too."""
        yield crowding

    def liveness() -> Program:
        yield until_dead("server")
        yield burying

    def invariant(view: View) -> str | None:
        return view["wrong"] or None

    def at_rest(view: View) -> str | None:
        if view.status("requester") != "ended":
            return f"the reader waits for ever, with {view['read']} parts"
        if view.status("server") not in ("ended", "killed"):
            return "the generator stays open for ever"
        return None

    words: Words = dict.fromkeys(("said", "sent", "coming", "told"), ())
    words |= dict.fromkeys(("heard", "tail", "drained", "taken", "done", "read", "given"), 0)
    words |= dict.fromkeys(("withdrawn", "cancelled", "untold", "broken_off", "aside"), False)
    words |= {"refused": False, "dead": False}
    words |= {"granted": window, "journal": NOTHING, "wrong": ""}
    programs = {"requester": requester, "dispatcher": dispatcher, "server": server}
    programs |= {"threads": threads}
    if crowded:
        programs["others"] = others
    if dies == "server":
        programs["liveness"] = liveness
    return Model(
        words=words,
        programs=programs,
        at_rest=at_rest,
        invariant=invariant,
        kills=kills,
        mortal=(dies,),
        heirs={"dispatcher": heir} if dies == "dispatcher" else {},
        buffered=False,
    )
