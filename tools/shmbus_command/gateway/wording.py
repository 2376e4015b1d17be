"""The messages of errors, which name lines of the gateway here instead of calls."""

from __future__ import annotations

from typing import Any

from shmbus_console.output import to_json
from shmbus_console.wording import Options

from shmbus import BusError

from .lines import BadLine


class Lines(Options):
    """What a client of the gateway can do."""

    longer = '"timeout"'

    def wait_for(self, type: str) -> str:
        return to_json({"op": "wait", "pattern": type}).decode()


def told(problem: BusError | BadLine) -> dict[str, Any]:
    """An error as a client is told of it."""
    facts = problem.data if isinstance(problem, BusError) else {}
    text = problem.told(Lines()) if isinstance(problem, BusError) else str(problem)
    return {"class": type(problem).__name__, "message": " ".join(text.split()), "facts": facts}
