"""How an endpoint's interests change: each change is written to its log, and the dispatcher routes
by it before the call returns."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from shmbus import errors
from shmbus.limits import KEYED_GROUPS, OWN_MATCHINGS
from shmbus.services.serving import Operation
from shmbus.shared import keys, layout, names, patterns
from shmbus.shared.grants import NEEDS
from shmbus.shared.layout import InterestFlag, InterestRole
from shmbus.shared.signals import uninterrupted
from shmbus.views.groups import keyed_groups
from shmbus.views.interest_log import ROLES

from . import payloads
from ._kernel import EndpointCore, Gate, Late, Message
from .interest_log import Entry
from .interests import Callback, Interests, LocalInterest, MailState
from .mailboxes import check_overflow, none_left, not_made
from .trouble import conflict

if TYPE_CHECKING:
    from .ending import Ending
    from .runners import Runners
    from .seat import Seat
    from .trouble import Explanations

OnError = Literal["drop", "retry"]
"""What a callback that raises does to a group's message."""

CONFIRM = 5.0
"""Seconds that subscribe() and handle() wait for a dispatcher that is there to route by them."""

MOMENT = 0.02
"""And so many where they would hold up an event loop: a dispatcher that has none to spare reads the
log of interests later, and so does the next one."""


class Subscription:
    """What `subscribe` and `on_death` return; `close` ends it. A context manager.

    `pattern`: what was subscribed to, or the name of the endpoint that is watched.
    `group`: the group that was given, or None.
    """

    def __init__(self, pattern: str, group: str | None, close: Callable[[], object]) -> None:
        self.pattern = pattern
        self.group = group
        self._closer = close

    def close(self) -> None:
        """End it: when this returns, no more messages are sent here for it. Those of a group that
        are here and not begun are counted among the handler errors (`drain` or `close` of the
        endpoint loses none). Harmless if done before."""
        closer, self._closer = self._closer, _nothing
        closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _nothing() -> None:
    pass


