"""Who may attach to a bus under which name, where its processes are supervised."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from shmbus.errors import Forbidden
from shmbus.shared.grants import Candidate, Grant

from .mark import mark_of
from .mark import marked as all_marked
from .process import Process, check_processes
from .runs import Runs
from .sessions import session_of, sessions_above


class Grants:
    """For ``serve(grants=...)``, and then for `supervise`: lets an endpoint have the name of a
    process only if it is in that, or in one that this has started, and gives it the
    `Process.grant`. Who is in none of them, such as the command ``shmbus``, may do everything
    under any other name. Raises `InvalidProcess`."""

    def __init__(self, bus: str, processes: Iterable[Process]) -> None:
        self.bus = bus
        self.processes = check_processes(processes)
        self.runs = Runs()
        # The oldest of a name is what a supervisor has started, so it comes last, and stays.
        for one in reversed(all_marked(bus)):
            if one.leads:
                self.runs.began(one.mark.name, one.pid)

    def __call__(self, candidate: Candidate) -> Grant | None:
        """What this candidate may do. Raises `Forbidden`."""
        named = {process.name: process for process in self.processes}
        claimed = [process.name for process in self.processes if _is_of(process, candidate.name)]
        mark = mark_of(candidate.pid)
        marked = mark is not None and mark.bus == self.bus
        if claimed or marked:  # others are held up by nothing
            self.runs.settle()
        owner = named.get(self.runs.whose(session_of(candidate.pid)) or "")
        if owner is not None and owner.name in claimed:
            return owner.grant
        if claimed:
            raise Forbidden(
                reason=f"this name is for process {claimed[0]!r} of its supervisor, "
                f"and pid {candidate.pid} is not in that",
                remedy="Attach by another name, or from that process",
            )
        if owner is not None and (owner.grant is not None or owner.endpoints):
            raise Forbidden(
                reason=f"pid {candidate.pid} is in process {owner.name!r} of its supervisor, "
                "which has another name",
                remedy="Attach by that, or let Process(endpoints=...) have this one, too",
            )
        if owner is None and (marked or any(map(self.runs.whose, sessions_above(candidate.pid)))):
            raise Forbidden(
                reason=f"pid {candidate.pid} was started by a process of its supervisor, "
                "and has left its session",
                remedy="Start it in the session of that process (no setsid, no start_new_session)",
            )
        return None


def _is_of(process: Process, name: str) -> bool:
    """Whether an endpoint of that name is expected in the process."""
    return any(fnmatchcase(name, pattern) for pattern in process.endpoints or (process.name,))
