"""Forwarding, its journal and the adoption: every record arrives once, whoever is killed.

Describes forward.h, fanout.h and journal.h in shmbus/dispatcher/native and what a new dispatcher
does first (recover.h).

The words.  All but the last two lines are the dispatcher's:

    journal.*            what is begun, one operation with absolute values
    tail[p]              up to where port p's outgoing ring is forwarded
    todo[p].*            of a run with several targets: from, to, and what each is still owed
    data[t], head[t]     the ring that leads to t; data[T], head[T] that for what is urgent
    lost[t]              what was counted instead of delivered (here by name); lost[$]: dead letters
    reclaim[t], dealt[t] of t's ring, once t is dead: how far, and which of the bits of that record;
                         of a backlog's ring always
    target[i], done[i]   the endpoint that request i was sent to; 1 + position of the reply accepted
    tail[>t], got[t]     the target's: what it took; and tail[>T]
    out[t]               the target's: its replies

The steps.  A *run* is one or more consecutive records of a port with the same targets.

    more than one target:  todo[p] = {from, to, bits of each target}
    each target with space: copy all, not yet published
                           journal = {RUN, source, from, to, target, target's head, bits after}
                           requests: target[i] = it.  replies: done[i] = position + 1
                           head.store, once for the whole run
                           strike the target from todo; one target: move the tail
    none left:             move the tail

`journal.kind` is stored 0 before any other word of it changes and its value last; `todo.from`
likewise.  Nothing else is written between a `journal` and its effect.  Every other effect that
must survive is an operation of `journal` as well: LOST (the counter after) and ERROR (the
requester's head, the index).

A new dispatcher first looks at `journal`.  It alone moves the targets' heads: so where the head has
moved on from the one in `journal`, that run was published: strike or release, which may be
done twice, as a tail is only moved forward.  Where it has not, the run's target words
are reset.  LOST is done again.  Then the deaths, then the runs in `todo`.

A dead target's bits in a `todo`: the plain one is counted, the group's run is delivered to another
member; the journal of that run names the dead one's entry, which it strikes.
What is in its ring beyond its tail is taken by the dispatcher, through `reclaim`, with the
journal as from any port; a record owed both ways is handled bit by bit.

A *backlog* is a ring that the dispatcher fills like a target's and empties like a dead one's: what
a group or the handlers of a request may have waits there while each of them has its most, and new
ones wait behind it.  It leaves through `reclaim`, with the journal, in runs, for whoever is free.
target[i] names the backlog meanwhile; of a run that was not published it does so again.

*Urgent* events go into a ring of their own, T, where they are for plain subscriptions alone, and
are taken first. The journal names that ring as the target. What is in it when t dies is lost, all
at once.

What is explored: a kill at every step, so also between any two words of the journal (only a
successor reads them, when all stores of its predecessor have arrived: so only the order of the
program matters, and no store buffers are needed here); one and two kills of
dispatchers and targets; runs, fan-outs, groups, backlogs, full rings, requests and replies.
Shown: what waits keeps its order; each subscriber has each event once or it is counted there once;
of each group message one member has it, or it is one dead letter; each request ends once; no tail
moves backwards.

The keyword parameters are the ways to do it wrong, one each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from .explore import Model, Part, Program, View, atomic, choose, load, store, until_dead

PLAIN, GROUP = 1, 2  # bits: as a plain subscriber; as a member of the group, or as handler
BY_ERROR = -1
Words = dict[str, Any]


class Record(NamedTuple):
    name: str
    plain: str = ""  # subscribers, a letter each
    group: str = ""  # members of the group, or handlers of a request
    request: int = -1  # its entry in the pending table of requester r
    urgent: bool = False


class Copy(NamedTuple):
    """A record in a target's ring."""

    name: str
    bits: int