class Subscribing:
    """Adds and removes interests of one endpoint, one thread at a time."""

    def __init__(
        self,
        seat: Seat,
        endpoint: EndpointCore,
        explanations: Explanations,
        interests: Interests,
        runners: Runners,
        ending: Ending,
    ) -> None:
        self._seat, self._endpoint, self._explanations = seat, endpoint, explanations
        self._interests, self._runners, self._ending = interests, runners, ending
        self._lock = threading.RLock()
        self._ids = count(1)
        self._notes: dict[str, tuple[int, bytes]] = {}
        self.loop_thread: int | None = None
        """Of an endpoint in an event loop: the thread that may wait but a moment."""

    def subscribe(
        self,
        pattern: str,
        callback: Callback | None,
        *,
        group: str | None,
        key: str | None,
        overflow: patterns.Overflow,
        depth: int | None,
        history: int,
        payload_type: Any,
        on_error: OnError,
        limit: float | None,
        gate: Gate | None = None,
    ) -> Subscription:
        patterns.check_pattern(pattern)
        check_callable(callback, pattern, asynchronous=gate is not None)
        _check_limit(limit, callback)
        depth = check_overflow(overflow, depth, group=group)
        check_on_error(on_error, group, callback)
        check_history(history, pattern, group)
        if group is not None:
            names.check_group(group)
        mask = _check_key(key, pattern, group)
        if callback is None and self._runners.threads:
            raise conflict(
                self._seat.name,
                "it is inside run(), which needs a callback for every subscription",
            )
        payload_type = self._decodable(payload_type, callback)
        with self._lock:
            number = next(self._ids)
            interest = LocalInterest(
                id=number,
                role=InterestRole.SUBSCRIBE,
                pattern=pattern,
                bit=0
                if group is None
                else self._interests.bit(group, self._endpoint._work_in_hand()),
                flags=patterns.OVERFLOWS[overflow],
                group=group or "",
                history=history,
                depth=depth,
                key=mask,
                function=callback,
                payload_type=payload_type,
                retry=on_error == "retry",
                limit=limit,
                gate=gate,
                late=Late(id=number) if history else None,
            )
            return self._add(self._with_mailbox(interest) if depth else interest)

    def _with_mailbox(self, interest: LocalInterest) -> LocalInterest:
        """Raises `TooManyMailboxes`."""
        connection, gate = self._endpoint._connection, interest.gate
        connection.require()
        yielded = gate is not None and interest.function is None
        state = MailState.ASKED if yielded else MailState.TAKEN
        index = connection.begin_mailbox(interest.id, state)
        if index is None:
            raise none_left(self._seat.name, interest.pattern)
        if gate is not None:
            gate.mailbox = index
        return msgspec.structs.replace(interest, mailbox=index)

    def _map_mailbox(self, interest: LocalInterest, *, made: bool) -> None:
        """Raises `TooManyMailboxes`, `SegmentError`. Unless `made`, the next dispatcher does."""
        connection = self._endpoint._connection
        connection.map_mailboxes()
        why = connection.mailbox(interest.mailbox)
        if made and why is not None:
            raise not_made(why, self._seat.name, interest.pattern)

    def tap(self, pattern: str) -> Subscription:
        patterns.check_pattern(pattern)
        if pattern.startswith("$"):
            raise errors.InvalidSetting(
                setting="pattern",
                value=pattern,
                reason="a tap does not see the bus's own events",
                remedy=f"Subscribe to them: ep.subscribe({pattern!r})",
            )
        if self._runners.threads:
            raise conflict(
                self._seat.name,
                "it is inside run(), and a tap is read by iteration or receive()",
            )
        with self._lock:
            return self._add(
                LocalInterest(id=next(self._ids), role=InterestRole.OBSERVE, pattern=pattern)
            )

    def on_match(
        self, pattern: str, callback: object, told: Callback, *, gate: Gate | None = None
    ) -> Subscription:
        """`told`: what is called for what the dispatcher tells."""
        patterns.check_pattern(pattern)
        if callback is None:
            raise TypeError(f"nothing is to be called for {pattern!r}: give a callback")
        check_callable(callback, pattern, asynchronous=gate is not None)
        with self._lock:
            if sum(each.role == InterestRole.MATCH for each in self._interests) >= OWN_MATCHINGS:
                raise errors.InvalidSetting(
                    setting="pattern",
                    value=pattern,
                    reason=f"endpoint {self._seat.name!r} is told of {OWN_MATCHINGS} patterns",
                    remedy="Let fewer patterns cover more types, or attach a second endpoint",
                )
            return self._add(
                LocalInterest(
                    id=next(self._ids),
                    role=InterestRole.MATCH,
                    pattern=pattern,
                    function=told,
                    gate=gate,
                )
            )

    def handle(
        self,
        pattern: str,
        function: Callback,
        *,
        payload_type: Any,
        redeliver: bool,
        limit: float | None,
        gate: Gate | None = None,
    ) -> Subscription:
        patterns.check_pattern(pattern)
        check_callable(function, pattern, asynchronous=gate is not None, handles=True)
        _check_limit(limit, function)
        payload_type = self._decodable(payload_type, function)
        with self._lock:
            self._check_unhandled(pattern)
            return self._add(
                LocalInterest(
                    id=next(self._ids),
                    role=InterestRole.HANDLE,
                    pattern=pattern,
                    flags=InterestFlag.REDELIVER if redeliver else 0,
                    function=function,
                    payload_type=payload_type,
                    limit=limit,
                    gate=gate,
                )
            )

    def offer(
        self,
        service: str,
        operations: Sequence[Operation],
        *,
        redeliver: bool,
        limit: float | None,
        gate: Gate | None = None,
    ) -> Subscription:
        for each in operations:
            _check_limit(limit, each.handler)
            self._seat.codec.decoder(each.arguments)
        with self._lock:
            for each in operations:
                self._check_unhandled(each.type)
            interests = [
                LocalInterest(
                    id=next(self._ids),
                    role=InterestRole.HANDLE,
                    pattern=each.type,
                    flags=InterestFlag.REDELIVER if redeliver else 0,
                    function=each.handler,
                    payload_type=each.arguments,
                    limit=limit,
                    description=each.description,
                    gate=gate if each.asynchronous else None,
                )
                for each in operations
            ]
            return self._add(*interests, name=service)

    def _check_unhandled(self, pattern: str) -> None:
        if self._interests.handled(pattern):
            raise errors.HandlerConflict(endpoint=self._seat.name, pattern=pattern)

    def _add(self, *interests: LocalInterest, name: str | None = None) -> Subscription:
        """Add them all, or none. `name`: of all together."""
        self._endpoint._connection.require()
        if self._ending.begun:
            raise errors.EndpointClosed(endpoint=self._seat.name)
        try:
            with uninterrupted():  # half an addition could not be taken back
                for each in interests:
                    self._interests.add(each)
            self.forget_callbacks()
            if any(each.key for each in interests):
                self._endpoint._connection.watch_tail()
            made = self._change([Entry.adding(each) for each in interests])
            self._check_refused(interests)
            for each in interests:
                if each.mailbox >= 0:
                    self._map_mailbox(each, made=made)
            if any(each.function is not None for each in interests):
                self._runners.expect()
        except BaseException:
            for each in interests:
                self._interests.discard(each)
            self.forget_callbacks()
            with contextlib.suppress(Exception):
                self._write([Entry.removing(each.id) for each in interests])
            self._close_mailboxes(interests)
            raise
        first = interests[0]
        return Subscription(
            name or first.pattern, first.group or None, lambda: self._remove(interests)
        )

    def _check_refused(self, interests: Sequence[LocalInterest]) -> None:
        """Raises `Forbidden`, `GroupConflict`."""
        for each in interests:
            for right in NEEDS[ROLES[each.role]]:
                self._explanations.look_at_grant(right, each.pattern)
            why = each.group and self._endpoint._connection.refused(each.id)
            if not why:
                continue
            bus = layout.view(self._seat.bus, layout.BUS)[0]
            theirs = {group.name: group.key for group in keyed_groups(bus)}
            raise errors.GroupConflict(
                endpoint=self._seat.name,
                group=each.group,
                key=keys.text_of(each.pattern, each.key) if each.key else None,
                theirs=theirs.get(each.group),
                limit=KEYED_GROUPS if why == layout.Refusal.FULL else None,
            )

    def _remove(self, interests: Sequence[LocalInterest]) -> None:
        with self._lock:
            forked = self._endpoint._connection.forked()
            there = [each for each in interests if each in self._interests]
            if self._ending.closed or forked or not there:
                return
            for each in there:
                self._interests.discard(each)
            try:
                # Without a dispatcher nobody routes by it, and the next one reads the log.
                with contextlib.suppress(errors.BusDown, errors.Evicted, errors.EndpointClosed):
                    self._change([Entry.removing(each.id) for each in there])
            finally:
                self.forget_callbacks()
                self._close_mailboxes(there)

    def _close_mailboxes(self, interests: Sequence[LocalInterest]) -> None:
        for each in interests:
            if each.mailbox >= 0:
                self._endpoint._connection.close_mailbox(each.mailbox)

    def note(self, key: str, text: bytes | None) -> None:
        """What observers read of this endpoint beside its interests, in place of what was noted
        under that key before; None: nothing any more."""
        with self._lock:
            self._endpoint._connection.require_own()
            known = self._notes.get(key)
            if text is not None:
                number = next(self._ids) if known is None else known[0]
                self._notes[key] = number, text
                version = self._write([Entry.noting(number, text)])
            elif known is not None:
                del self._notes[key]
                version = self._write([Entry.removing(known[0])])
            else:
                return
            if self._seat.log.replaced:
                self._await(version)

    def _change(self, entries: Sequence[Entry]) -> bool:
        """Whether the dispatcher routes by it."""
        return self._await(self._write(entries))

    def _await(self, version: int) -> bool:
        """Likewise."""
        brief = threading.get_ident() == self.loop_thread
        limit = MOMENT if brief else CONFIRM
        if self._endpoint._connection.await_interests(version, limit, patient=not brief):
            self._seat.log.drop_old()  # the dispatcher has opened the new one
            return True
        if not brief:
            raise self._explanations.no_answer(CONFIRM)
        return False

    def _write(self, entries: Sequence[Entry]) -> int:
        """Write them to the log; returns the version that has them."""
        serial = self._seat.log.write(entries, self._active)
        return self._endpoint._connection.commit_interests(serial)

    def _active(self) -> list[Entry]:
        """All that the log is to have."""
        interests = [Entry.adding(each) for each in self._interests]
        return interests + [Entry.noting(*note) for note in self._notes.values()]

    def forget_callbacks(self) -> None:
        """What is called for a message is to be found anew."""
        self._endpoint._forget_callbacks(redelivers=self._interests.redeliver)

    def _decodable(self, payload_type: Any, function: Callback | None) -> Any:
        """The payload type that was given, else the one that a callback's annotation names. Raises
        `InvalidPayloadType`."""
        if payload_type is None and function is not None:
            payload_type = payloads.annotated_type(function, {"Message": Message})
        if payload_type is not None:
            self._seat.codec.decoder(payload_type)
        return payload_type


