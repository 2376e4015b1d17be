"""A request that ends without its reply."""

from __future__ import annotations

from uuid import UUID

from .groups import RequestError
from .phrases import duration, standstill


class NoRoute(RequestError):
    """No endpoint handles this type."""

    def _explain(self) -> str:
        return (
            f"no endpoint handles {self.type!r}. Start one that does, wait for it "
            f"({self._by.wait_for(self.type)}), or see who would get it ({self._by.route})"
        )


class RequestTimeout(RequestError, TimeoutError):
    """The reply did not come in time."""

    seconds: float
    endpoint: str | None = None
    """The handler, where it was chosen; of another site as ``camera@paris``, or the link where
    several may have it, which `hint` names."""
    pid: int | None = None
    """Its process, where it is known."""
    begun: bool | None = None
    """Whether it had begun the request; None: not known."""
    hint: str = ""
    """The reason, if it is known."""
    dispatcher: int | None = None
    """The dispatcher's pid, where that does not get on."""
    silent: float = 0.0
    """Of such a dispatcher: seconds since it last forwarded anything."""
    stopped: bool = False
    """Of such a dispatcher: whether its process is stopped."""
    inherited: str | None = None
    """Where another deadline was sooner than the timeout: the type of the request whose handler
    made this one, or nothing where it is that of `within`."""
    sent: bool = True
    """False: that deadline had passed before, and nothing was sent."""
    parts: int = 0
    """Of a reply in parts: how many had come."""

    def _explain(self) -> str:
        if self.inherited is None:
            return self._unanswered(duration(self.seconds))
        whose, giver = "shmbus.within", "within"
        if self.inherited:
            whose, giver = f"the request {self.inherited!r} that it serves", repr(self.inherited)
        remedy = (
            f"Give {giver} more time ({self._by.longer}), or let this request outlive it "
            "(inherit_deadline=False)"
        )
        if not self.sent:
            return f"{self.type!r} was not sent: the deadline of {whose} has passed. {remedy}"
        left = f"{duration(self.seconds)}, what was left of the deadline of {whose}"
        return self._unanswered(left, remedy)

    def _unanswered(self, time: str, remedy: str = "") -> str:
        pid = "" if self.pid is None else f" (process {self.pid})"
        who = "" if self.endpoint is None else f" from endpoint {self.endpoint!r}{pid}"
        begun = {None: "", True: ", which had begun it", False: ", which had not begun it"}
        hint = f": {self.hint}" if self.hint else ""
        what = f"no part after {self.parts} of the reply to" if self.parts else "no reply to"
        lead = f"{what} {self.type!r}{who}{begun[self.begun] if who else ''} within "
        if self.dispatcher is not None:
            still = standstill(self.dispatcher, self.silent, self.stopped)
            return f"{lead}{time}: {still}"
        return (
            f"{lead}{time}{hint}. {remedy or f'Wait longer ({self._by.longer})'}, or see that "
            "its handlers are run (start() or run()), enough of them at a time (threads=, on "
            "asyncio concurrency=), and by enough endpoints"
        )


class HandlerTimeout(RequestError, TimeoutError):
    """The handler took longer than its limit, `handle(limit=...)`. It may still finish."""

    endpoint: str
    seconds: float
    """For which the handler had run."""
    pid: int | None = None

    def _explain(self) -> str:
        pid = "" if self.pid is None else f" (process {self.pid})"
        where = "" if self.pid is None else f" (py-spy dump --pid {self.pid})"
        return (
            f"the handler of {self.type!r} at endpoint {self.endpoint!r}{pid} has taken "
            f"{duration(self.seconds)}, more than its limit; it goes on, and its reply will be "
            f"dropped. See where it hangs{where}, shorten it, or let it take longer: "
            "handle(limit=...)"
        )


class EndpointDied(RequestError):
    """The endpoint that handled the request is gone."""

    endpoint: str
    pid: int | None = None
    reason: str = "died"
    """In one of the words of `shmbus.Death.reason`."""
    begun: bool = True
    """False: nobody had begun it, so sending it again is harmless."""

    def _explain(self) -> str:
        pid = "" if self.pid is None else f" (process {self.pid})"
        if not self.begun:
            return (
                f"endpoint {self.endpoint!r}{pid} is gone ({self.reason}) and had not begun "
                f"{self.type!r}, which nobody else could take. Send it again once somebody "
                "handles it: that is harmless"
            )
        return (
            f"endpoint {self.endpoint!r}{pid} is gone ({self.reason}) with {self.type!r} in hand; "
            "it may have been done in part. Send it again if that is harmless, and look at that "
            "process's log"
        )


class RemoteError(RequestError):
    """The handler raised: its exception's type, message and traceback, as text."""

    endpoint: str
    error: str
    """The exception's type, by its qualified name."""
    message: str
    traceback: str = ""

    def _explain(self) -> str:
        trace = ""
        if self.traceback and self._by.traceback:
            trace = f"\n\nRemote traceback:\n{self.traceback.rstrip()}"
        return (
            f"the handler of {self.type!r} at endpoint {self.endpoint!r} raised {self.error}: "
            f"{self.message}. Fix it there{trace}"
        )


class ReplyLost(RequestError):
    """The request was handled, but its reply could not be delivered."""

    endpoint: str
    reason: str

    def _explain(self) -> str:
        whose = self._by.whose or "this endpoint's "
        return (
            f"{self.type!r} was handled by endpoint {self.endpoint!r}, but its reply was lost: "
            f"{self.reason}. Enlarge {whose}{self._by.setting('reply_bytes')}, or make fewer "
            "requests at a time"
        )


class CorrelationCollision(RequestError):
    """A correlation id is in use by another request."""

    correlation_id: UUID | None

    def _explain(self) -> str:
        return (
            f"{self.type!r} was refused: correlation id {self.correlation_id} belongs to another "
            "request in flight. Let request() make the ids; attach anew if it did"
        )
