"""Space: a full ring stops its producer, and every release that makes space lets it go on.

Describes shmbus/dispatcher/native/space.h (a head of line that does not fit) and the two ends of an
endpoint's rings in shmbus/endpoint/native/hold.h (ep_release) and want.h (ep_store_need).

The words, and who writes each; ring r leads from its producer to its consumer:

    head[r], need[r]   the producer   how much it has published; the tail that would make space
    tail[r]            the consumer   how much it has released
    ready[e]           endpoint e     raised after its heads and tails; the dispatcher compares it
                                      with what it last saw.  Here the word is the
                                      difference of the two.  ready[!]: the watcher's, t is dead
    parked[w]          the waiter w   its bell, whose protocol bell.py explores

An endpoint's ring leads to the dispatcher, which forwards its head of line into the target's ring.

    sender full:       need[r] = head + length - capacity (seq_cst; the least over its threads);
                       epoch odd; look at tail[r], at incoming data and replies; wait
    dispatcher:        tail.store (a batch, then one fence); tail >= need[r]? post
    target full:       need[T] = head + length - capacity (seq_cst); look at T's tail again;
                       still full: park this port under T
    T releases:        tail.store (seq_cst); tail >= need[T], and not rung for this value?
                       raise ready[T], post the dispatcher
    dispatcher parks:  its last look may pass over a head of line that does not fit only if
                       that need is stored

Why it holds.  As with the bell, with `need` in the place of the epoch: either the waiter sees the
tail, or the one who releases sees the need.  A sender that waits for space takes its replies too,
and replies never wait for user code: so no cycle of full rings blocks.  A need is overwritten only
by a smaller one or once it is satisfied, and never cleared, since several heads of line may wait
for one target and it stands for all of them.

What is explored: rings of one record from a sender over the dispatcher to a target, and the
answers all the way back; two senders that wait for one target; two threads that wait for one
ring; a ring of four whose consumer asks for the need only when it last saw it half full; the death
of the target, of a sender, and of the dispatcher, whose successor looks at every port and rings
every bell.  Shown: whenever nothing can move any more, everything sent has come through.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from .bell import look_at
from .explore import (
    Model,
    Part,
    Program,
    Step,
    View,
    atomic,
    exchange,
    fence,
    load,
    store,
    store_seq,
    until,
    until_dead,
)

NO_NEED = 99
Numbers = tuple[int, ...]


def _post(parked: str, words: dict[str, Any]) -> str:
    """The whole of a post, which bell.py takes apart: who is parked is woken."""
    if words[parked] == 1:
        words[parked] = 2
    return ""


def _wake(parked: str, words: dict[str, Any]) -> str | None:
    if words[parked] != 2:
        return None
    words[parked] = 0
    return ""


def _run(
    part: Callable[..., Part[Any]], arguments: tuple[Any, ...], words: dict[str, Any]
) -> tuple[Any]:
    """A whole sub-program in one step."""
    running, answer = part(*arguments), None
    while True:
        try:
            kind, word, value = running.send(answer)
        except StopIteration as end:
            return (end.value,)
        if kind == "atomic":
            value(words)
        elif kind == "load":
            answer = words[word]
        else:
            words[word] = value


def space(
    senders: str = "s",
    messages: int = 2,
    capacity: int = 1,
    *,
    answers: int = 9,
    begins: str = "empty",
    coarse: bool = False,
    buffered: bool = False,
    kills: int = 0,
    mortal: tuple[str, ...] = ("t", "d"),
    sender_stores_need: bool = True,
    sender_looks_again: bool = True,
    sender_looks_at_replies: bool = True,
    head_of_line_need_is_stored: bool = True,
    head_of_line_looks_again: bool = True,
    need_is_seq_cst: bool = True,
    need_is_cleared_when_satisfied: bool = False,
    dispatcher_tells_the_sender: bool = True,
    target_tells_the_dispatcher: bool = True,
    ready_is_raised_at_release: bool = True,
    release_asks_from_depth: int = 0,
    successor_looks_at_all: bool = True,
    successor_rings_all: bool = True,
    fronts_of_the_dead_are_let_go: bool = True,
) -> Model:
    """Senders, the dispatcher d and the target t, which answers the first sender's first messages.

    It begins with all rings "empty" or all "full", or with everything "sent" already: then the
    senders' rings hold all their messages and only d and t are left to explore.  `coarse`: a
    push, a release and a visit are one step each, so that longer journeys can be explored.
    """
    endpoints = (*senders, "t")
    sources = (*senders, "t") if answers else tuple(senders)  # the endpoints' outgoing rings
    # Ring "s" leads from s to the dispatcher, ring ">s" from the dispatcher to s.
    into = {source: ">" + (senders[0] if source == "t" else "t") for source in sources}
    seq = store_seq if need_is_seq_cst else store
    begin = {
        f"{word}[{e}]": 0
        for e in (*endpoints, *(">" + e for e in endpoints))
        for word in ("head", "tail")
    }
    if begins == "sent":
        begin |= {f"head[{e}]": messages for e in senders}
    if begins == "full":  # once around, and t has one more in hand
        for tail, ring in zip((0, 1, 3, 4), (">s", "t", ">t", "s"), strict=True):
            begin |= {f"tail[{ring}]": tail, f"head[{ring}]": tail + 1}
        messages, answers = messages + 5, min(answers + 2, messages + 5)
    looked_at = (*(f"ready[{e}]" for e in endpoints), *(("ready[!]",) if kills else ()))
    everybody = (*endpoints, "d")
    ring_bell = {w: atomic(f"post {w}", partial(_post, f"parked[{w}]")) for w in everybody}
    sleep = {w: atomic(f"wait {w}", partial(_wake, f"parked[{w}]")) for w in everybody}

    def wait(
        who: str, words: tuple[str, ...], seen: tuple[int, ...], look_again: bool = True
    ) -> Part[tuple[int, ...]]:
        """Returns what is seen, something new or not."""
        yield store_seq(f"parked[{who}]", 1)
        if look_again:
            now = yield from look_at(words, seen)
            if now != seen:
                yield store_seq(f"parked[{who}]", 0)
                return now
        yield sleep[who]
        now = yield from look_at(words, seen)
        return now

    @cache
    def whole(part: Callable[..., Part[Any]], *arguments: Any) -> Step:
        return atomic(f"{part.__name__} {arguments}", partial(_run, part, arguments))

    def do(part: Callable[..., Part[Any]], *arguments: Any) -> Part[Any]:
        if not coarse:
            return (yield from part(*arguments))
        (result,) = yield whole(part, *arguments)
        return result

    def release(who: str, tail: int, depth: int, rung: int) -> Part[int]:
        """An endpoint has taken a record; returns rung."""
        yield store_seq(f"tail[>{who}]", tail)
        if not target_tells_the_dispatcher or depth < release_asks_from_depth:
            return rung
        need = yield load(f"need[>{who}]")
        if tail < need or need == rung:
            return rung
        if ready_is_raised_at_release:
            yield store_seq(f"ready[{who}]", 1)
        yield ring_bell["d"]
        return int(need)

    def push(who: str, head: int) -> Part[None]:
        yield store(f"head[{who}]", head)
        yield store_seq(f"ready[{who}]", 1)
        yield ring_bell["d"]

    def await_space(who: str, head: int) -> Part[None]:
        if sender_stores_need:
            yield seq(f"need[{who}]", head + 1 - capacity)

    def sender(who: str) -> Program:
        rung, head, taken = 0, begin[f"head[{who}]"], begin[f"tail[>{who}]"]
        words = (f"tail[{who}]", f"head[>{who}]")
        seen: Numbers = tuple(begin[word] for word in words)
        while True:
            if seen[1] > taken:
                taken += 1
                rung = yield from do(release, who, taken, capacity, rung)
            elif head < messages and head - seen[0] < capacity:
                head += 1
                yield from do(push, who, head)
            else:
                looked_at: tuple[str, ...] = words
                if head < messages:
                    yield from await_space(who, head)
                    if not sender_looks_at_replies:
                        looked_at = words[:1]
                now = yield from wait(
                    who, looked_at, seen[: len(looked_at)], look_again=sender_looks_again
                )
                seen = (*now, *seen[len(now) :])
                del now, looked_at

    def target() -> Program:
        rung, head, taken = 0, begin["head[t]"], begin["tail[>t]"]
        words = ("tail[t]", "head[>t]")
        seen: Numbers = tuple(begin[word] for word in words)
        while True:
            if head < min(taken, answers):
                if head - seen[0] < capacity:
                    head += 1
                    yield from do(push, "t", head)
                else:  # it takes no more before it has answered
                    yield from await_space("t", head)
                    now = yield from wait("t", words[:1], seen[:1])
                    seen = (now[0], seen[1])
                    del now
            elif seen[1] > taken:
                depth = seen[1] - taken
                taken += 1
                rung = yield from do(release, "t", taken, depth, rung)
                del depth
            else:
                seen = yield from wait("t", words, seen)

    def visit(source: str, tail: int, head: int, need: int, dead: bool) -> Part[tuple[str, int]]:
        """Forwards the record at the front of a ring if it fits; returns the need stored."""
        filled = yield load(f"head[{source}]")
        if filled == tail:
            return "empty", need
        if dead and fronts_of_the_dead_are_let_go:
            yield store(f"tail[{source}]", tail + 1)  # counted lost
            return "lost", need
        released = yield load(f"tail[{into[source]}]")
        if head - released >= capacity:
            if head_of_line_need_is_stored and (head + 1 - capacity < need or need <= released):
                need = head + 1 - capacity
                yield seq(f"need[{into[source]}]", need)
            if head_of_line_looks_again:
                released = yield load(f"tail[{into[source]}]")
            if head - released >= capacity:
                return "blocked", need
        if need_is_cleared_when_satisfied and need != NO_NEED:
            need = NO_NEED
            yield store(f"need[{into[source]}]", need)
        yield store(f"head[{into[source]}]", head + 1)
        yield store(f"tail[{source}]", tail + 1)
        return "moved", need

    def look() -> Part[frozenset[str]]:
        """Who has raised its word since it was last looked at."""
        for word in looked_at:
            if (yield exchange(word, 0)):
                return frozenset({word[-2]})
        return frozenset()

    def dispatch(
        active: frozenset[str], tails: Numbers, heads: Numbers, needs: Numbers, t_is_dead: bool
    ) -> Program:
        """`tails`, `heads` and `needs` are its own words, those of each endpoint's rings."""
        blocked: frozenset[str] = frozenset()
        while True:
            while not active:
                yield store_seq("parked[d]", 1)
                raised = yield from look()
                if raised:
                    yield store_seq("parked[d]", 0)
                else:
                    yield sleep["d"]
                    raised = yield from look()
                if "!" in raised:
                    t_is_dead = yield load("dead[t]")
                active = frozenset(
                    source
                    for source in sources
                    if source in raised
                    or (source in blocked and into[source][1:] in raised)
                    or "!" in raised
                )
                blocked -= active
                del raised
            to_post: frozenset[str] = frozenset()
            for i, source in enumerate(sources):
                if source not in active:
                    continue
                j = endpoints.index(into[source][1:])
                dead = bool(t_is_dead) and into[source] == ">t"
                done, need = yield from do(visit, source, tails[i], heads[j], needs[j], dead)
                needs = (*needs[:j], need, *needs[j + 1 :])
                if done in ("moved", "lost"):
                    tails = (*tails[:i], tails[i] + 1, *tails[i + 1 :])
                    to_post |= {source}
                else:
                    active -= {source}
                if done == "moved":
                    heads = (*heads[:j], heads[j] + 1, *heads[j + 1 :])
                    to_post |= {into[source]}
                if done == "blocked":
                    blocked |= {source}
                del done, j, dead, need
            if to_post:
                yield fence()
            for i, e in enumerate(endpoints):
                wanted = ">" + e in to_post
                if not wanted and e in to_post and dispatcher_tells_the_sender:
                    need = yield load(f"need[{e}]")
                    wanted = tails[i] >= need
                    del need
                if wanted:
                    yield ring_bell[e]
                del wanted
            del to_post

    def dispatcher() -> Program:
        tails = tuple(begin[f"tail[{e}]"] for e in endpoints)
        heads = tuple(begin[f"head[>{e}]"] for e in endpoints)
        yield from dispatch(frozenset(sources), tails, heads, (NO_NEED,) * len(endpoints), False)

    def successor() -> Program:
        yield store_seq("parked[d]", 0)
        tails: Numbers = ()
        heads: Numbers = ()
        needs: Numbers = ()
        for e in endpoints:
            own = yield load(f"tail[{e}]")
            tails = (*tails, own)
            own = yield load(f"head[>{e}]")
            heads = (*heads, own)
            own = yield load(f"need[>{e}]")
            needs = (*needs, own)
        del own
        if successor_rings_all:
            for e in endpoints:
                yield ring_bell[e]
        t_is_dead = yield load("dead[t]")
        active = frozenset(sources if successor_looks_at_all else ())
        yield from dispatch(active, tails, heads, needs, bool(t_is_dead))

    def watcher(e: str) -> Program:
        yield until_dead(e)
        yield store_seq(f"dead[{e}]", 1)
        yield store_seq("ready[!]", 1)
        yield ring_bell["d"]

    def at_rest(view: View) -> str | None:
        for e in senders:
            if view[f"head[{e}]"] < messages and view.status(e) != "killed":
                return f"{e} waits for space for ever"
            if view[f"tail[{e}]"] < view[f"head[{e}]"]:
                return f"what {e} has sent lies for ever"
        if view.status("t") == "killed":
            return None
        if view["tail[>t]"] < view["head[>t]"]:
            return "t sleeps over a full ring"
        if view["tail[>" + senders[0] + "]"] < min(view["tail[>t]"], answers):
            return "an answer does not arrive"
        return None

    words = dict(begin)
    for e in endpoints:
        words |= {
            f"need[{e}]": NO_NEED,
            f"need[>{e}]": NO_NEED,
            f"ready[{e}]": 0,
            f"parked[{e}]": 0,
        }
    programs: dict[str, Callable[[], Program]] = {}
    if begins != "sent":
        programs |= {e: partial(sender, e) for e in senders}
    programs |= {"d": dispatcher, "t": target}
    if kills:
        programs |= {
            f"watcher of {e}": partial(watcher, e) for e in mortal if e in programs and e != "d"
        }
    return Model(
        words={**words, "parked[d]": 0, "ready[!]": 0, **{f"dead[{e}]": 0 for e in endpoints}},
        programs=programs,
        at_rest=at_rest,
        buffered=buffered,
        kills=kills,
        mortal=mortal,
        heirs={"d": successor} if "d" in mortal else {},
    )


