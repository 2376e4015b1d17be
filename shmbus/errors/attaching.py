"""A bus that cannot be attached to, or served."""

from __future__ import annotations

from .groups import AttachError, SetupError
from .phrases import duration, go_on, named_by


class NoSuchBus(AttachError):
    """No bus was named, and there is not exactly one; or the bus that was named does not run."""

    running: tuple[str, ...] = ()
    """The buses that do run."""
    variable: str = ""
    """The environment variable that named the bus, if one did."""

    def _explain(self) -> str:
        others = ", ".join(self.running)
        if self.bus is not None:
            seen = f"; running: {others}" if self.running else ""
            return (
                f"no bus {self.bus!r} runs on this machine{seen}. Start it: "
                f"{self._by.serve(self.bus)}{named_by(self.variable)}"
            )
        if self.running:
            return (
                f"several buses run on this machine: {others}. Name the one that you mean"
                f"{self._by.which_bus}, or set SHMBUS_BUS to it"
            )
        return f"no bus runs on this machine. Start one: {self._by.serve('NAME')}"


class AttachTimeout(AttachError, TimeoutError):
    """The dispatcher did not admit this endpoint in time."""

    seconds: float
    pid: int | None = None
    """The dispatcher's, if there is one."""
    silent: float | None = None
    """Seconds since its control plane last ran."""
    removed: bool = False
    """Somebody removed its names from /dev/shm."""
    stopped: bool = False
    """The dispatcher's process is stopped."""
    variable: str = ""
    """The environment variable that named the bus, if one did."""

    def _explain(self) -> str:
        if self.removed:
            return (
                f"bus {self.bus!r}: not admitted within {duration(self.seconds)}: somebody has "
                f"removed its names from /dev/shm: its dispatcher {self.pid} is alive, those "
                "attached go on, no other can attach. Restart it, and keep cleaners and logind "
                "(RemoveIPC=no) from /dev/shm"
            )
        if self.pid is None:
            return (
                f"bus {self.bus!r}: no dispatcher within {duration(self.seconds)}. Start it "
                f"({self._by.serve(self.bus or 'NAME')}), or attach with a longer timeout"
                f"{named_by(self.variable)}"
            )
        silent = (
            ""
            if self.silent is None
            else f", its control plane has not run for {duration(self.silent)}"
        )
        if self.stopped:
            return (
                f"bus {self.bus!r}: dispatcher {self.pid} is stopped{silent}; it did not answer "
                f"within {duration(self.seconds)}. {go_on(self.pid, self.stopped)}"
            )
        return (
            f"bus {self.bus!r}: dispatcher {self.pid} is alive{silent}; it did not answer within "
            f"{duration(self.seconds)}. See what blocks that process (GIL held by native code?): "
            f"py-spy dump --pid {self.pid}; or attach with a longer timeout"
        )


class NameTaken(AttachError):
    """Another live endpoint has this name."""

    name: str
    pid: int

    def _explain(self) -> str:
        return (
            f"bus {self.bus!r}: endpoint name {self.name!r} is held by live process {self.pid}. "
            "Choose another name, end that process, or evict it: bus.evict(name)"
        )


class BusFull(AttachError):
    """The bus has as many endpoints as it was made for."""

    limit: int
    setting: str = "max_endpoints"

    def _explain(self) -> str:
        return (
            f"bus {self.bus!r} is full: {self.limit} endpoints. Close some, or serve it with a "
            f"larger {self._by.setting(self.setting)}"
        )


class LayoutMismatch(AttachError):
    """The bus was made by a version of shmbus whose shared memory has another layout."""

    mine: str
    theirs: str
    pids: tuple[int, ...] = ()
    """Processes that use the other layout."""

    def _explain(self) -> str:
        who = f" (processes {', '.join(map(str, self.pids))})" if self.pids else ""
        return (
            f"bus {self.bus!r} has layout {self.theirs}{who}, this process {self.mine}. Install "
            "the same version of shmbus everywhere and restart them, or start the dispatcher with "
            "--replace"
        )


class Refused(AttachError):
    """The dispatcher refused to admit this endpoint."""

    reason: str
    remedy: str
    pid: int | None = None

    def _explain(self) -> str:
        by = "" if self.pid is None else f" by dispatcher {self.pid}"
        return f"bus {self.bus!r}: admission refused{by}: {self.reason}. {self.remedy}"


class BusExists(SetupError):
    """This bus has a dispatcher already."""

    bus: str
    pid: int

    def _explain(self) -> str:
        return (
            f"bus {self.bus!r} is served by process {self.pid}. Attach to it, end that process, or "
            "choose another name"
        )
