"""What must be true after a storm: what was sent was received or counted, once, in order, by the
right endpoint. Read from the ledgers of all processes, the killed ones too."""

from __future__ import annotations

from collections import defaultdict

import ledger
import numpy as np
from crew import Crew
from roles import ANSWERED, ASKED, EVENT, number

Origin = tuple[int, int]  # a sender's number, and its incarnation


def sent_by(company: Crew, kind: int) -> dict[Origin, tuple[int, int]]:
    """How many messages of each sender were accepted, and how many it had begun to send, of which
    the last may be accepted, too, if it was killed meanwhile."""
    sent = {}
    for name, incarnation, path in company.ledgers("sent"):
        rows = ledger.read(path)
        rows = rows[rows[:, 0] == kind]
        sent[number(name), incarnation] = int(rows[:, 2].sum()), int((rows[:, 2] == 0).sum())
    return sent


def account_for_events(company: Crew, lost: int) -> None:
    """Each survivor received each event of each sender once, in order, or counted it as lost."""
    sent = sent_by(company, EVENT)
    missing = 0
    for name, _, path in company.ledgers("received"):
        rows = ledger.read(path)
        counted = int(rows[:, 3].sum())
        gaps = 0
        rows = rows[rows[:, 0] < number("x0")]  # events of hostile endpoints are not checked
        origins = {(int(s), int(i)) for s, i in np.unique(rows[:, :2], axis=0)}
        assert origins <= set(sent), f"{name} received what nobody sent"
        for origin, (accepted, begun) in sent.items():
            mine = rows[(rows[:, 0] == origin[0]) & (rows[:, 1] == origin[1]), 2].astype(np.int64)
            assert np.all(np.diff(mine) > 0), f"{name}: out of order or doubled, from {origin}"
            assert mine.size == 0 or mine[-1] < begun, f"{name} received what {origin} never sent"
            gaps += max(accepted - mine.size, 0)
            if counted == 0:
                assert np.array_equal(mine, np.arange(mine.size)), f"{name}: a gap from {origin}"
                assert accepted <= mine.size <= begun, f"{name}: {mine.size} of {accepted}, {begun}"
        assert gaps <= counted, f"{name}: {gaps} missing, {counted} counted"
        missing += counted
    assert missing <= lost


def letters_of(company: Crew) -> dict[tuple[int, Origin], list[int]]:
    """The numbers of the dead letters, by kind and sender."""
    found = defaultdict(list)
    for _, _, path in company.ledgers("letters"):
        for kind, source, incarnation, sequence in ledger.read(path).tolist():
            found[kind, (source, incarnation)].append(sequence)
    return found


def account_for_once(
    what: str,
    kind: int,
    company: Crew,
    letters: dict[tuple[int, Origin], list[int]],
    *,
    begun_at_most: int,
) -> None:
    """Everything accepted was begun, or is a dead letter; begun more than once only where its
    first receiver was killed meanwhile."""
    begun: dict[Origin, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for _, _, path in company.ledgers(what):
        for source, incarnation, sequence, attempt in ledger.read(path).tolist():
            begun[source, incarnation][sequence].append(attempt)
    for origin, (accepted, tried) in sent_by(company, kind).items():
        dead = letters.get((kind, origin), [])
        assert len(dead) == len(set(dead)), f"dead letters doubled: {what} of {origin}"
        seen = set(begun[origin]) | set(dead)
        assert seen == set(range(len(seen))), (
            f"{what} of {origin} lost: {sorted(set(range(len(seen))) - seen)[:9]}"
        )
        assert accepted <= len(seen) <= tried, f"{what} of {origin}: {len(seen)} of {accepted}"
        for sequence, attempts in begun[origin].items():
            assert len(attempts) <= begun_at_most, f"{what} {sequence} of {origin}: {attempts}"
            assert len(set(attempts)) == len(attempts), f"{what} {sequence} of {origin}: doubled"


def account_for_requests(company: Crew) -> None:
    """Every request ended, once, except one during which its requester was killed."""
    answered = 0
    for name, incarnation, path in company.ledgers("asked"):
        rows = ledger.read(path)
        open_ = (rows[:, 1] == ASKED).sum() - (rows[:, 1] != ASKED).sum()
        assert open_ in (0, 1), f"{name}, {incarnation}"
        answered += int((rows[:, 1] == ANSWERED).sum())
    assert answered > 0
