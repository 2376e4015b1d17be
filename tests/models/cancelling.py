"""Withdrawn requests: who works on one is told, and nobody else is.

Describes shmbus/endpoint/native/cancel.h and shmbus/dispatcher/native/cancel.h.

The words, and who writes each:

    entry      requester    the request for which its only entry is in use; 0: it is free
    sent       requester    what it has put into its data ring: requests and cancels
    tail       dispatcher   how much of that it has dealt with
    given      dispatcher   for which request the entry was given away last, to `whom`, and whether
    whom, done              that has ended
    journal    dispatcher   a request that is about to be published: its place, and the head before
    backlog    dispatcher   what waits until the server is free
    data       dispatcher   the requests in the server's data ring
    replies    dispatcher   cancels and errors in its reply ring; `drained` (server) is the tail
    cancels    server       the ids that it was told, and the head of `data` then, `before`
    answers    server       its replies; `answered` (dispatcher) is the tail

The steps:

    the requester withdraws m   entry := 0; the cancel into sent
    the dispatcher              of a request: is the entry its own? given, whom, journal; data; tail
                                of a cancel: is given m, whom the server, and not done? Into
                                replies, but for the reserve; done; tail
                                out of the backlog: is the entry its own? whom; data
    the server                  drains: cancels, before
                                takes m: is it below `before`, and among cancels? Then not begun

Why it holds.  The requester's records are dealt with in order, and once the dispatcher has gone on
from a request, `given` names it until the entry is used anew, which is behind the cancel.  The
entry is free before the cancel is there: so either the backlog's look at the entry finds it free,
or the cancel is dealt with after the request has left there, and `whom` is the server.  The request
is in `data` before its cancel is in `replies`.

What is explored: two requests one after the other with the same entry, each withdrawn at any step
or awaited; a server that answers them, or works until it is told that nobody waits; a request of
the server's own, which ends with an error at any step; a kill of the dispatcher at every step.
Shown: who waits gets a reply; a server learns of what it works on in vain, unless there was no
space; what it knows to be withdrawn is not begun; the error always finds its space.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .explore import Model, Part, Program, View, atomic, choose

Words = dict[str, Any]
MESSAGES = (1, 2)
SPACE = 2  # records in the server's reply ring, of which one is kept for the error


def cancelling(
    *,
    backlog: bool = False,
    kills: int = 1,
    behind_the_request: bool = True,
    requests_are_judged_by_their_entry: bool = True,
    named_by_id: bool = True,
    entry_is_freed_first: bool = True,
    backlog_looks_at_the_entry: bool = True,
    reserve: int = 1,
    head_is_loaded_after_the_cancel: bool = True,
    told_before_the_tail_moves: bool = True,
    told_before_it_is_marked: bool = True,
) -> Model:
    """With `backlog` a request may wait until the server is free."""

    def put(what: str, m: int, words: Words) -> bool:
        ring = "sent" if behind_the_request or what == "ask" else "said"
        words[ring] += ((what, m),)
        return True

    def begin(m: int, withdrawn: bool, words: Words) -> bool:
        words["entry"] = m
        if withdrawn:
            words["withdrawn"] |= {m}
        return True

    def free(words: Words) -> bool:
        words["entry"] = 0
        return True

    def receive(m: int, words: Words) -> bool | None:
        if m not in words["back"]:
            return None
        words["entry"] = 0
        return True

    def look(words: Words) -> tuple[str, int] | None:
        """What is to be done next; it sleeps where there is nothing."""
        if words["heard"] < len(words["said"]):
            return tuple(words["said"][words["heard"]])
        if words["answered"] < len(words["answers"]):
            return "answer", words["answers"][words["answered"]]
        if words["error"] == "owed":
            return "error", 0
        if words["tail"] < len(words["sent"]):
            return tuple(words["sent"][words["tail"]])
        return ("drain", words["backlog"][0]) if words["backlog"] else None

    def judge(m: int, words: Words) -> bool:
        return words["entry"] == m or not requests_are_judged_by_their_entry

    def still_wanted(m: int, words: Words) -> bool:
        return words["entry"] == m or not backlog_looks_at_the_entry

    def give(m: int, words: Words) -> bool:
        words |= {"given": m, "whom": "server", "done": False}
        words["journal"] = (words["tail"], len(words["data"]))
        return True

    def publish(m: int, words: Words) -> bool:
        words["data"] += (m,)
        return True

    def consume(words: Words) -> bool:
        words["tail"] += 1
        return True

    def put_by(m: int, words: Words) -> bool:
        words |= {"given": m, "whom": "backlog", "done": False}
        words["backlog"] += (m,)
        return consume(words)

    def leave(m: int, words: Words) -> bool:
        words["whom"] = "server"
        return publish(m, words) and drop(words)

    def drop(words: Words) -> bool:
        words["backlog"] = words["backlog"][1:]
        return True

    def waiting(words: Words) -> int:
        return len(words["replies"]) - int(words["drained"])

    def has(m: int, words: Words) -> bool:
        """Has the server got it?"""
        named = words["given"] == m or not named_by_id
        return named and words["whom"] == "server" and not words["done"]

    def tell(m: int, words: Words) -> bool:
        if waiting(words) + reserve < SPACE:
            words["replies"] += (m,)
            return True
        words["lost"] |= {m}
        return False

    def mark(words: Words) -> bool:
        words["done"] = True
        return True

    def hear(words: Words) -> bool:
        words["heard"] += 1
        return True

    def forward_answer(m: int, words: Words) -> bool:
        if words["given"] == m and not words["done"]:
            words["done"] = True
            words["back"] |= {m}
        words["answered"] += 1
        return True

    def fail(words: Words) -> bool:
        words["error"] = "sent"
        words["replies"] += (0,)
        if waiting(words) > SPACE:
            words["wrong"] = "there is no space for the error"
        return True

    def recover(words: Words) -> bool:
        place, head = words["journal"]
        if place == words["tail"]:
            if len(words["data"]) > head:
                words["tail"] += 1
            else:
                words["given"] = 0
        words["journal"] = NOTHING
        return True

    def lose(words: Words) -> bool:
        """Whom the server has asked dies."""
        words["error"] = "owed"
        return True

    def peek(words: Words) -> int | None:
        """The next request, or 0 to drain replies."""
        if words["taken"] < len(words["data"]):
            return int(words["data"][words["taken"]])
        return 0 if waiting(words) else None

    def head(words: Words) -> int:
        return len(words["data"])

    def drain(before: int, words: Words) -> bool:
        for m in words["replies"][words["drained"] :]:
            if m:
                words["cancels"] |= {m}
                words["before"] = before or len(words["data"])
        words["drained"] = len(words["replies"])
        return True

    def told(m: int, words: Words) -> bool:
        return m in words["cancels"] or (bool(words["cancels"]) and not named_by_id)

    def take(m: int, words: Words) -> bool:
        skipped = words["taken"] < words["before"] and told(m, words)
        words["taken"] += 1
        if skipped and m not in words["withdrawn"]:
            words["wrong"] = f"{m} is waited for, and was not begun"
        if not skipped and m in words["cancels"]:
            words["wrong"] = f"{m} was known to be withdrawn, and was begun"
        if not skipped:
            words["working"] = m
        return not skipped

    def look_up(m: int, words: Words) -> str | None:
        """Of one at work on a request of which it will hear that nobody waits."""
        if m not in words["withdrawn"]:
            return "done"
        if told(m, words):
            return "cancelled"
        return "drain" if waiting(words) else None

    def finish(m: int, words: Words) -> bool:
        words["working"] = 0
        words["answers"] += (m,)
        return True

    def each(name: str, step: Any) -> Any:
        return {m: atomic(f"{name} {m}", partial(step, m)) for m in MESSAGES}

    beginning = {
        (m, withdrawn): atomic(f"begin {m}", partial(begin, m, withdrawn))
        for m in MESSAGES
        for withdrawn in (False, True)
    }
    asking, cancels = each("ask", partial(put, "ask")), each("cancel", partial(put, "cancel"))
    receiving, freeing = each("receive", receive), atomic("free the entry", free)
    looking, judging, wanting = (
        atomic("look", look),
        each("judge", judge),
        each("wanted", still_wanted),
    )
    giving, publishing, consuming = (
        each("give", give),
        each("publish", publish),
        atomic("consume", consume),
    )
    putting_by, leaving, dropping = (
        each("put by", put_by),
        each("leave", leave),
        atomic("drop", drop),
    )
    knowing, telling, marking = each("given?", has), each("tell of", tell), atomic("mark", mark)
    hearing, answering = (
        atomic("hear", hear),
        each("answer", forward_answer),
    )
    failing, recovering, losing = (
        atomic("fail", fail),
        atomic("recover", recover),
        atomic("lose", lose),
    )
    peeking, loading = atomic("peek", peek), atomic("load the head", head)
    draining = {n: atomic("drain", partial(drain, n)) for n in (0, *MESSAGES)}
    taking, seeing, finishing = each("take", take), each("see", look_up), each("finish", finish)

    def requester() -> Program:
        for m in MESSAGES:
            withdrawn = yield choose(f"is {m} withdrawn?", (False, True))
            yield beginning[m, withdrawn]
            yield asking[m]
            if not withdrawn:
                yield receiving[m]
            elif entry_is_freed_first:
                yield freeing
                yield cancels[m]
            else:
                yield cancels[m]
                yield freeing
            del withdrawn

    def ask(m: int) -> Part[None]:
        wanted = yield judging[m]
        if not wanted:
            yield consuming
            return
        del wanted
        waits = backlog
        if backlog:
            waits = yield choose("is the server free?", (False, True))
        if waits:
            yield putting_by[m]
            return
        del waits
        yield giving[m]
        yield publishing[m]
        yield consuming

    def tell_of(m: int) -> Part[None]:
        if not told_before_it_is_marked:
            yield marking
        told = yield telling[m]
        if told and told_before_it_is_marked:
            yield marking

    def cancel(m: int) -> Part[None]:
        if not told_before_the_tail_moves:
            yield consuming if behind_the_request else hearing
        known = yield knowing[m]
        if known:
            yield from tell_of(m)
        del known
        if told_before_the_tail_moves:
            yield consuming if behind_the_request else hearing

    def out_of_the_backlog(m: int) -> Part[None]:
        wanted = yield wanting[m]
        yield leaving[m] if wanted else dropping

    def dispatcher() -> Program:
        while True:
            what, m = yield looking
            if what == "ask":
                yield from ask(m)
            elif what == "cancel":
                yield from cancel(m)
            elif what == "answer":
                yield answering[m]
            elif what == "drain":
                yield from out_of_the_backlog(m)
            else:
                yield failing
            del what, m

    def heir() -> Program:
        yield recovering
        yield from dispatcher()

    def look_at_replies() -> Part[None]:
        before = 0
        if not head_is_loaded_after_the_cancel:
            before = yield loading
        yield draining[before]

    def work(m: int) -> Part[None]:
        endless = yield choose("does it work until it is told?", (False, True))
        while endless:
            seen = yield seeing[m]
            if seen != "drain":
                break
            del seen
            yield from look_at_replies()
        yield finishing[m]

    def server() -> Program:
        while True:
            m = yield peeking
            yield from look_at_replies()
            if m:
                begun = yield taking[m]
                if begun:
                    yield from work(m)
                del begun
            del m

    def other() -> Program:
        yield losing

    def invariant(view: View) -> str | None:
        return view["wrong"] or None

    def at_rest(view: View) -> str | None:
        if view["working"] in view["lost"]:
            return None
        if view["working"]:
            return f"{view['working']} is worked on for ever"
        if view.status("requester") != "ended":
            return f"who asked {view['entry']} waits for ever"
        return None

    words: Words = dict.fromkeys(("sent", "said", "backlog", "data", "replies", "answers"), ())
    words |= {word: frozenset() for word in ("withdrawn", "back", "lost", "cancels")}
    words |= dict.fromkeys(("entry", "tail", "heard", "given", "drained", "taken", "before"), 0)
    words |= {"whom": "", "done": False, "journal": NOTHING, "answered": 0, "working": 0}
    words |= {"error": "", "wrong": ""}
    programs = {"requester": requester, "dispatcher": dispatcher, "server": server, "other": other}
    return Model(
        words=words,
        programs=programs,
        at_rest=at_rest,
        invariant=invariant,
        kills=kills,
        mortal=("dispatcher",),
        heirs={"dispatcher": heir},
        buffered=False,
    )


NOTHING = (-1, 0)
