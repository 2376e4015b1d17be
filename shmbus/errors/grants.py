"""What an endpoint may not do."""

from __future__ import annotations

from .error import BusError
from .phrases import at


class Forbidden(BusError):
    """An endpoint may not do this: the grant that the bus's host gave it does not cover it, or the
    host does not admit it. What such a call sent, no endpoint gets. A host raises it in the
    function that it gave `serve`, with `reason` and `remedy`."""

    reason: str = ""
    """Why, where the host says so."""
    remedy: str = ""
    """What to do about that, likewise."""
    bus: str | None = None
    endpoint: str | None = None
    right: str | None = None
    """What it lacks: publish, subscribe, handle or request (which includes commands); None: it is
    not admitted at all."""
    type: str = ""
    """The message type, or the pattern."""
    granted: tuple[str, ...] = ()
    """The patterns for which it has that right."""
    index: int | None = None
    """Which message of a batch; those before it are accepted."""

    def _explain(self) -> str:
        who = "this endpoint" if self.endpoint is None else f"endpoint {self.endpoint!r}"
        where = "" if self.bus is None else f" on bus {self.bus!r}"
        what, reason = f"{who} is not admitted{where}", "its host refuses it"
        if self.right is not None:
            what = f"{at(self.index)}{who} may not {self.right} {self.type!r}{where}"
            granted = ", ".join(map(repr, self.granted)) or "nothing"
            reason = f"its grant has {granted} for that"
        places = "serve(grants=...), the grant of its Process, or grant in its [process.NAME]"
        remedy = self.remedy or f"Let the host grant it: {places}"
        return f"{what}: {self.reason or reason}. {remedy}"
