"""Errors: one tree; each carries its facts, names the remedy, and can be pickled."""

from __future__ import annotations

import copy
import inspect
import pickle
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmbus
from shmbus import errors
from shmbus.errors import BusError
from shmbus.shared import failures
from shmbus.shared.layout import FaultCode

FACTS: dict[str, object] = {
    "task": "futures",
    "bus": "symphony",
    "name": "indexer",
    "endpoint": "indexer",
    "group": "workers",
    "key": "order.{*}.>",
    "what": "endpoint",
    "type": "buffer.12.changed",
    "pattern": "buffer.*",
    "payload_type": "Query",
    "kind": "event",
    "ring": "data",
    "feature": "fork",
    "setting": "out_bytes",
    "value": 5,
    "reason": "it was killed",
    "remedy": "Do something else",
    "error": "builtins.ValueError",
    "message": "no such thing",
    "traceback": "  File 'a.py', line 1",
    "hint": "no thread is free",
    "mine": "1",
    "theirs": "2",
    "pid": 4711,
    "pids": (4711, 4712),
    "process": "indexer",
    "running": ("other",),
    "there": ("other",),
    "seconds": 1.25,
    "silent": 3.5,
    "removed": False,
    "begun": False,
    "limit": 1000,
    "size": 2000,
    "free": 300,
    "depth": 900,
    "capacity": 1024,
    "position": 64,
    "receivers": 2,
    "found": 1,
    "left": 7,
    "index": 3,
    "correlation_id": UUID(int=5),
    "inherited": None,
    "sent": True,
    "dispatcher": None,
    "stopped": False,
    "holders": (("slow", 2000),),
    "largest": 4096,
    "total": False,
    "pools": (("camera", 8192),),
    "payloads": 0,
    "variable": "",
    "reconnect": "",
    "service": "calc",
    "method": "add",
    "closed": False,
    "space": "lan",
    "site": "berlin",
    "run": "0123456789abcdef",
    "enough": True,
    "wanted": 3,
    "replies": 1,
    "parts": 0,
    "results": {},
    "right": "publish",
    "granted": ("buffer.>",),
    "pool": "frames",
    "queue": "shmbus:0::queue:1",
    "signal": "SIGKILL",
    "code": None,
}


GROUPS: dict[type[BusError], str] = {
    errors.NotAccepted: "QueueFull RequestsFull MessageTooLarge EncodeError",
    errors.PeerFailed: "NoRoute RequestTimeout HandlerTimeout EndpointDied RemoteError ReplyLost "
    "InvalidArguments CorrelationCollision Withdrawn TooFewReplies DecodeError InvalidResult "
    "WaitTimeout WorkerDied TaskTimeout PoolBroken",
    errors.Disconnected: "BusDown EndpointClosed Evicted RingCorrupt ViewClosed SupervisorClosed "
    "LinkClosed",
    errors.SetupError: "NoSuchBus AttachTimeout NameTaken BusFull LayoutMismatch Refused BusExists "
    "SegmentError NotSupported NoResource NoThread LinkFailed SiteTaken "
    "QueueGone",
    errors.UsageError: "InvalidName InvalidType InvalidPattern InvalidSetting InvalidPayloadType "
    "InvalidService HandlerConflict ReceiveConflict TooManyGroups TooManyMailboxes GroupConflict "
    "NotARequest AlreadyReplied PayloadReleased CannotNack NoSuchEndpoint InvalidProcess "
    "NoSuchProcess NoSuchSite ForkedEndpoint WrongLoop QueueClosed",
    BusError: "DrainTimeout Forbidden",  # in no group
}


def descendants(cls: type[BusError]) -> list[type[BusError]]:
    return [d for c in cls.__subclasses__() for d in (c, *descendants(c))]


LEAVES = [c for c in descendants(BusError) if "_explain" in vars(c)]  # those that are raised


GROUP_OF = {getattr(errors, name): group for group in GROUPS for name in GROUPS[group].split()}


def make(cls: type[BusError]) -> BusError:
    names = inspect.signature(cls).parameters
    return cls(**{name: FACTS[name] for name in names})


@pytest.mark.smoke
def test_every_error_has_its_group() -> None:
    assert set(GROUP_OF) == set(LEAVES)


@pytest.mark.parametrize("cls", LEAVES, ids=lambda c: c.__name__)
def test_who_catches_a_group_catches_its_members_and_no_others(cls: type[BusError]) -> None:
    with pytest.raises(GROUP_OF[cls]):
        raise make(cls)
    assert [group for group in GROUPS if group is not BusError and issubclass(cls, group)] == [
        group for group in (GROUP_OF[cls],) if group is not BusError
    ]


