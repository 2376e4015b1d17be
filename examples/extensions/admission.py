"""Who may attach to the bus, and what it may do."""

from __future__ import annotations

import os
import threading

from shmbus import Candidate, Forbidden, Grant, Supervisor

from .found import rights


class Admission:
    """Asked by the bus for each endpoint of another process (``serve(grants=...)``): only an
    extension's own process, or one that it has started, may attach by the extension's name."""

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._begun = threading.Event()

    def begin(self, supervisor: Supervisor) -> None:
        """From here on it is known which process is whose."""
        self._supervisor = supervisor
        self._begun.set()

    def __call__(self, candidate: Candidate) -> Grant:
        self._begun.wait()  # the bus gives an answer a second
        assert self._supervisor is not None
        running = {each.name: each.pid for each in self._supervisor.status()}
        if running.get(candidate.name) != os.getsid(candidate.pid):
            raise Forbidden(
                reason=f"process {candidate.pid} was not started as {candidate.name!r}",
                remedy="Attach by the name of the extension",
            )
        return rights(candidate.name)
