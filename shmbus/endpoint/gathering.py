"""A question to all: one request to each endpoint that handles a type, and what became of each.

Who is asked is known at the beginning, and each of them ends in the result. Whoever has no space is
asked again a little later, so that nobody waits behind him.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.names import LINK_MARK

from ._kernel import Message

if TYPE_CHECKING:
    from ._kernel import Addressee, Deadline, PendingReply, Requests

Result = Message | errors.BusError

NEVER = 2**64 - 1

PAUSE, LONGEST_PAUSE = 1_000_000, 20_000_000
"""Nanoseconds until those are asked (again) for whom there was no space, twice as many each
time."""


class Gathering:
    """How far one such question is. Knows nothing of how requests are sent.

    `endpoint`: who asks. `at_least`: how many replies are enough; None: all are waited for.
    """

    def __init__(
        self,
        endpoint: str,
        type: str,
        addressees: Iterable[Addressee],
        deadline: Deadline,
        at_least: int | None,
    ) -> None:
        self._endpoint, self._type, self._deadline = endpoint, type, deadline
        self._at_least = at_least
        self.to_ask = deque(addressees)
        """Whom to ask next."""
        self._names = [each.name for each in self.to_ask]
        self._crowded: list[Addressee] = []
        self._results: dict[str, Result] = {}
        self._beyond: dict[str, dict[str, Result]] = {}
        self._replies = 0
        self._pause, self._again = PAUSE, NEVER

    def note(self, reply: PendingReply) -> None:
        """This request has ended."""
        addressee = reply._to
        assert addressee is not None
        if reply._crowded and monotonic_ns() < self._deadline.ns:
            self._crowded.append(addressee)
        else:
            self.end(addressee, reply._ended())

    def take_ended(self, under_way: list[Any]) -> bool:
        """Note those of these that have ended, and remove them: whether there are any."""
        ended = [reply for reply in under_way if reply.done()]
        for reply in ended:
            under_way.remove(reply)
            self.note(reply)
        return bool(ended)

    def fail_rest(self, why: errors.BusError) -> None:
        """Nobody can be asked any more."""
        while self.to_ask:
            self.end(self.to_ask.popleft(), why)

    def end(self, addressee: Addressee, result: Result) -> None:
        """That is what came of asking it. A link answers for those whom it has asked: each of them
        has its own result then."""
        name = addressee.name
        self._results[name] = result
        found = {name: result}
        if name.startswith(LINK_MARK) and not isinstance(result, errors.BusError):
            try:
                found = result._gathered()
            except errors.DecodeError as why:
                self._results[name] = found[name] = why
            self._beyond[name] = found
        self._replies += sum(isinstance(each, Message) for each in found.values())

    @property
    def over(self) -> bool:
        """Whether all have ended, enough have replied, or fewer than enough can."""
        left = [name for name in self._names if name not in self._results]
        if not left or self._at_least is None:
            return not left
        if any(name.startswith(LINK_MARK) for name in left):  # which answers for any number
            return self._replies >= self._at_least
        return self._replies >= self._at_least or self._replies + len(left) < self._at_least

    def wake_at(self) -> int:
        """When to look again though nothing has come, ns by the monotonic clock."""
        if not self.to_ask and not self._crowded:
            return self._deadline.ns
        now = monotonic_ns()
        if self._again == NEVER:
            self._again = now + self._pause
        elif now >= self._again:
            self.to_ask.extend(self._crowded)
            self._crowded.clear()
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._again = now + self._pause
        return min(self._again, self._deadline.ns)

    def expire(self) -> None:
        """If the time is over, whoever was not asked is not asked any more."""
        if monotonic_ns() < self._deadline.ns:
            return
        for addressee in (*self.to_ask, *self._crowded):
            self.end(
                addressee,
                errors.RequestTimeout(
                    type=self._type,
                    seconds=self._deadline.seconds or 0.0,
                    endpoint=addressee.name,
                    begun=False,
                    hint="there was no space for it",
                    inherited=self._deadline.origin,
                ),
            )
        self.to_ask.clear()
        self._crowded.clear()

    def results(self) -> dict[str, Result]:
        """What became of each, in the order in which they were named. Raises `TooFewReplies`."""
        for name in self._names:
            if name not in self._results:
                enough = self._replies >= (self._at_least or 0)
                self._results[name] = errors.Withdrawn(
                    type=self._type, endpoint=name, replies=self._replies, enough=enough
                )
        found: dict[str, Result] = {}
        for name in self._names:
            found |= self._beyond.get(name, {name: self._results[name]})
        if self._at_least is not None and self._replies < self._at_least:
            raise errors.TooFewReplies(
                type=self._type,
                endpoint=self._endpoint,
                wanted=self._at_least,
                replies=self._replies,
                results=found,
            )
        return found


def gather(
    requests: Requests,
    gathering: Gathering,
    type: str,
    payload: object,
    deadline: Deadline,
    reply_type: Any,
    check: Callable[[], None],
) -> dict[str, Result]:
    """Ask all, and wait. `check` raises where this endpoint is closed."""
    under_way: list[PendingReply] = []
    try:
        while not gathering.over:
            seen = requests.completions
            try:
                requests.begin_directed(
                    gathering.to_ask, under_way, type, payload, deadline, reply_type
                )
            except errors.RequestTimeout:  # inherited, and over by now
                pass
            except errors.Disconnected as why:
                gathering.fail_rest(why)
            if gathering.take_ended(under_way):
                continue
            gathering.expire()
            if not gathering.over:
                requests.await_completion(seen, gathering.wake_at())
        check()
    finally:
        for reply in under_way:
            reply.cancel()
    return gathering.results()
