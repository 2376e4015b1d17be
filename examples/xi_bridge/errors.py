"""What a bus request of a front-end's may end with: it is raised there as `shmbus.RemoteError`,
whose `error` is the name of one of these classes and whose `message` is its text."""

from __future__ import annotations

CORE_DOWN = f"{__name__}.CoreDown"
FILE_CHANGED = f"{__name__}.FileChanged"


class CoreDown(Exception):
    """The core ended, or was ended because it hung, before it answered. It is started again, with
    its views: ask again."""


class CoreRefused(Exception):
    """The core answered with an error."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: the core answered with error {code}: {message}")
        self.code = code

    def said(self, stderr: str) -> None:
        """Add what the core said last on standard error."""
        if stderr:
            self.args = (f"{self}; it said on standard error: {stderr}",)


class NotSaved(Exception):
    """The file does not have what the view has, though the core was told to save. XI's protocol has
    no errors for that, so the host has looked."""


class FileChanged(NotSaved):
    """Another program has written the file since it was read or saved here, so it was left alone.
    Save with `overwrite`, or to another file."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} was not saved: another program has changed it since")


class NoSuchView(Exception):
    """There is no view of that name, or it was closed."""


class OutOfOrder(Exception):
    """Of a front-end's edits one before this one is missing, or another has its number."""


class StaleState(Exception):
    """The edit names a place in a state that is too old to be found again, or has none and its
    front-end's own is forgotten. Look anew, and click."""