class Job(NamedTuple):
    """What the dispatcher has found to do."""

    kind: str
    source: str = ""  # p: port p.  <t: t's replies.  >t: the ring of the dead t
    start: int = 0
    to: int = 0
    target: str = ""  # T: its ring for what is urgent
    copies: tuple[Copy, ...] = ()
    bits: int = 0  # after it: what todo owes the target; of a dead one's record: what is dealt with
    owed: tuple[tuple[str, int], ...] = ()


def forwarding(
    sent: Mapping[str, tuple[Record, ...]],
    targets: str,
    *,
    sent_later: Mapping[str, tuple[Record, ...]] | None = None,
    capacity: int = 2,
    run: int = 2,
    kills: int = 2,
    mortal: tuple[str, ...] = ("d",),
    lossy: str = "",
    backlog: str = "",
    most: int = 1,
    replies_twice: bool = False,
    with_journal: bool = True,
    with_todo: bool = True,
    single_publication: bool = True,
    kind_is_cleared_first: bool = True,
    kind_is_stored_last: bool = True,
    from_is_cleared_first: bool = True,
    from_is_stored_last: bool = True,
    absolute_values: bool = True,
    target_words_within_journal: bool = True,
    target_words_are_reset: bool = True,
    target_words_of_the_handed_on_are_reset: bool = True,
    reply_is_known_by_position: bool = True,
    journal_is_adopted: bool = True,
    journal_is_adopted_first: bool = True,
    entry_is_in_journal: bool = True,
    dealt_bits_are_kept: bool = True,
    tails_move_forward_only: bool = True,
    heads_are_compared: bool = True,
    journal_names_generation: bool = True,
    ring_is_in_journal: bool = True,
    todo_is_routed_anew: bool = False,
    todo_is_compared: bool = True,
    todo_is_ended: str = "never",
    errors_before_handing_on: bool = False,
    new_ones_wait_behind_others: bool = True,
    target_words_of_what_leaves_are_reset: bool = True,
    consumed_after_published: bool = True,
    leaving_is_in_journal: bool = True,
    target_ring_is_in_journal: bool = True,
    loss_of_the_urgent_is_in_journal: bool = True,
    urgent_run_alone: bool = True,
) -> Model:
    """Ports with all their records in their rings, and targets with rings of `capacity` records.

    Who is `lossy` may be given up when its ring is full, and what it should have got is counted.
    `sent_later`: what the next endpoint sends that is given the slot of such a port, with new
    rings, once it is empty.
    `backlog`: where messages for groups and handlers wait while each of those has `most` untouched.
    """
    lives = {p: [ring] for p, ring in sent.items()}
    for p, ring in (sent_later or {}).items():
        lives[p].append(ring)
    records = {record.name: record for life in lives.values() for ring in life for record in ring}
    requests = sorted(record.request for record in records.values() if record.request >= 0)
    ports = sorted(sent)
    rings = targets + ("r" if requests else "")
    owed_to = targets + backlog
    passing = targets.upper() if any(record.urgent for record in records.values()) else ""

    # What it sees ---------------------------------------------------------------------------------

    def space(words: Words, t: str) -> int:
        tail = words[f"reclaim[{t}]" if t == backlog else f"tail[>{t}]"]
        return int(tail) + capacity - int(words[f"head[{t}]"])

    def free_ones(words: Words, members: str) -> list[str]:
        return [
            t
            for t in members
            if not words[f"dead[{t}]"] and words[f"head[{t}]"] - words[f"tail[>{t}]"] < most
        ]

    def waits(words: Words) -> bool:
        return bool(words[f"reclaim[{backlog}]"] < words[f"head[{backlog}]"])

    def least_busy(words: Words, members: str) -> str:
        fit = [t for t in members if not words[f"dead[{t}]"]]
        if fit and backlog:
            fit = free_ones(words, members)
            if not fit or (waits(words) and new_ones_wait_behind_others):
                return backlog
        return min(fit, key=lambda t: words[f"head[{t}]"] - words[f"tail[>{t}]"], default="")

    def route(words: Words, record: Record) -> tuple[tuple[str, int], ...]:
        bits = {t: PLAIN for t in record.plain if not words[f"dead[{t}]"]}
        member = least_busy(words, record.group)
        if member:
            bits[member] = bits.get(member, 0) | GROUP
        return tuple(sorted(bits.items()))

    def stands(words: Words, p: str) -> bool:
        begun = words[f"todo[{p}].from"]
        return with_todo and begun == (words[f"tail[{p}]"] if todo_is_compared else begun or -1)

    def owed_by(words: Words, p: str) -> tuple[tuple[str, int], ...]:
        return tuple((t, words[f"todo[{p}].{t}"]) for t in owed_to if words[f"todo[{p}].{t}"])

    def ring_of(words: Words, p: str) -> tuple[Record, ...]:
        return lives[p][words[f"life[{p}]"]]

    def ring_at(record: Record, t: str, bits: int) -> str:
        return t.upper() if record.urgent and bits == PLAIN and t != backlog else t

    def copied(words: Words, p: str, start: int, to: int, bits: int) -> tuple[Copy, ...]:
        return tuple(Copy(record.name, bits) for record in ring_of(words, p)[start - 1 : to - 1])

    def handed_on(words: Words, t: str) -> Job | None:
        """What the death of t leaves to do."""
        for p in ports:
            if stands(words, p) and words[f"todo[{p}].{t}"]:
                start, to, bits = (
                    words[f"tail[{p}]"],
                    words[f"todo[{p}].to"],
                    words[f"todo[{p}].{t}"],
                )
                if bits & PLAIN:
                    return Job(
                        "lose", p, start, to, t, copied(words, p, start, to, PLAIN), bits & ~PLAIN
                    )
                member = least_busy(words, ring_of(words, p)[start - 1].group)
                copies = copied(words, p, start, to, GROUP)
                if not member:
                    return Job("lose", p, start, to, "$", copies, 0, ((t, 0),))
                if space(words, member) >= to - start:
                    return Job("deliver", p, start, to, member, copies, 0, ((t, 0),))
        for ring in (t.upper(), t) if passing else t:
            if words[f"reclaim[{ring}]"] == 0:
                return Job("reclaim", to=words[f"tail[>{ring}]"], target=ring)
        if passing and words[f"reclaim[{t.upper()}]"] < words[f"head[{t.upper()}]"]:
            start, to = words[f"reclaim[{t.upper()}]"], words[f"head[{t.upper()}]"]
            left = words[f"data[{t.upper()}]"][start - 1 : to - 1]
            return Job("lose", ">" + t.upper(), start, to, t, left)
        replied = words[f"tail[<{t}]"] > len(words[f"out[{t}]"])
        start = words[f"reclaim[{t}]"]
        ring = words[f"data[{t}]"]
        untouched = [
            records[copy.name].request for copy in ring[start - 1 : words[f"head[{t}]"] - 1]
        ]
        if errors_before_handing_on:
            untouched = []
        for i in requests:
            if (
                words[f"target[{i}]"] == t
                and not words[f"done[{i}]"]
                and i not in untouched
                and replied
                and space(words, "r") > 0
            ):
                return Job("fail", target="r", owed=((t, i),))
        if start < words[f"head[{t}]"]:
            copy = ring[start - 1]
            dealt = words[f"dealt[{t}]"]
            owed = copy.bits & ~dealt
            if owed & PLAIN:
                lost = (Copy(copy.name, PLAIN),)
                return Job("lose", ">" + t, start, start + 1, t, lost, dealt | PLAIN)
            member = least_busy(words, records[copy.name].group)
            after = dealt | GROUP
            i = records[copy.name].request
            if not member and i >= 0:
                if space(words, "r") > 0:
                    return Job("fail", ">" + t, start, start + 1, "r", (), after, (("", i),))
            elif not member:
                lost = (Copy(copy.name, GROUP),)
                return Job("lose", ">" + t, start, start + 1, "$", lost, after)
            elif space(words, member) > 0:
                return Job(
                    "deliver", ">" + t, start, start + 1, member, (Copy(copy.name, GROUP),), after
                )
        return None

    def forwarded(words: Words, p: str) -> Job | None:
        start, ring = words[f"tail[{p}]"], ring_of(words, p)
        if start > len(ring):
            return Job("free", p) if words[f"life[{p}]"] + 1 < len(lives[p]) else None
        if stands(words, p) and not todo_is_routed_anew:
            to, owed = words[f"todo[{p}].to"], owed_by(words, p)
        else:
            owed = route(words, ring[start - 1])
            to = start + 1
            while (
                to <= len(ring)
                and to - start < run
                and route(words, ring[to - 1]) == owed
                and (ring[to - 1].urgent == ring[start - 1].urgent or not urgent_run_alone)
            ):
                to += 1
            if todo_is_routed_anew and stands(words, p):
                to = words[f"todo[{p}].to"]
                owed = tuple((t, bits) for t, bits in owed if words[f"todo[{p}].{t}"])
            elif len(owed) > 1 and with_todo:
                return Job("begin", p, start, to, owed=owed)
        i = ring[start - 1].request
        if not owed and i >= 0:
            no_route = Job("fail", p, start, start + 1, "r", owed=(("", i),))
            return no_route if space(words, "r") > 0 else None
        if not owed:
            return Job("release", p, start, to)
        for t, bits in owed:
            if words[f"dead[{t}]"]:
                continue
            into = ring_at(ring[start - 1], t, bits)
            fits = min(space(words, into), to - start)
            if fits >= (to - start if len(owed) > 1 or stands(words, p) else 1):
                copies = copied(words, p, start, start + fits, bits)
                return Job("deliver", p, start, start + fits, into, copies)
        for t, bits in owed:
            if t in lossy and not words[f"dead[{t}]"]:
                return Job("give up?", p, start, to, t, copied(words, p, start, to, bits))
        return None

    def answered(words: Words, t: str) -> Job | None:
        position = words[f"tail[<{t}]"]
        if position > len(words[f"out[{t}]"]):
            return None
        i = words[f"out[{t}]"][position - 1]
        known = (0, position) if reply_is_known_by_position else (0,)
        if words[f"target[{i}]"] != t or words[f"done[{i}]"] not in known:
            return Job("release", "<" + t, position, position + 1)
        if space(words, "r") == 0:
            return None
        return Job("deliver", "<" + t, position, position + 1, "r", (Copy(f"reply {i}", PLAIN),))

    def leaving(words: Words) -> Job | None:
        """What goes from the front of the backlog to somebody who is free."""
        start, ring = words[f"reclaim[{backlog}]"], words[f"data[{backlog}]"]
        if not waits(words):
            return None
        source, members = ">" + backlog, records[ring[start - 1].name].group
        i = records[ring[start - 1].name].request
        if all(words[f"dead[{t}]"] for t in members):
            if i < 0:
                return Job("lose", source, start, start + 1, "$", (ring[start - 1],))
            no_route = Job("fail", source, start, start + 1, "r", owed=(("", i),))
            return no_route if space(words, "r") > 0 else None
        for t in sorted(free_ones(words, members), key=lambda t: -space(words, t)):
            to = start
            while (
                to < words[f"head[{backlog}]"]
                and to - start < min(run, space(words, t))
                and t in records[ring[to - 1].name].group
            ):
                to += 1
            if to > start:
                return Job("deliver", source, start, to, t, ring[start - 1 : to - 1])
        return None

    def look(words: Words) -> Job | None:
        """The next thing to do; None: it waits."""
        for t in targets:
            if requests and (job := answered(words, t)):
                return job
        for t in targets:
            if words[f"dead[{t}]"] and (job := handed_on(words, t)):
                return job
        for p in ports:
            if job := forwarded(words, p):
                return job
        return leaving(words) if backlog else None

    # What it does ---------------------------------------------------------------------------------

    def note(kind: str, job: Job, head: int = 0, after: Any = 0) -> Part[None]:
        if not with_journal:
            return
        if kind_is_cleared_first:
            yield store("journal.kind", "")
        if not kind_is_stored_last:
            yield store("journal.kind", kind)
        yield store("journal.source", job.source)
        if len(lives.get(job.source, ())) > 1:
            life = yield load(f"life[{job.source}]")
            yield store("journal.generation", life)
            del life
        yield store("journal.from", job.start)
        yield store("journal.to", job.to)
        yield store(
            "journal.target", job.target if target_ring_is_in_journal else job.target.lower()
        )
        yield store("journal.head", head)
        yield store("journal.after", after)
        yield store("journal.bits", (job.bits, job.owed))
        if kind_is_stored_last:
            yield store("journal.kind", kind)

    def finish(job: Job) -> Part[None]:
        """Strikes the target, or lets go of the records: harmless a second time."""
        if not job.source:
            return
        if job.source[0] == ">":
            dead = job.source[1:]
            if dead == backlog or dead in passing:
                yield from release(f"reclaim[{dead}]", job.to)
                return
            reclaim = yield load(f"reclaim[{dead}]")
            ring = yield load(f"data[{dead}]")
            if reclaim < job.to and job.bits != ring[job.start - 1].bits and dealt_bits_are_kept:
                yield store(f"dealt[{dead}]", job.bits)
            else:
                yield from release(f"reclaim[{dead}]", job.to)
                yield store(f"dealt[{dead}]", 0)
            return
        if job.source in ports and with_todo:
            begun = yield load(f"todo[{job.source}].from")
            if begun == job.start:
                struck = job.owed[0][0] if job.owed else job.target.lower()
                yield store(f"todo[{job.source}].{struck}", job.bits)
                return
        yield from release(f"tail[{job.source}]", job.to)

    def release(tail: str, to: int) -> Part[None]:
        now = yield load(tail)
        if now < to or not tails_move_forward_only:
            assert to >= now, f"{tail} moves back from {now} to {to}"
            yield store(tail, to)

    def begin(job: Job) -> Part[None]:
        todo = f"todo[{job.source}]"
        if from_is_cleared_first:
            yield store(f"{todo}.from", 0)
        if not from_is_stored_last:
            yield store(f"{todo}.from", job.start)
        yield store(f"{todo}.to", job.to)
        for t in owed_to:
            yield store(f"{todo}.{t}", dict(job.owed).get(t, 0))
        if from_is_stored_last:
            yield store(f"{todo}.from", job.start)

    def deliver(job: Job) -> Part[None]:
        t = job.target
        head = yield load(f"head[{t}]")
        ring = yield load(f"data[{t}]")
        yield store(f"data[{t}]", (*ring[: head - 1], *job.copies))
        del ring
        asked = tuple(records[copy.name].request for copy in job.copies if copy.name in records)
        if not target_words_within_journal:
            yield from remember(job, asked)
        leaves = backlog and job.source == ">" + backlog
        if leaving_is_in_journal or not leaves:
            yield from note("RUN", job, head)
        else:
            yield store("journal.kind", "")
        if leaves and not consumed_after_published:
            yield from finish(job)
        if target_words_within_journal:
            yield from remember(job, asked)
        if not single_publication:
            for i in range(1, len(job.copies)):
                yield store(f"head[{t}]", head + i)
        yield store(f"head[{t}]", head + len(job.copies))
        yield from finish(job)

    def remember(job: Job, asked: tuple[int, ...]) -> Part[None]:
        for i in asked:
            if i >= 0:
                yield store(f"done[{i}]", 0)
                yield store(f"target[{i}]", job.target)
        if job.source[0] == "<":
            out = yield load(f"out[{job.source[1:]}]")
            yield store(f"done[{out[job.start - 1]}]", job.start)

    def lose(job: Job) -> Part[None]:
        lost = yield load(f"lost[{job.target}]")
        after = (*lost, *job.copies)
        del lost
        if job.source[1:] not in passing or not job.source[1:] or loss_of_the_urgent_is_in_journal:
            yield from note("LOST", job, 0, after)
        yield store(f"lost[{job.target}]", after)
        yield from finish(job)

    def fail(job: Job) -> Part[None]:
        ((_, i),) = job.owed
        head = yield load("head[r]")
        ring = yield load("data[r]")
        yield store("data[r]", (*ring[: head - 1], Copy(f"error {i}", PLAIN)))
        del ring
        yield from note("ERROR", job, head)
        yield store("head[r]", head + 1)
        yield from failed(job)

    def failed(job: Job) -> Part[None]:
        ((_, i),) = job.owed
        yield store(f"done[{i}]", BY_ERROR)
        yield from finish(job)

    def reclaim(job: Job) -> Part[None]:
        yield store(f"reclaim[{job.target}]", job.to)

    def free(job: Job) -> Part[None]:
        yield freeing[job.source]

    def new_life(p: str, words: Words) -> bool:
        """New segments, and then a new generation in the slot's row: seen as one step."""
        words[f"tail[{p}]"], words[f"todo[{p}].from"] = 1, 0
        words[f"life[{p}]"] += 1
        return True

    freeing = {p: atomic(f"a new endpoint in slot {p}", partial(new_life, p)) for p in ports}
    looking = atomic("look", look)

    def dispatcher() -> Program:
        while True:
            job = yield looking
            if job.kind == "give up?":
                if (yield choose("the patience is over", (True, False))):
                    yield from lose(job)
            elif job.kind == "release":
                if todo_is_ended == "before the tail moves" and job.source in ports:
                    yield store(f"todo[{job.source}].from", 0)
                yield from release(f"tail[{job.source}]", job.to)
                if todo_is_ended == "after the tail has moved" and job.source in ports:
                    yield store(f"todo[{job.source}].from", 0)
            else:
                yield from doing[job.kind](job)
            del job

    doing: dict[str, Callable[[Job], Part[None]]] = {
        "begin": begin,
        "deliver": deliver,
        "lose": lose,
        "fail": fail,
        "reclaim": reclaim,
        "free": free,
    }

    def adopt() -> Part[None]:
        kind, job, before, after = yield atomic_journal
        if kind == "":
            return
        assert job.target in (*rings, *passing, "$", backlog), "the journal makes no sense"
        assert job.start < job.to or kind == "ERROR", "the journal makes no sense"
        if kind in ("RUN", "ERROR"):
            head = yield load(f"head[{job.target}]")
            published = head != before or not heads_are_compared
            if published and kind == "RUN":
                yield from finish(job)
            elif published:
                yield from failed(job)
            elif kind == "RUN" and job.source[0] in words_are_reset:
                names = yield atomic_names
                leaves = backlog and job.source == ">" + backlog
                whom = backlog if leaves else ""
                if leaves and not target_words_of_what_leaves_are_reset:
                    names = ()
                for name in names:
                    if records[name].request >= 0:
                        yield store(f"target[{records[name].request}]", whom)
        elif kind == "LOST":
            if absolute_values:
                yield store(f"lost[{job.target}]", after)
            else:
                lost = yield load(f"lost[{job.target}]")
                yield store(
                    f"lost[{job.target}]", (*lost, *after[len(after) - (job.to - job.start) :])
                )
            yield from finish(job)

    def journal(words: Words) -> tuple[str, Job, int, Any]:
        bits, owed = words["journal.bits"]
        job = Job(
            "",
            words["journal.source"],
            words["journal.from"],
            words["journal.to"],
            words["journal.target"],
            (),
            bits,
            owed,
        )
        if not entry_is_in_journal and job.target != "$":
            job = job._replace(owed=())
        if not ring_is_in_journal:
            job = job._replace(source=job.source.strip("<>"))
        source_has_gone = words["journal.generation"] != words.get(f"life[{job.source}]", 0)
        kind = "" if source_has_gone and journal_names_generation else words["journal.kind"]
        return kind, job, words["journal.head"], words["journal.after"]

    def names_in_journal(words: Words) -> tuple[str, ...]:
        """The records from `from` to `to`, read again."""
        source, start, to = words["journal.source"], words["journal.from"], words["journal.to"]
        if source[0] == "<":
            return ()  # replies ask nobody
        if source[0] == ">":
            return tuple(copy.name for copy in words[f"data[{source[1:]}]"][start - 1 : to - 1])
        return tuple(record.name for record in ring_of(words, source)[start - 1 : to - 1])

    words_are_reset = (*ports, ">") if target_words_of_the_handed_on_are_reset else tuple(ports)
    if not target_words_are_reset:
        words_are_reset = ()
    atomic_journal = atomic("read the journal", journal)
    atomic_names = atomic("read its records", names_in_journal)

    def successor() -> Program:
        if journal_is_adopted and journal_is_adopted_first:
            yield from adopt()
        if journal_is_adopted and not journal_is_adopted_first:
            while True:
                job = yield looking_at_deaths
                if job is False:
                    break
                yield from doing[job.kind](job)
            yield from adopt()
        yield from dispatcher()

    def look_at_deaths(words: Words) -> Any:
        for t in targets:
            if words[f"dead[{t}]"] and (job := handed_on(words, t)):
                return job
        return False

    looking_at_deaths = atomic("look at the deaths", look_at_deaths)

    # The others -----------------------------------------------------------------------------------

    def take(t: str, words: Words) -> tuple[Copy, bool] | None:
        for ring in (t.upper(), t) if passing and t in targets else t:
            tail = words[f"tail[>{ring}]"]
            if tail == words[f"head[{ring}]"]:
                continue
            copy, had = words[f"data[{ring}]"][tail - 1], words[f"got[{t}]"]
            again = any(copy.name == one.name and copy.bits & one.bits for one in had)
            words[f"got[{t}]"] = (*had, copy)
            words[f"tail[>{ring}]"] = tail + 1
            return copy, again
        return None

    def reply(t: str, i: int, words: Words) -> bool:
        words[f"out[{t}]"] = (*words[f"out[{t}]"], i)
        return True

    taking = {t: atomic(f"{t} takes", partial(take, t)) for t in rings}
    replying = {
        (t, i): atomic(f"{t} replies to {i}", partial(reply, t, i))
        for t in targets
        for i in requests
    }

    def receiver(t: str) -> Program:
        while True:
            copy, again = yield taking[t]
            assert not again, f"{copy.name} a second time"
            i = records[copy.name].request
            if i >= 0:
                yield replying[t, i]
                if replies_twice:
                    yield replying[t, i]
            del copy, again, i

    def requester() -> Program:
        ended: frozenset[str] = frozenset()
        while True:
            copy, _ = yield taking["r"]
            assert copy.name[-1] not in ended, f"request {copy.name[-1]} ends a second time"
            ended |= {copy.name[-1]}
            del copy, _

    def watcher(t: str) -> Program:
        yield until_dead(t)
        yield store(f"dead[{t}]", 1)

    def at_rest(view: View) -> str | None:
        for p in ports:
            if view[f"tail[{p}]"] <= len(lives[p][-1]):
                return f"what {p} has sent lies for ever"
        had = list(view["lost[$]"])
        if backlog and view[f"reclaim[{backlog}]"] < view[f"head[{backlog}]"]:
            return "what waits in the backlog lies for ever"
        for t in targets if backlog and not {*mortal} & {*targets} else "":
            work = [copy.name for copy in view[f"got[{t}]"] if copy.bits & GROUP]
            if work != sorted(work):
                return f"{t} has got {work}"
        for t in targets:
            dead = view.status(t) == "killed"
            its = [t, t.upper()] if passing else [t]
            if any(view[f"tail[>{ring}]"] < view[f"head[{ring}]"] for ring in its) and not dead:
                return f"{t} sleeps over a record"
            fast = [
                one.name for one in view[f"got[{t}]"] if passing and one in view[f"data[{its[1]}]"]
            ]
            if fast != sorted(fast) or not all(records[name].urgent for name in fast):
                return f"{t} has got {fast} as urgent"
            counted = [*view[f"got[{t}]"], *view[f"lost[{t}]"]]
            had += counted
            plain = sorted(copy.name for copy in counted if copy.bits & PLAIN)
            due = sorted(record.name for record in records.values() if t in record.plain)
            if dead:  # as far as it was sent there
                there = [
                    copy
                    for ring in its
                    for copy in view[f"data[{ring}]"][: view[f"head[{ring}]"] - 1]
                ]
                due = sorted(copy.name for copy in there if copy.bits & PLAIN)
            if plain != due and not (dead and len(set(plain)) == len(plain) and {*due} <= {*plain}):
                return f"{t} has got {plain}, or they were counted there"
        for record in records.values():
            times = sum(copy.name == record.name and copy.bits & GROUP > 0 for copy in had)
            nobody = all(view.status(t) == "killed" for t in record.group)
            if record.request < 0 and record.group and times != 1 and (times or not nobody):
                return f"{record.name} has come {times} times to its group"
        if requests:
            ended = sorted(int(copy.name[-1]) for copy in view["got[r]"])
            if ended != requests:
                return f"only the requests {ended} have ended"
        return None

    words: dict[str, Any] = dict.fromkeys(
        ("journal.kind", "journal.source", "journal.target"), ""
    ) | dict.fromkeys(
        ("journal.from", "journal.to", "journal.head", "journal.after", "journal.generation"), 0
    )
    words |= {"journal.bits": (0, ()), "lost[$]": ()}
    for p in ports:
        words |= {f"life[{p}]": 0, f"tail[{p}]": 1, f"todo[{p}].from": 0, f"todo[{p}].to": 0}
        words |= {f"todo[{p}].{t}": 0 for t in owed_to}
    for t in (*rings, *passing):
        words |= {f"data[{t}]": (), f"head[{t}]": 1, f"tail[>{t}]": 1}
    words |= {f"got[{t}]": () for t in rings} | {f"reclaim[{ring}]": 0 for ring in passing}
    for t in targets:
        words |= {f"lost[{t}]": (), f"dead[{t}]": 0, f"reclaim[{t}]": 0, f"dealt[{t}]": 0}
        words |= {f"out[{t}]": (), f"tail[<{t}]": 1}
    if backlog:
        words |= {f"data[{backlog}]": (), f"head[{backlog}]": 1}
        words |= {f"reclaim[{backlog}]": 1, f"dead[{backlog}]": 0}
    words |= {f"target[{i}]": "" for i in requests} | {f"done[{i}]": 0 for i in requests}
    programs: dict[str, Callable[[], Program]] = {"d": dispatcher}
    programs |= {t: partial(receiver, t) for t in targets}
    if requests:
        programs["r"] = requester
    if kills:
        programs |= {f"watcher of {t}": partial(watcher, t) for t in targets if t in mortal}
    of_others = {f"{word}[{t}]" for t in targets for word in ("out", "dead")}
    of_others |= {f"got[{t}]" for t in rings} | {f"tail[>{t}]" for t in (*rings, *passing)}
    read_by_others = {f"{word}[{t}]" for t in (*rings, *passing) for word in ("data", "head")}
    dispatchers = words.keys() - of_others
    return Model(
        words=words,
        programs=programs,
        at_rest=at_rest,
        buffered=False,
        kills=kills,
        mortal=mortal,
        heirs={"d": successor},
        writers=dict.fromkeys(dispatchers, "d"),
        private=frozenset(dispatchers - read_by_others),
    )