def threads(
    *,
    second_lowers_need: bool = True,
    second_looks_again: bool = True,
    leader_looks_for_all: bool = True,
    met_need_is_replaced: bool = False,
) -> Model:
    """Two threads of one sender wait for the same full ring: one for three places, one for one.

    `need` is the least that any of them waits for (`wants`, under the sender's lock), also when it
    is met but its thread not told: the dispatcher may be just about to look.  The first to wait is
    the leader, who alone waits at the bell, looks for all of them and tells the other (`told`).
    The dispatcher makes one place, and more only once the smaller record has come.
    """
    capacity = 4

    def push(length: int, words: dict[str, Any]) -> int | None:
        """Returns 0, or, with the lock held, the tail that would make space."""
        if words["locked"]:
            return None
        words["wants"] = tuple(want for want in words["wants"] if want[0] != length)
        wanted = int(words["head"]) + length - capacity
        if words["tail"] >= wanted:
            words["head"] += length
            return 0
        words["locked"] = 1
        return wanted

    def want(length: int, wanted: int, words: dict[str, Any]) -> tuple[bool, int]:
        """Lets go of the lock; answers whether to lead, and `told`."""
        others = words["wants"]
        words["wants"] = (*others, (length, wanted))
        if met_need_is_replaced and words["need"] <= words["tail"]:
            words["need"] = wanted
        elif second_lowers_need or not others:
            words["need"] = min(want[1] for want in words["wants"])
        leads = not words["led"]
        words["led"], words["locked"] = 1, 0
        return leads, words["told"]

    def tell(words: dict[str, Any]) -> str | None:
        """Whose need is met is told, and waits no more until it has tried."""
        if words["locked"]:
            return None
        words["wants"] = tuple(want for want in words["wants"] if want[1] > words["tail"])
        words["need"] = min((want[1] for want in words["wants"]), default=words["need"])
        words["told"] += 1
        words["led"] = 0
        return ""

    pushing = {length: atomic(f"push {length}", partial(push, length)) for length in (1, 3)}
    wanting = cache(lambda length, to: atomic(f"{length} wants {to}", partial(want, length, to)))
    telling = atomic("tell the other", tell)
    posting = atomic("post s", partial(_post, "parked"))
    sleeping = atomic("wait s", partial(_wake, "parked"))

    def thread(length: int) -> Program:
        while True:
            wanted = yield pushing[length]
            if wanted == 0:
                return
            leads, told = yield wanting(length, wanted)
            if leads:
                yield store_seq("parked", 1)
                if leader_looks_for_all:
                    wanted = yield load("need")
                tail = yield load("tail")
                if tail < wanted:
                    yield sleeping
                else:
                    yield store_seq("parked", 0)
                yield telling
            else:
                tail = (yield load("tail")) if second_looks_again else 0
                if tail < wanted:
                    yield until("told", told + 1)
            del wanted, leads, told, tail

    def dispatcher() -> Program:
        for tail in (1, 2, 3, 4):
            if tail == 2:
                yield until("head", capacity + 1)
            yield store_seq("tail", tail)
            need = yield load("need")
            if tail >= need:
                yield posting
            del need

    def at_rest(view: View) -> str | None:
        stuck = [process for process in ("large", "small") if view.status(process) != "ended"]
        return f"for ever waiting: {', '.join(stuck)}" if stuck else None

    return Model(
        words=dict.fromkeys(("tail", "need", "parked", "led", "told", "locked"), 0)
        | {"head": capacity, "wants": ()},
        programs={"large": partial(thread, 3), "small": partial(thread, 1), "d": dispatcher},
        at_rest=at_rest,
    )
