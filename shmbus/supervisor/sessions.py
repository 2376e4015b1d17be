"""Sessions: what a child starts stays in its session unless it asks for another, so at the child's
end what is left of it can be found, and ended."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from .mark import stat_of


def session_of(pid: int) -> int | None:
    """The session of a process; None where there is no such process."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


def sessions_above(pid: int) -> set[int]:
    """The sessions of a process, of its parent, and so on."""
    found = set[int]()
    with suppress(OSError, IndexError, ValueError):  # it is in another pid namespace: the last
        while pid:
            fields = stat_of(pid)
            found.add(fields.session)
            pid = fields.parent
    return found


def members(session: int) -> list[int]:
    """The live processes of a session, without its leader."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != session:
            with suppress(OSError, IndexError, ValueError):
                fields = stat_of(int(entry))
                if fields.session == session and fields.state not in "ZXx":
                    found.append(int(entry))
    return found


def signal_members(session: int, number: signal.Signals) -> int:
    """Send a signal to each, without the leader; how many there were."""
    found = members(session)
    for pid in found:
        _signal_member(pid, session, number)
    return len(found)


def _signal_member(pid: int, session: int, number: signal.Signals) -> None:
    """Its pid may be another process's by now: that is looked for once more, holding it."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # this system has none
        if session_of(pid) == session:
            with suppress(OSError):
                os.kill(pid, number)
        return
    try:
        if session_of(pid) == session:
            with suppress(OSError):
                signal.pidfd_send_signal(held, number)
    finally:
        os.close(held)