def _check_limit(limit: object, function: Callback | None) -> None:
    if limit is None:
        return
    remedy = "Give the seconds that it may take, or None"
    if function is None:
        reason, remedy = "there is no callback that could take so long", "Give a callback"
    elif not isinstance(limit, int | float):
        reason = f"it is of type {type(limit).__name__}"
    elif not limit > 0:
        reason = "whatever is called takes longer"
    else:
        return
    raise errors.InvalidSetting(setting="limit", value=limit, reason=reason, remedy=remedy)


def _check_key(key: str | None, pattern: str, group: str | None) -> int:
    """The tokens of the key, a bit each; 0: there is none. Raises `InvalidSetting`."""
    if key is None:
        return 0
    mask = keys.mask_of(key, pattern)
    if group is None:
        raise errors.InvalidSetting(
            setting="key",
            value=key,
            reason="only members of a group share messages by their keys",
            remedy="Give a group=",
        )
    return mask


def check_on_error(on_error: OnError, group: str | None, callback: Callback | None) -> None:
    """Raises `InvalidSetting`."""
    if on_error not in ("drop", "retry"):
        reason, remedy = "there is no such way", "Give 'drop' or 'retry'"
    elif on_error == "drop" or (group is not None and callback is not None):
        return
    elif group is None:
        reason, remedy = "nobody else could try a message of no group", "Give a group="
    else:
        reason = "there is no callback that could raise"
        remedy = "Give a callback, or call message.nack() where you receive"
    raise errors.InvalidSetting(setting="on_error", value=on_error, reason=reason, remedy=remedy)


