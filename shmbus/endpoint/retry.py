"""Asking again: which errors are worth another attempt, and when to make it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shmbus import errors
from shmbus.settings import check_count
from shmbus.shared._kernel import seconds

if TYPE_CHECKING:
    from ._kernel import Deadline, Message, Requests
    from .flag import Flag

LONGEST = 1.0
"""Seconds that a pause is doubled to at most."""

_chance = random.SystemRandom().random  # other processes, forked ones too, draw other numbers


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often to make a request whose handler may run more than once, within its one timeout.
    Raises `InvalidSetting`."""

    attempts: int = 3
    """Attempts in all, the first included."""
    on: tuple[type[errors.BusError], ...] = (errors.EndpointDied, errors.NoRoute, errors.BusDown)
    """Errors after which to make another. A handler may have begun what ends with `EndpointDied`
    or `RemoteError`."""
    backoff: float = 0.01
    """Seconds before the second attempt, twice as many before each further one, up to 1 s; a random
    part of it, up to a half, is left out."""

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts)
        if seconds(self.backoff, "backoff") is None:
            raise _refused("backoff", self.backoff, "that is for ever", "Give such as 0.01")
        kinds = self.on if isinstance(self.on, tuple) and self.on else (object,)
        if not all(isinstance(kind, type) and issubclass(kind, errors.BusError) for kind in kinds):
            remedy = "Give such as (shmbus.EndpointDied, shmbus.NoRoute)"
            raise _refused("on", self.on, "it is no tuple of errors of the bus", remedy)
        if any(issubclass(kind, errors.RequestTimeout) for kind in kinds):
            reason = "a request that times out has used up the time of all its attempts"
            raise _refused("on", self.on, reason, "Leave RequestTimeout out")

    def pauses(self) -> Iterator[float]:
        """The pause before each attempt but the first, in seconds."""
        pause = max(0.0, self.backoff)
        for _ in range(self.attempts - 1):
            yield pause * (0.5 + _chance() / 2)
            pause = min(2 * pause, max(LONGEST, self.backoff))


class Asking(Protocol):
    """What is needed of an endpoint to ask again."""

    @property
    def name(self) -> str:
        """Of the endpoint."""

    @property
    def _requests(self) -> Requests: ...

    _done: Flag


class Attempts:
    """The attempts of one request, which ends at `deadline`. Does not wait itself."""

    def __init__(self, retry: Retry, deadline: Deadline) -> None:
        self._retry, self._deadline, self._pauses = retry, deadline, retry.pauses()
        self._before: list[str] = []
        self.number = 1
        """Of the attempt that is made now."""

    def pause(self, why: errors.BusError) -> float | None:
        """Seconds until the next attempt, after this one has ended with `why`; None where that was
        the last, upon which a note of it says so."""
        pause, left = next(self._pauses, None), self._deadline.left
        if pause is None or (left is not None and left <= pause):
            before = f", after {', '.join(self._before)}" if self._before else ""
            time = "" if pause is None else ", and there is no time for another"
            why.add_note(f"attempt {self.number} of {self._retry.attempts}{before}{time}")
            return None
        endpoint = getattr(why, "endpoint", None)
        self._before.append(type(why).__name__ + (f" ({endpoint})" if endpoint else ""))
        self.number += 1
        return pause


def ask(
    endpoint: Asking,
    type: str,
    payload: object,
    deadline: Deadline,
    reply_type: Any,
    retry: Retry,
) -> Message:
    """Make a request, and again as `retry` says."""
    attempts = Attempts(check_retry(retry), deadline)
    while True:
        try:
            return endpoint._requests.ask_once(type, payload, deadline, reply_type, attempts.number)
        except retry.on as why:
            pause = attempts.pause(why)
            if pause is None:
                raise
        if endpoint._done.wait(pause):
            raise errors.EndpointClosed(endpoint=endpoint.name)


def check_retry(retry: object) -> Retry:
    """What was given as `retry=`. Raises `InvalidSetting`."""
    if isinstance(retry, Retry):
        return retry
    raise _refused("retry", retry, "it is no Retry", "Give such as shmbus.Retry(attempts=3)")


def _refused(setting: str, value: object, reason: str, remedy: str) -> errors.InvalidSetting:
    return errors.InvalidSetting(setting=setting, value=value, reason=reason, remedy=remedy)
