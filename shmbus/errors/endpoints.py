"""An endpoint that is not on the bus, or does not belong to who calls it."""

from __future__ import annotations

from .groups import UsageError


class NoSuchEndpoint(UsageError, LookupError):
    """No endpoint of that name is on the bus."""

    bus: str
    endpoint: str
    there: tuple[str, ...] = ()
    """Endpoints that are."""

    def _explain(self) -> str:
        there = ", ".join(self.there) or "none"
        return (
            f"no endpoint {self.endpoint!r} on bus {self.bus!r}; attached: {there}. "
            f"Name one of those that {self._by.endpoints} lists"
        )


class ForkedEndpoint(UsageError):
    """An endpoint was used in a forked child."""

    endpoint: str
    pid: int
    """Of the process that attached it."""

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r} belongs to process {self.pid}, not to its forked child. "
            "Attach in the child"
        )


class WrongLoop(UsageError):
    """An endpoint of one event loop was used outside of it."""

    endpoint: str
    closed: bool
    """Whether its loop is closed."""

    def _explain(self) -> str:
        if self.closed:
            return (
                f"endpoint {self.endpoint!r} belongs to an event loop that is closed. "
                "Attach in the loop that runs now"
            )
        return (
            f"endpoint {self.endpoint!r} belongs to another event loop, or none runs here. Call it "
            "there by asyncio.run_coroutine_threadsafe(ep.publish(...), loop), or attach here"
        )