def test_whatever_ends_a_request_without_its_reply_is_a_request_error() -> None:
    ends = "NoRoute RequestTimeout HandlerTimeout EndpointDied RemoteError ReplyLost"
    ends += " InvalidArguments CorrelationCollision Withdrawn TooFewReplies WorkerDied"
    assert {getattr(errors, name) for name in ends.split()} == set(descendants(errors.RequestError))


def test_whatever_keeps_out_an_endpoint_is_an_attach_error() -> None:
    kept = "NoSuchBus AttachTimeout NameTaken BusFull LayoutMismatch Refused"
    assert {getattr(errors, name) for name in kept.split()} == set(descendants(errors.AttachError))


def test_the_top_level_offers_the_groups_and_what_is_caught_by_name() -> None:
    offered = {name for name in shmbus.__all__ if hasattr(errors, name)}
    assert offered == {group.__name__ for group in GROUPS} | {
        "AttachTimeout", "BusDown", "EndpointDied", "Forbidden", "HandlerTimeout", "NoRoute",
        "PoolBroken", "QueueFull",
        "RemoteError", "RequestTimeout", "TaskTimeout", "WorkerDied",
    }  # fmt: skip
    assert len(shmbus.__all__) <= 52
    for name in offered:
        assert getattr(shmbus, name) is getattr(errors, name)


@pytest.mark.parametrize("cls", LEAVES, ids=lambda c: c.__name__)
def test_an_error_keeps_its_facts_and_names_them(cls: type[BusError]) -> None:
    error = make(cls)
    assert error.data == {name: FACTS[name] for name in inspect.signature(cls).parameters}
    text = str(error)
    for name, value in error.data.items():
        assert getattr(error, name) == value
        if name in ("endpoint", "type", "limit", "setting", "bus", "name", "pattern", "reason"):
            assert str(value) in text
    if "seconds" in error.data:
        assert "1.25 s" in text


@pytest.mark.parametrize("cls", LEAVES, ids=lambda c: c.__name__)
def test_an_error_says_what_to_do(cls: type[BusError]) -> None:
    what_happened, _, what_to_do = str(make(cls)).rpartition(". ")
    assert what_happened
    assert what_to_do[0].isupper()


@pytest.mark.parametrize("cls", LEAVES, ids=lambda c: c.__name__)
def test_an_error_needs_only_its_required_facts(cls: type[BusError]) -> None:
    required = {
        name: FACTS[name]
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    assert "None" not in str(cls(**required)).replace("(None)", "")


@pytest.mark.parametrize("cls", LEAVES, ids=lambda c: c.__name__)
def test_an_error_can_be_pickled_and_copied(cls: type[BusError]) -> None:
    error = make(cls)
    error.add_note("seen at night")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is cls
        assert str(other) == str(error)
        assert other.data == error.data
        assert other.__notes__ == ["seen at night"]


def test_an_error_of_the_users_own_can_be_raised_from_the_root() -> None:
    error = BusError("my own words")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "my own words"
    assert error.data == {}


def test_facts_are_given_by_name_and_all_of_them() -> None:
    with pytest.raises(TypeError):
        errors.EndpointClosed("indexer")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        errors.EndpointClosed()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "cls",
    [
        errors.AttachTimeout,
        errors.RequestTimeout,
        errors.HandlerTimeout,
        errors.WaitTimeout,
        errors.DrainTimeout,
    ],
)
def test_whatever_took_too_long_is_a_timeout_error(cls: type[BusError]) -> None:
    with pytest.raises(TimeoutError, match=r"1\.25 s"):
        raise make(cls)


@pytest.mark.parametrize(
    "cls", [errors.InvalidName, errors.InvalidType, errors.InvalidPattern, errors.InvalidSetting]
)
def test_whatever_is_malformed_is_a_value_error(cls: type[BusError]) -> None:
    assert issubclass(cls, ValueError)


def test_attach_timeout_tells_a_missing_dispatcher_from_a_silent_one() -> None:
    missing = errors.AttachTimeout(bus="symphony", seconds=5.0)
    assert "no dispatcher within 5 s" in str(missing)
    silent = errors.AttachTimeout(bus="symphony", seconds=5.0, pid=12, silent=4.2)
    assert "dispatcher 12 is alive, its control plane has not run for 4.2 s" in str(silent)
    removed = errors.AttachTimeout(bus="symphony", seconds=5.0, pid=12, removed=True)
    assert "its dispatcher 12 is alive" in str(removed)
    assert "removed its names" in str(removed)


