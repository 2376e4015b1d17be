"""A process that is stopped or slow is stalled or busy, and never dead."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmbus
from shmbus import Message
from shmbus.testing import (
    Attach,
    MakeRecorder,
    StartWorker,
    eventually,
    start_python,
)

from .roles import echo


def answer_after_a_stop(endpoint: shmbus.Endpoint) -> None:
    def stop(message: Message) -> str:
        os.kill(os.getpid(), signal.SIGSTOP)
        return "at last"

    endpoint.handle("stop", stop)
    endpoint.run()


def told_of(message: Message) -> tuple[str, str]:
    """The bus's events: their kind, and the endpoint."""
    return message.type.rpartition(".")[2], message.payload["name"]


@pytest.mark.smoke
def test_a_stopped_process_is_stalled_then_resumes_and_answers(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    told = recorder("$bus.endpoint.*")
    server = worker(answer_after_a_stop, name="server")
    caller = attach("caller")
    caller.wait_for("stop")
    told.wait(where=lambda m: m.payload["name"] == "caller")
    told.clear()
    reply = caller.request_async("stop", timeout=60)
    told.wait(where=lambda m: told_of(m) == ("stalled", "server"))
    assert not reply.done()
    (info,) = bus.find("stop")
    assert info.stalled
    assert (info.stopped, info.condition) == (True, "stopped")
    health = bus.health()
    assert health.healthy is False
    (reason,) = health.reasons
    assert reason.startswith(f"endpoint server (process {server.pid}) is stopped")
    assert reason.endswith(f"let it go on: kill -CONT {server.pid}")
    server.resume()
    assert reply.result(60).payload == "at last"
    told.wait(where=lambda m: told_of(m) == ("resumed", "server"))
    of_server = [told_of(m) for m in told.messages if m.payload["name"] == "server"]
    assert of_server == [("stalled", "server"), ("resumed", "server")]
    eventually(lambda: not bus.find("stop")[0].stalled)


@pytest.mark.bus(stall_after=0.2)
def test_who_takes_nothing_is_stalled_after_the_time_that_was_set(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    told = recorder("$bus.endpoint.*")
    attach("sluggard").subscribe("x")
    attach("publisher").publish("x")
    told.wait(where=lambda m: m.type == "$bus.endpoint.stalled")
    (info,) = bus.find("x")
    assert (info.condition, bus.health().healthy) == ("stalled", False)
    bus.evict("sluggard")  # stalled, it is not ended by itself
    told.wait(where=lambda m: m.type == "$bus.endpoint.down" and m.payload["reason"] == "evicted")


def take_long(endpoint: shmbus.Endpoint, enough: str) -> None:
    def work(message: Message) -> str:
        while not os.path.exists(enough):
            pass
        return "done"

    endpoint.handle("work", work)
    endpoint.run()


@pytest.mark.slow
@pytest.mark.bus(stall_after=0.2)
def test_a_long_handler_is_busy_and_not_stalled(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker, tmp_path: Path
) -> None:
    enough = tmp_path / "enough"
    worker(take_long, str(enough), name="server")
    caller = attach("caller")
    caller.wait_for("work")
    replies = [caller.request_async("work", timeout=60) for _ in range(2)]

    def server() -> shmbus.views.EndpointInfo:
        return bus.find("work")[0]

    eventually(lambda: server().in_hand == 1 and server().untouched == 1)
    for _ in range(2):  # the look that was under way then, and one that began since
        await_look(bus)
    while server().in_hand_seconds < 1.0:
        assert server().condition == "busy"
        await_look(bus)
    enough.touch()
    assert [reply.result(60).payload for reply in replies] == ["done", "done"]


def await_look(bus: shmbus.Bus) -> None:
    """Wait until the dispatcher begins another look at all endpoints."""
    before = heartbeat(bus)
    eventually(lambda: heartbeat(bus) != before)


def heartbeat(bus: shmbus.Bus) -> int:
    return int(bus._dispatcher._table.head["heartbeat_ns"])


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Four processes that compute, for each core."""
    with contextlib.ExitStack() as hogs:
        for _ in range(4 * (os.cpu_count() or 1)):
            hogs.enter_context(start_python("while True: pass"))
        yield


@pytest.mark.slow
def test_who_is_slow_because_the_machine_is_busy_is_not_stalled(
    bus: shmbus.Bus,
    bus_settings: shmbus.Settings,
    busy_machine: None,
    attach: Attach,
    recorder: MakeRecorder,
    worker: StartWorker,
) -> None:
    told = recorder("$bus.endpoint.stalled")
    worker(echo, name="server")
    caller = attach("caller")
    caller.wait_for("echo", timeout=60)
    longest = 0.0
    for number in range(100):
        began = time.monotonic()
        assert caller.request("echo", number, timeout=60).payload == number
        longest = max(longest, time.monotonic() - began)
    stalled = [m for m in told.messages if m.payload["name"] == "server"]
    assert (
        not stalled or longest > bus_settings.stall_after
    )  # the machine was so busy that it was stalled
