"""Asking the host who may attach, and what that one may do: ``serve(grants=...)``.

The host's function runs in a thread of its own for each endpoint, and has a second for its answer:
what hangs in it, or takes long, holds up nobody else. A mapping is looked up at once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from shmbus.errors import Forbidden, InvalidSetting
from shmbus.shared import names, threads
from shmbus.shared._kernel import monotonic
from shmbus.shared.grants import Candidate, Grant, Grants
from shmbus.shared.layout import DoorCode
from shmbus.shared.names import Owner

from .admission import Denied

log = logging.getLogger("shmbus")

ANSWER = 1.0
"""Seconds within which the host's function must answer."""
MOST = 32
"""Questions that may be open at a time, those included that were given up: others wait."""


def check(grants: object) -> Grants | None:
    """What was given as ``grants=``; of a mapping a copy. Raises ``InvalidSetting``,
    ``InvalidName``."""
    if not isinstance(grants, Mapping):
        if grants is None or callable(grants):
            return grants
        raise _invalid(grants, "it is neither a function nor a mapping")
    for name, grant in grants.items():
        if name != "*":
            names.check_attached(name)
        if grant is not None and not isinstance(grant, Grant):
            raise _invalid(grant, f"what it gives {name!r} is no Grant")
    return dict(grants)


def _invalid(value: object, reason: str) -> InvalidSetting:
    remedy = "Give {name: Grant(...)}, or a function of a Candidate that returns a Grant or None"
    return InvalidSetting(setting="grants", value=value, reason=reason, remedy=remedy)


class Host:
    """Whom to ask. For the control thread alone."""

    def __init__(self, bus: str, grants: Grants | None) -> None:
        self._bus, self._grants = bus, grants
        self._questions: dict[Owner, Question] = {}
        self._given_up: list[Question] = []

    def ask(self, owner: Owner, name: str) -> Question | None:
        """The question about this caller, asked with the first call for which there is a thread;
        None: it may do everything. Raises ``Denied``."""
        if self._grants is None or owner.pid == os.getpid():
            return None
        if (question := self._questions.get(owner)) is None:
            candidate = Candidate(name=name, pid=owner.pid, command=_command(owner.pid))
            if isinstance(self._grants, Mapping):
                question = _Known(self._bus, candidate, self._grants)
            else:
                self._given_up = [one for one in self._given_up if one.open]
                if len(self._given_up) >= MOST:
                    raise Denied(
                        f"the function that says who may attach has not answered {MOST} times\n"
                        "See what blocks it: py-spy dump"
                    )
                if len(self._given_up) + len(self._questions) >= MOST:
                    return _Unasked(self._bus, candidate)
                question = _Asked(self._bus, candidate, self._grants)
            self._questions[owner] = question
        if question.name != name:  # it stands in memory that the caller may write
            raise Denied("it changed its name while its host was asked about it\nAttach again")
        return question

    def forget(self, owner: Owner) -> None:
        """The caller has its answer."""
        question = self._questions.pop(owner, None)
        if question is not None and question.open:
            self._given_up.append(question)


class Question:
    """What one endpoint may do."""

    open = False
    """It is not answered yet."""

    def __init__(self, bus: str, candidate: Candidate) -> None:
        self._bus, self._candidate = bus, candidate
        self.name = candidate.name
        self._grant: object = None
        self._problem: BaseException | None = None

    @property
    def waits(self) -> bool:
        """Whether the answer may come yet."""
        return False

    def answer(self) -> Grant | None:
        """What it may do; None: everything. Raises ``Denied``."""
        who = self._candidate
        if isinstance(self._problem, Forbidden):
            reason, remedy = (
                " ".join(text.split()) for text in (self._problem.reason, self._problem.remedy)
            )
            raise Denied(f"{who.name}\n{reason}\n{remedy}", code=DoorCode.FORBIDDEN)
        why = "it raised an exception"
        if self.open:
            why = f"it has not answered within {ANSWER:g} s"
        elif self._problem is None:
            if self._grant is None or isinstance(self._grant, Grant):
                return self._grant
            why = f"it returned a {type(self._grant).__name__}"
        where = "bus %r: endpoint %r (pid %d) is not admitted: the function that says what it may: "
        log.error(where + why, self._bus, who.name, who.pid, exc_info=self._problem)
        raise Denied(f"its host could not say what it may do: {why}\nSee the log of that process")


class _Known(Question):
    """One that the mapping answers."""

    def __init__(self, bus: str, candidate: Candidate, grants: Mapping[str, Grant | None]) -> None:
        super().__init__(bus, candidate)
        for name in (candidate.name, "*"):
            if name in grants:
                self._grant = grants[name]
                return
        self._problem = Forbidden(
            reason="its host has no grant for that name",
            remedy='Name it in serve(grants=...), or give "*" for all others',
        )


class _Unasked(Question):
    """One that waits for its turn: each of those before it ends within ``ANSWER``."""

    @property
    def waits(self) -> bool:
        return True


class _Asked(Question):
    """One that the host's function answers, in a thread of its own."""

    open = True

    def __init__(
        self, bus: str, candidate: Candidate, function: Callable[[Candidate], Grant | None]
    ) -> None:
        super().__init__(bus, candidate)
        self._function, self._until = function, monotonic() + ANSWER
        thread = threading.Thread(target=self._run, name=f"shmbus {bus} asks", daemon=True)
        try:
            threads.start(thread)
        except RuntimeError as why:
            raise Denied(
                f"its host could not be asked what it may do: {why}\nRaise ulimit -u"
            ) from None

    def _run(self) -> None:
        try:
            self._grant = self._function(self._candidate)
        except BaseException as problem:
            self._problem = problem
        finally:
            self.open = False

    @property
    def waits(self) -> bool:
        return self.open and monotonic() < self._until


def _command(pid: int) -> tuple[str, ...]:
    try:
        said = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(part) for part in said.split(b"\0")[:-1])
