"""The bus's own events carry the fields in shmbus.events: all, and no others."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus import Endpoint, events
from shmbus.events import (
    EndpointDown,
    EndpointResumed,
    EndpointStalled,
    EndpointUp,
    RoutesChanged,
    Undeliverable,
)
from shmbus.shared import layout
from shmbus.testing import TIMEOUT, Attach, StartWorker, eventually, kill

ROOT = Path(__file__).resolve().parent.parent.parent


def strict(event: type[msgspec.Struct]) -> Any:
    """The same event, refusing fields that it does not name; missing ones are refused anyhow."""
    assert not [field.name for field in msgspec.structs.fields(event) if not field.required]
    return msgspec.defstruct(
        event.__name__, [], bases=(event,), forbid_unknown_fields=True, kw_only=True
    )


def listen(attach: Attach, *types: str) -> Endpoint:
    """An endpoint that gets these events."""
    ear = attach("ear")
    for type in types:
        ear.subscribe(type, payload_type=strict(events.EVENTS[type]))
    return ear


def next_of(ear: Endpoint, event: type[msgspec.Struct], **wanted: object) -> Any:
    """The next such event with these fields."""
    for _ in range(50):
        message = ear.receive(TIMEOUT)
        assert message is not None, f"no {event.__name__} came"
        payload = message.payload
        found = events.EVENTS[message.type] is event
        if found and all(getattr(payload, name) == value for name, value in wanted.items()):
            return payload
    raise AssertionError(f"no {event.__name__} with {wanted} came")


def test_an_endpoint_s_coming_and_going_is_told(bus: shmbus.Bus, attach: Attach) -> None:
    ear = listen(attach, "$bus.endpoint.up", "$bus.endpoint.down")
    visitor = attach("visitor")
    up = next_of(ear, EndpointUp, name="visitor")
    assert up.pid == os.getpid()
    visitor.close()
    down = next_of(ear, EndpointDown, name="visitor")
    assert (down.pid, down.generation, down.reason) == (up.pid, up.generation, "detached")


def idle(endpoint: Endpoint) -> None:
    endpoint.receive()


def test_a_stop_a_continuation_and_a_kill_are_told(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    ear = listen(attach, "$bus.endpoint.stalled", "$bus.endpoint.resumed", "$bus.endpoint.down")
    sleeper = worker(idle, name="sleeper")
    sleeper.pause()
    stalled = next_of(ear, EndpointStalled, name="sleeper", pid=sleeper.pid)
    assert stalled.reason == "stopped"
    sleeper.resume()
    resumed = next_of(ear, EndpointResumed, name="sleeper", generation=stalled.generation)
    assert resumed.reason == "continued"
    kill(sleeper.pid)  # unreaped: how it ended can still be seen
    down = next_of(ear, EndpointDown, name="sleeper", pid=sleeper.pid)
    assert down.reason == "killed"


@pytest.mark.bus(max_endpoints=2)
def test_each_death_in_a_slot_is_told(bus: shmbus.Bus, attach: Attach, worker: StartWorker) -> None:
    ear = listen(attach, "$bus.endpoint.down")
    for _ in range(2):
        victim = worker(idle, name="victim")
        kill(victim.pid)
        assert next_of(ear, EndpointDown, pid=victim.pid).name == "victim"
        eventually(lambda: len(bus.endpoints()) == 1)


@pytest.mark.parametrize(
    ("payload", "format", "encoded"),
    [(b"bytes", "raw", b"bytes"), ([1, 2], "msgpack", b"\x92\x01\x02"), (None, "none", b"")],
)
def test_a_dead_letter_tells_all_of_its_message(
    bus: shmbus.Bus, attach: Attach, payload: object, format: str, encoded: bytes
) -> None:
    ear = listen(attach, "$bus.undeliverable")
    attach("sender").send("nobody.handles", payload)
    letter = next_of(ear, Undeliverable, type="nobody.handles")
    assert (letter.kind, letter.source, letter.attempt) == ("send", "sender", 1)
    assert (letter.format, letter.size, letter.payload) == (format, len(encoded), encoded)
    assert letter.reason


def test_only_who_asks_by_name_is_told_that_the_routes_change(
    bus: shmbus.Bus, attach: Attach
) -> None:
    ear, other, worker = listen(attach, "$bus.routes"), attach("other"), attach("worker")
    other.subscribe("$bus.>")
    versions = [next_of(ear, RoutesChanged).version]
    worker.handle("job", lambda message: None)
    versions.append(next_of(ear, RoutesChanged).version)
    worker.close()
    versions.append(next_of(ear, RoutesChanged).version)
    assert versions == sorted(set(versions))
    heard = [""]
    while heard[-1] != "$bus.endpoint.down":
        heard.append(next(iter(other)).type)
    assert "$bus.routes" not in heard


def test_every_event_that_is_published_is_described() -> None:
    headers = (ROOT / "shmbus/dispatcher/native").glob("*.h")
    packed = set(re.findall(r'"(\$bus\.[a-z.]+)"', "".join(h.read_text() for h in headers)))
    assert packed | {"$bus.link.up", "$bus.link.down"} == set(events.EVENTS)


def test_a_death_s_description_names_every_reason() -> None:
    source = inspect.getsource(shmbus.Death)
    for reason in layout.words(layout.Reason).values():
        assert reason == "alive" or re.search(rf"\b{reason}\b", source), reason
