"""Attaches as another, and then does as itself what it may not: which of that was possible."""

from __future__ import annotations

from collections.abc import Callable

import shmbus
from shmbus.errors import Forbidden, NameTaken


class Attempts:
    """What was tried, and what came of it."""

    def __init__(self) -> None:
        self.came: dict[str, str] = {}

    def __call__(self, what: str, attempt: Callable[[], object]) -> None:
        try:
            attempt()
            self.came[what] = "possible"
        except (Forbidden, NameTaken) as why:
            self.came[what] = type(why).__name__


def main() -> None:
    attempts = Attempts()
    attempts("attach as another", lambda: shmbus.attach(name="words"))
    attempts("attach as the host", lambda: shmbus.attach(name="host"))
    attempts("attach as one that is not there", lambda: shmbus.attach(name="broken"))
    attempts("attach as nobody", lambda: shmbus.attach(name="somebody"))
    with shmbus.attach(name="lies") as endpoint:
        attempts("tell for the host", lambda: endpoint.publish("buffer.changed", 0))
        attempts("tell for another", lambda: endpoint.publish("extension.words.counted", 0))
        attempts("answer for another", lambda: endpoint.handle("extension.words.count", print))
        attempts("stop another", lambda: endpoint.request("supervisor.stop", {"name": "words"}))
        attempts("see everything", lambda: endpoint.tap(">"))
        endpoint.handle("extension.lies.attempts", lambda message: attempts.came)
        endpoint.run()
