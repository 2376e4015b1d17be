"""Which of the messages that a tap sees are wanted: by kind, source, target, time and outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

import click
from shmbus_console.options import complete_endpoint, seconds_option

from shmbus import Endpoint, Message, Tap

KINDS = ("event", "send", "request", "reply", "part", "end", "error")
_REQUESTS = 10_000  # whose times are kept until their replies come

F = TypeVar("F", bound=Callable[..., Any])


class Passed(NamedTuple):
    """A message that passed between others."""

    message: Message[Any]
    tap: Tap
    took: float | None
    """Seconds that the bus took, and where it comes from another site, the way from there; None
    where it is one of the bus's own events."""
    after: float | None
    """Of a reply: seconds since its request; None where the tap has not seen that."""
    after_error: float | None = None
    """By how many seconds ``after`` may be wrong; None: it is exact."""

    @property
    def failed(self) -> bool:
        """Whether it is the account of a failure, or did not arrive. Most of the bus's own events
        are for nobody, and that is as it should be."""
        type = self.message.type
        if self.tap.kind == "error" or type == "$bus.undeliverable":
            return True
        if self.tap.outcome == "nobody":
            return not type.startswith("$")
        return self.tap.outcome != "delivered"


class Filter:
    """Which of them are wanted; all, where nothing is said."""

    def __init__(
        self,
        kinds: Sequence[str] = (),
        sources: Sequence[str] = (),
        targets: Sequence[str] = (),
        slower: float | None = None,
        failed: bool = False,
    ) -> None:
        self._kinds = frozenset(kinds)
        self._sources, self._targets = sources, targets
        self._slower, self._failed = slower, failed
        self._requested: dict[Any, tuple[int, int | None]] = {}  # when, and how well that is known
        self.all = not (kinds or sources or targets or failed) and slower is None
        """Whether all are wanted."""

    def passed(self, message: Message[Any]) -> Passed | None:
        """What passed; None where it is not wanted."""
        if (tap := message.tap) is not None:
            took = (tap.forwarded_ns - tap.sent_ns) / 1e9
            passed = Passed(message, tap, took, *self._since_request(message, tap))
        else:
            passed = Passed(message, _of_the_bus(message), None, None)
        return passed if self.all or self._wants(passed) else None

    def _wants(self, passed: Passed) -> bool:
        source, target = passed.message.source, passed.tap.target
        if self._kinds and passed.tap.kind not in self._kinds:
            return False
        if self._sources and not _named(source, self._sources):
            return False
        if self._targets and (target is None or not _named(target, self._targets)):
            return False
        if self._failed and not passed.failed:
            return False
        seconds = passed.took if passed.after is None else passed.after
        return self._slower is None or (seconds or 0.0) > self._slower

    def _since_request(self, message: Message[Any], tap: Tap) -> tuple[float | None, float | None]:
        """And by how much that may be wrong."""
        if tap.kind in ("event", "send") or message.correlation_id is None:
            return None, None
        if tap.kind == "request":
            self._requested[message.correlation_id] = tap.sent_ns, message.sent_error_ns
            if len(self._requested) > _REQUESTS:
                self._requested.pop(next(iter(self._requested)))
            return None, None
        take = self._requested.get if tap.kind == "part" else self._requested.pop
        if (asked := take(message.correlation_id, None)) is None:
            return None, None
        sent, error = asked
        return (tap.forwarded_ns - sent) / 1e9, None if error is None else error / 1e9


def _of_the_bus(message: Message[Any]) -> Tap:
    sent = message.sent_ns
    return Tap(kind=message.kind, outcome="delivered", target=None, sent_ns=sent, forwarded_ns=sent)


def watch(endpoint: Endpoint, patterns: Sequence[str]) -> None:
    """Have copies of what passes and matches. The bus's own events, of which a tap gets none, are
    subscribed to."""
    for pattern in patterns:
        if pattern.startswith("$"):
            endpoint.subscribe(pattern, overflow="drop_newest")
        else:
            endpoint.tap(pattern)


def _named(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def filter_options(command: F) -> F:
    """The options of a command that taps; it gets them as keywords of `Filter`."""
    for option in (
        click.option(
            "--failed",
            is_flag=True,
            help="Only failures: errors instead of replies, what nobody got, was lost or came too "
            "late, and dead letters (PATTERN '$bus.undeliverable').",
        ),
        seconds_option(
            "--slower",
            help="Only what took longer: the bus, or of a reply, the time since its request.",
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            metavar="NAME",
            shell_complete=complete_endpoint,
            help="Only what goes to this endpoint, likewise.",
        ),
        click.option(
            "--source",
            "sources",
            multiple=True,
            metavar="NAME",
            shell_complete=complete_endpoint,
            help="Only what comes from this endpoint; worker-* is a pattern. Repeatable.",
        ),
        click.option(
            "--kind",
            "kinds",
            multiple=True,
            type=click.Choice(KINDS),
            help="Only this kind. Repeatable.",
        ),
    ):
        command = option(command)
    return command