@pytest.mark.parametrize(
    "error",
    [
        errors.RequestTimeout(type="x", seconds=5.0, dispatcher=12, silent=4.2),
        errors.QueueFull(
            type="x", endpoint="e", depth=9, capacity=9, seconds=5.0, dispatcher=12, silent=4.2
        ),
    ],
)
def test_a_dispatcher_that_hangs_is_named_with_what_to_do(error: BusError) -> None:
    assert "dispatcher 12 hangs and has forwarded nothing for 4.2 s" in str(error)
    assert str(error).endswith("See what blocks that process: py-spy dump --pid 12")
    assert "Wait longer" not in str(error)


def test_no_such_bus_lists_those_that_run() -> None:
    assert "no bus runs" in str(errors.NoSuchBus(bus=None))
    assert "several buses run on this machine: a, b" in str(
        errors.NoSuchBus(bus=None, running=("a", "b"))
    )
    assert "Name the one that you mean, or" in str(errors.NoSuchBus(bus=None, running=("a", "b")))
    assert "running: a" in str(errors.NoSuchBus(bus="x", running=("a",)))


def test_an_error_in_a_batch_says_which_message() -> None:
    error = errors.EncodeError(type="a.b", reason="no way", index=7)
    assert str(error).startswith("message 7 of the batch: ")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (FaultCode.NO_ROUTE, errors.NoRoute(type="a.b")),
        (FaultCode.ENDPOINT_DIED, errors.EndpointDied(type="a.b", endpoint="e", pid=7)),
        (
            FaultCode.TOO_LARGE,
            errors.MessageTooLarge(type="a.b", endpoint="e", size=9, limit=8, setting="in_bytes"),
        ),
        (
            FaultCode.COLLISION,
            errors.CorrelationCollision(type="a.b", correlation_id=UUID(int=5)),
        ),
    ],
)
def test_an_error_record_becomes_its_error(code: FaultCode, expected: BusError) -> None:
    error = failures.from_code(
        code, type="a.b", endpoint="e", pid=7, size=9, limit=8, correlation_id=UUID(int=5)
    )
    assert type(error) is type(expected)
    assert error.data == expected.data


def test_a_lost_reply_says_what_would_have_fitted() -> None:
    error = failures.from_code(FaultCode.REPLY_LOST, type="a.b", endpoint="e", limit=100)
    assert isinstance(error, errors.ReplyLost)
    assert "at most 100 bytes" in str(error)


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def test_a_handlers_exception_arrives_with_type_message_and_traceback() -> None:
    payload = failures.encode_failure(ValueError("no \ud800 such"), "Traceback: here")
    error = failures.remote_error("a.b", "e", payload)
    assert isinstance(error, errors.RemoteError)
    assert (error.error, error.message) == ("ValueError", "no \\ud800 such")
    assert "Remote traceback:\nTraceback: here" in str(error)


def test_an_exception_that_cannot_tell_its_message_is_an_answer_all_the_same() -> None:
    failure = msgspec.msgpack.decode(failures.encode_failure(Odd()), type=failures.RemoteFailure)
    assert failure.error == f"{__name__}.Odd"
    assert "RuntimeError" in failure.message


@given(st.text(), st.text(), st.integers(256, 4096))
def test_a_long_account_is_cut_to_the_limit_and_keeps_its_end(
    message: str, traceback: str, limit: int
) -> None:
    payload = failures.encode_failure(ValueError(message * 50), traceback * 50, limit=limit)
    assert len(payload) <= limit + 32
    failure = msgspec.msgpack.decode(payload, type=failures.RemoteFailure)
    assert (traceback * 50).endswith(failure.traceback)


@given(st.integers(), st.binary())
def test_a_garbled_error_record_still_ends_the_request(code: int, payload: bytes) -> None:
    assert isinstance(failures.from_code(code, type="a.b", endpoint="e"), BusError)
    assert isinstance(failures.remote_error("a.b", "e", payload), BusError)


def test_who_is_forbidden_learns_each_place_where_a_grant_is_given() -> None:
    told = str(errors.Forbidden(endpoint="plug", right="publish", type="made.one"))
    for place in ("serve(grants=...)", "grant of its Process", "[process.NAME]"):
        assert place in told
