"""Several endpoints that were asked or waited for: too few replied or came."""

from __future__ import annotations

from typing import Any

from .error import BusError
from .groups import PeerFailed, RequestError
from .phrases import duration


class Withdrawn(RequestError):
    """One of those that were asked together was not waited for any more, since enough had
    replied, or too few still could."""

    endpoint: str
    replies: int
    """From others, by then."""
    enough: bool
    """Whether those were as many as were wanted."""

    def _explain(self) -> str:
        why = "as many as were wanted" if self.enough else "and too few others still could"
        return (
            f"{self.type!r} was withdrawn from endpoint {self.endpoint!r}, which had not replied: "
            f"{self.replies} had, {why}. To wait for all, leave out {self._by.at_least}"
        )


class TooFewReplies(RequestError):
    """Of those that were asked together, fewer replied than were wanted. `results` has what became
    of each; when it is pickled, the errors among it."""

    endpoint: str
    """That asked."""
    wanted: int
    replies: int
    results: dict[str, Any]
    """By the name of the endpoint that was asked: its reply, a `Message`, or the error that came
    instead."""

    def _explain(self) -> str:
        failures = [f"{name}: {type(r).__name__}" for name, r in self._failures().items()]
        more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        why = f" ({', '.join(failures[:3])}{more})" if failures else ""
        return (
            f"endpoint {self.endpoint!r} wanted {self.wanted} replies to {self.type!r} and has "
            f"{self.replies}, of {len(self.results)} that it asked{why}. Start more of them "
            f"({self._by.wait_for(self.type)}), give them more time ({self._by.longer}), or want "
            f"fewer ({self._by.at_least})"
        )

    def _failures(self) -> dict[str, Any]:
        return {name: r for name, r in self.results.items() if isinstance(r, BusError)}

    def __reduce__(self) -> tuple[Any, ...]:
        make, (error, data), state = super().__reduce__()
        failures = self._failures()
        return make, (error, data | {"results": failures}), state | {"results": failures}


class WaitTimeout(PeerFailed, TimeoutError):
    """Too few endpoints came that would receive a pattern."""

    pattern: str
    receivers: int
    """How many were wanted."""
    found: int
    seconds: float

    def _explain(self) -> str:
        return (
            f"{self.found} of {self.receivers} receivers of {self.pattern!r} within "
            f"{duration(self.seconds)}. Start those that subscribe to it or handle it, or wait "
            f"longer ({self._by.longer})"
        )
