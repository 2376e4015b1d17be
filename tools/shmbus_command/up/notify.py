"""What systemd is told of a service with ``Type=notify``: sd_notify(3), over the socket that
NOTIFY_SOCKET names."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, MutableMapping


class Notifier:
    """Tells systemd how it goes, or nobody where that did not start this process. The variables of
    the environment that are meant for this process are taken from it, so that no child has them."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._status, self._ready = "", False
        watchdog = environment.pop("WATCHDOG_USEC", "")
        of = environment.pop("WATCHDOG_PID", "")
        mine = of in ("", str(os.getpid()))
        self.watchdog = int(watchdog) / 1e6 if mine and watchdog.isdecimal() else None
        """Seconds within which `alive` must be called again and again; None: never."""

    def ready(self, status: str) -> None:
        """All is started."""
        self._status, self._ready = status, True
        self._tell("READY=1", f"STATUS={status}")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """While what is to run is read again, and changed. Before `ready` nobody is told: as well
        as of the reload, that would be told of the start."""
        if not self._ready:
            yield
            return
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._tell("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``, where it is another than before."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """For the watchdog."""
        if self.watchdog is not None:
            self._tell("WATCHDOG=1")

    def _tell(self, *assignments: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError):  # systemd starts again itself: nothing to be done here
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.settimeout(1)
                to.connect(self._address)
                to.send("\n".join(assignments).encode())