def check_history(history: object, pattern: str, group: str | None) -> None:
    """Raises `InvalidSetting`."""
    remedy = "Leave it out"
    if not isinstance(history, int) or isinstance(history, bool) or not 0 <= history < 1 << 32:
        reason, remedy = "no such number", "Give how many values of each type it is to get, or 0"
    elif not history:
        return
    elif group is not None:
        reason = "the members of a group share what comes, and nobody could say whose the past is"
        remedy += ", or subscribe without group="
    elif pattern.startswith("$"):
        reason = "the bus keeps none of its own events"
    else:
        return
    raise errors.InvalidSetting(setting="history", value=history, reason=reason, remedy=remedy)


def check_callable(
    function: object, what: str, *, asynchronous: bool = False, handles: bool = False
) -> None:
    """Raises `TypeError` or `InvalidSetting` now, instead of when the first message comes.
    `asynchronous`: an event loop awaits what it returns. `handles`: what it yields is its reply."""
    if function is None:
        return
    if not callable(function):
        raise TypeError(f"the callback for {what!r} is not callable: {function!r}")
    for each in (function, getattr(function, "__call__", None)):  # noqa: B004
        parts = inspect.isasyncgenfunction(each)
        if (inspect.isgeneratorfunction(each) or parts) and not handles:
            raise errors.InvalidSetting(
                setting="callback",
                value=function,
                reason=f"it is to be called for {what!r} and yields: nothing would iterate over it",
                remedy="Let it do its work without yield, or handle() requests of that type",
            )
        if (inspect.iscoroutinefunction(each) or parts) and not asynchronous:
            raise errors.InvalidSetting(
                setting="callback",
                value=function,
                reason=f"it is to be called for {what!r} and is async: nothing would run it",
                remedy="Attach by shmbus.aio.attach() in the event loop, or give a plain function. "
                "One that needs a loop calls "
                "asyncio.run_coroutine_threadsafe(work(message), loop); for a request, it calls "
                "message.defer() first, and work() answers with message.reply()",
            )
