"""A supervisor as a service of its bus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .status import Line, ProcessStatus

if TYPE_CHECKING:
    from .supervisor import Supervisor


class Control:
    """What others on the bus can ask of a supervisor:
    ``endpoint.client(shmbus.supervisor.Control, "supervisor")``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def status(self) -> list[ProcessStatus]:
        """What its processes do."""
        return self._supervisor.status()

    def start(self, name: str) -> None:
        """Start a process, unless it runs."""
        self._supervisor.start(name)

    def stop(self, name: str) -> None:
        """Stop a process, until it is started."""
        self._supervisor.stop(name)

    def restart(self, name: str) -> None:
        """Stop a process, and start it again."""
        self._supervisor.restart(name)

    def reload(self) -> None:
        """Read anew what is to run, where that stands in a file."""
        self._supervisor.reload()

    def logs(self, name: str, last: int = 100) -> Iterator[Line]:
        """The last lines that a process has written. Those that come are events of type
        ``supervisor.output.NAME``."""
        yield from self._supervisor.logs(name, last)
