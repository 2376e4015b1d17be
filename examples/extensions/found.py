"""The extensions that are installed, as processes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from shmbus import Backoff, Grant, Process

GROUP = "symphony.extensions"
"""Of the entry points: the name of each is that of an extension, its value a function."""


def installed() -> list[EntryPoint]:
    """All extensions of the packages that are installed. None of their code is imported here."""
    return sorted(entry_points(group=GROUP))


def rights(name: str) -> Grant:
    """What an extension may do: read what the host has, and whatever it likes below its own
    name."""
    own = f"extension.{name}.>"
    return Grant(publish=(own,), handle=(own,), subscribe=("buffer.>",), request=("buffer.read",))


def processes(extensions: Iterable[EntryPoint]) -> list[Process]:
    """A process for each, started when the host can be asked. One that cannot stay alive is given
    up after a few attempts."""
    return [
        Process(
            name=extension.name,
            target=extension.value,
            grant=rights(extension.name),
            needs=("buffer.read",),
            backoff=Backoff(limit=3),
            stop_timeout=0.5,
        )
        for extension in extensions
    ]
