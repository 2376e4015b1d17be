"""A handler may take so long and no longer: its caller is told, whatever it does then."""

from __future__ import annotations

import ctypes
import pickle
import threading
from typing import Any

import pytest

import shmbus
from shmbus import HandlerTimeout, errors, events, views
from shmbus.testing import Attach, MakeRecorder, StartWorker, eventually

NEVER = threading.Event()


def hang_in_c(endpoint: shmbus.Endpoint, limit: float) -> None:
    """Holds the GIL for ever: not even another thread of this process can do anything."""

    @endpoint.handle("hang", limit=limit)
    def hang(message: shmbus.Message) -> None:
        ctypes.PyDLL(None).pause()

    endpoint.run()


def limits_itself(endpoint: shmbus.Endpoint) -> None:
    """Its handler learns from the message how long it may take, then holds the GIL for ever."""

    @endpoint.handle("hang")
    def hang(message: shmbus.Message[float]) -> None:
        message._limit(message.payload)
        ctypes.PyDLL(None).pause()

    endpoint.run()


def work(endpoint: shmbus.Endpoint, limit: float) -> None:
    """Hangs at the first job that says so; a second worker does all others."""

    def job(message: shmbus.Message) -> str:
        if message.payload == "hang":
            NEVER.wait()
        return endpoint.name

    endpoint.handle("job", job, limit=limit)
    endpoint.run()


def overdue_of(bus: shmbus.Bus, name: str = "server") -> list[views.Overdue]:
    return [late for e in bus.endpoints() if e.name == name for late in e.overdue]


