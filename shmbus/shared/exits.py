"""How a process has ended."""

from __future__ import annotations

import signal
from typing import NamedTuple, Self


class Exit(NamedTuple):
    """How a process has ended."""

    code: int | None = None
    """None: by a signal, or it is not known."""
    signal: str = ""

    def __str__(self) -> str:
        if self.signal:
            return f"ended by {self.signal}"
        return "it has ended" if self.code is None else f"exited with code {self.code}"

    @classmethod
    def by(cls, code: int | None) -> Self:
        """From a code as `subprocess` and `multiprocessing` give it: negative for a signal; None:
        it is not known."""
        if code is not None and code < 0:
            return cls(signal=signal_name(-code))
        return cls(code=code)

    @property
    def clean(self) -> bool:
        """Whether all was well."""
        return self.code == 0


def signal_name(number: int) -> str:
    """Such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"