@pytest.mark.smoke
def test_the_caller_of_a_handler_that_takes_too_long_is_told(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client, go_on = attach("server"), attach("client"), threading.Event()

    def slow(message: shmbus.Message) -> str:
        go_on.wait(60)
        return "late"

    assert server.handle("slow", slow, limit=0.05) is slow
    server.start()
    with pytest.raises(HandlerTimeout) as caught:
        client.request("slow", timeout=None)
    why = caught.value
    assert isinstance(why, errors.RequestError)
    assert isinstance(why, TimeoutError)
    assert (why.endpoint, why.pid, why.type) == ("server", bus.find("slow")[0].pid, "slow")
    assert 0.05 <= why.seconds < 60
    assert "handle(limit=" in str(why)
    assert "'slow'" in str(why)
    assert "'server'" in str(why)
    again = pickle.loads(pickle.dumps(why))
    assert (again.seconds, str(again)) == (why.seconds, str(why))

    [late] = overdue_of(bus)
    assert (late.type, late.kind, late.limit) == ("slow", "request", 0.05)
    assert late.seconds >= 0.05
    assert bus.find("slow")[0].condition == "overdue"
    health = bus.health()
    assert health.state == "degraded"
    assert any("overdue" in reason and "'slow'" in reason for reason in health.reasons)

    orphans = health.orphans
    go_on.set()
    eventually(lambda: bus.health().orphans == orphans + 1)  # its reply comes too late
    eventually(lambda: not overdue_of(bus))
    assert bus.find("slow")[0].condition in ("idle", "busy")
    assert bus.find("slow")[0].overruns == 1
    assert client.request("slow", timeout=60).payload == "late"  # it goes on


def test_who_returns_in_time_is_never_overdue(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")

    @server.handle("quick", limit=60)
    def quick(message: shmbus.Message[int]) -> int:
        return 2 * message.payload

    server.start(threads=3)
    replies = [client.request_async("quick", number, timeout=60) for number in range(300)]
    assert [reply.result().payload for reply in replies] == [2 * n for n in range(300)]
    assert bus.find("quick")[0].overruns == 0
    assert not overdue_of(bus)


def test_a_handler_that_hangs_in_c_and_holds_the_gil(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    hung, client = worker(hang_in_c, 0.1, name="server"), attach("client")
    client.wait_for("hang", timeout=60)
    with pytest.raises(HandlerTimeout) as caught:
        client.request("hang", timeout=None)
    assert caught.value.pid == hung.pid
    assert [late.type for late in overdue_of(bus)] == ["hang"]
    hung.kill()


def test_a_handler_that_has_limited_itself_and_hangs(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    hung, client = worker(limits_itself, name="server"), attach("client")
    client.wait_for("hang", timeout=60)
    with pytest.raises(HandlerTimeout) as caught:
        client.request("hang", 0.05, timeout=None)
    assert (caught.value.endpoint, caught.value.pid) == ("server", hung.pid)
    assert caught.value.seconds >= 0.05
    hung.kill()


def test_the_limit_of_one_message_ends_with_its_handler_or_its_answer(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client, kept = attach("server"), attach("client"), list[shmbus.Message]()
    go_on = threading.Event()

    @server.handle("job")
    def job(message: shmbus.Message[str]) -> str:
        message._limit(0.3)
        message._limit(0.001)  # it has one
        match message.payload:
            case "raises":
                raise ValueError
            case "replies":
                message.reply("done")
                go_on.wait(60)
            case "fails":
                message.fail(ValueError())
                go_on.wait(60)
            case "defers":
                message.defer()
                kept.append(message)
        return "done"

    server.handle("tick", lambda message: NEVER.wait(0.35))
    server.start(threads=4)
    ways = ("returns", "raises", "replies", "fails", "defers")
    replies = {how: client.request_async("job", how, timeout=60) for how in ways}
    eventually(lambda: kept)
    client.request("tick", timeout=60)  # the limits would be over by now
    kept[0]._limit(0.001)  # nor does it get one later
    kept[0].reply("done")
    for how, reply in replies.items():
        if how in ("raises", "fails"):
            with pytest.raises(errors.RemoteError):
                reply.result(60)
        else:
            assert reply.result(60).payload == "done"
    assert bus.find("job")[0].overruns == 0
    go_on.set()


def test_only_a_request_gets_a_limit_of_its_own(attach: Attach, bus: shmbus.Bus) -> None:
    server, client = attach("server"), attach("client")
    server.subscribe("x")
    client.publish("x")
    message = server.receive(timeout=60)
    assert message is not None
    with pytest.raises(errors.NotARequest):
        message._limit(1.0)


def test_the_commands_of_an_overdue_handler_are_told_of(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    told = recorder("$bus.endpoint.overdue")
    server, client, go_on = attach("server"), attach("client"), threading.Event()
    server.handle("todo", lambda message: go_on.wait(60), limit=0.05)
    server.start()
    client.send("todo", "x")
    [event] = told.wait(1)
    about = told_of(event)
    assert (about.name, about.pid) == ("server", bus.find("todo")[0].pid)
    assert (about.type, about.kind, about.source) == ("todo", "send", "client")
    assert 0.05 == about.limit <= about.seconds
    assert [late.kind for late in overdue_of(bus)] == ["send"]
    go_on.set()
    eventually(lambda: not overdue_of(bus))
    assert len(told.messages) == 1


def told_of(message: shmbus.Message[Any]) -> events.EndpointOverdue:
    return events.EndpointOverdue(**message.payload)


def test_work_goes_to_others_while_one_is_overdue(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    worker(work, 0.05, name="one")
    client = attach("client")
    client.wait_for("job", timeout=60)
    with pytest.raises(HandlerTimeout):
        client.request("job", "hang", timeout=None)
    worker(work, 60, name="two")
    client.wait_for("job", receivers=2, timeout=60)
    replies = [client.request_async("job", "do", timeout=60) for _ in range(50)]
    assert {reply.result().payload for reply in replies} == {"two"}
    assert next(e for e in bus.endpoints() if e.name == "one").untouched == 0
    route = {r.endpoint: r.reason for r in bus.route("job").receivers}
    assert "overdue" in route["one"]


def test_the_other_threads_of_an_overdue_endpoint_go_on(bus: shmbus.Bus, attach: Attach) -> None:
    server, client, go_on = attach("server"), attach("client"), threading.Event()
    server.handle("hang", lambda message: go_on.wait(60), limit=0.05)
    server.handle("job", lambda message: message.payload)
    server.start(threads=2)
    with pytest.raises(HandlerTimeout):
        client.request("hang", timeout=None)
    assert [client.request("job", n, timeout=60).payload for n in range(20)] == list(range(20))
    go_on.set()


def test_what_a_limited_handler_defers_has_no_limit(bus: shmbus.Bus, attach: Attach) -> None:
    server, client, kept = attach("server"), attach("client"), list[shmbus.Message]()

    @server.handle("later", limit=0.05)
    def later(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    server.start()
    reply = client.request_async("later", timeout=60)
    eventually(lambda: kept)
    with pytest.raises(TimeoutError):
        reply.result(0.3)
    kept[0].reply("done")
    assert reply.result(60).payload == "done"
    assert bus.find("later")[0].overruns == 0


def test_what_a_handler_answered_in_time_is_its_reply(bus: shmbus.Bus, attach: Attach) -> None:
    server, client, go_on = attach("server"), attach("client"), threading.Event()

    def answer_then_go_on(message: shmbus.Message) -> None:
        message.reply("early")
        go_on.wait(60)

    server.handle("job", answer_then_go_on, limit=0.05)
    server.start()
    assert client.request("job", timeout=60).payload == "early"
    eventually(lambda: overdue_of(bus))
    assert bus.health().orphans == 0
    go_on.set()
    eventually(lambda: not overdue_of(bus))
    assert client.request("job", timeout=60).payload == "early"


@pytest.mark.smoke
def test_a_callback_of_a_group_that_hangs_is_told_of_and_the_others_get_its_work(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    told, done = recorder("$bus.endpoint.overdue"), list[object]()
    hung, other, sender, go_on = (
        attach("hung"),
        attach("other"),
        attach("sender"),
        threading.Event(),
    )
    hung.subscribe("job", lambda message: go_on.wait(60), group="workers", limit=0.05)
    hung.start()
    sender.publish("job", "hang")
    [event] = told.wait(1)
    about = told_of(event)
    assert (about.name, about.type, about.kind, about.source) == ("hung", "job", "event", "sender")
    [late] = overdue_of(bus, "hung")
    assert (late.type, late.kind, late.limit) == ("job", "event", 0.05)
    assert bus.find("job")[0].condition == "overdue"
    health = bus.health()
    assert health.state == "degraded"
    assert any("its callback of 'job'" in r and "subscribe(limit=" in r for r in health.reasons)
    other.subscribe("job", lambda message: done.append(message.payload), group="workers", limit=60)
    other.start()
    for number in range(20):
        sender.publish("job", number)
    eventually(lambda: sorted(done) == list(range(20)))  # type: ignore[type-var]
    go_on.set()
    eventually(lambda: not overdue_of(bus, "hung"))
    eventually(lambda: bus.health().healthy)


def test_a_limit_needs_a_callback(attach: Attach, bus: shmbus.Bus) -> None:
    with pytest.raises(errors.InvalidSetting, match="there is no callback"):
        attach("e").subscribe("x", limit=1.0)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "5", []])
def test_a_limit_that_is_none(attach: Attach, bus: shmbus.Bus, limit: Any) -> None:
    with pytest.raises(errors.InvalidSetting) as caught:
        attach("server").handle("job", print, limit=limit)
    assert "limit" in str(caught.value)
    assert bus.find("job") == []
