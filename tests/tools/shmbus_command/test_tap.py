"""tap and types: what passes between others, as it comes and counted."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import pytest
from shmbus_command import flow
from shmbus_command.filtering import Passed
from shmbus_command.flow import Flows
from shmbus_console.text import measured

import shmbus
from shmbus.endpoint._kernel import Encoded, Origin
from shmbus.endpoint.attach import attach_as
from shmbus.endpoint.payloads import MSGPACK
from shmbus.testing import eventually

from .conftest import Ran

Command = Callable[..., Ran]


@pytest.fixture
def traffic(bus: shmbus.Bus) -> Iterator[Callable[[], None]]:
    """`traffic()`: an event for somebody and one for nobody, a request that is answered, one that
    fails, a slow one, and a command without a handler."""
    slow = threading.Event()

    def fail(message: shmbus.Message) -> None:
        raise ValueError("no such sum")

    with bus.attach("worker-1") as worker, bus.attach("sensor") as sensor:
        worker.subscribe("camera.frame", lambda message: None)
        worker.handle("calc.add", lambda message: message.payload)
        worker.handle("calc.bad", fail)
        worker.handle("calc.slow", lambda message: slow.wait(0.05))
        worker.start()

        def traffic() -> None:
            sensor.publish("camera.frame", b"x" * 100)
            sensor.publish("camera.gone", b"x" * 10)
            assert sensor.request("calc.add", 41, timeout=60).payload == 41
            with pytest.raises(shmbus.errors.RemoteError):
                sensor.request("calc.bad", timeout=60)
            sensor.request("calc.slow", timeout=60)
            sensor.send("calc.none")

        yield traffic


@contextmanager
def once_tapped(bus: shmbus.Bus, then: Callable[[], None], most: int = 1) -> Iterator[None]:
    """Calls `then` in a thread when an endpoint taps, with so many interests."""

    def wait() -> None:
        eventually(
            lambda: any(
                e.routed and any(i.role == "tap" for i in e.interests) and len(e.interests) >= most
                for e in bus.endpoints()
            )
        )
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def tap(bus: shmbus.Bus, command: Command, traffic: Callable[[], None], *options: object) -> Ran:
    """What a tap of everything with these options prints, until it has seen the last message."""
    with once_tapped(bus, traffic, 2):
        return command("tap", "-b", bus.name, "--json", "--timeout", "30s", *options)


def kinds(ran: Ran) -> list[tuple[str, str]]:
    assert ran.code == 0, ran.err
    return [(f["kind"], f["type"]) for f in map(msgspec.json.decode, ran.lines)]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--kind", "reply", "-n", 2], [("reply", "calc.add"), ("reply", "calc.slow")]),
        (
            ["--kind", "reply", "--kind", "error", "-n", 2],
            [("reply", "calc.add"), ("error", "calc.bad")],
        ),
        (
            ["--source", "work*", "--target", "sensor", "-n", 3],
            [("reply", "calc.add"), ("error", "calc.bad"), ("reply", "calc.slow")],
        ),
        (["--target", "worker-?", "-n", 1], [("event", "camera.frame")]),
        (["--slower", "40ms", "--kind", "reply", "-n", 1], [("reply", "calc.slow")]),
        (
            ["--failed", "-n", 4],
            [
                ("event", "camera.gone"),
                ("error", "calc.bad"),
                ("event", "$bus.undeliverable"),
                ("send", "calc.none"),
            ],
        ),
    ],
)
def test_a_tap_shows_what_is_wanted_and_counts_that_alone(
    bus: shmbus.Bus,
    shmbus_command: Command,
    traffic: Callable[[], None],
    options: list[object],
    expected: list[tuple[str, str]],
) -> None:
    ran = tap(bus, shmbus_command, traffic, *options)
    assert kinds(ran) == expected
    assert f"shmbus tap: {len(expected)} of " in ran.err


def test_what_others_wrote_stays_on_its_line_and_does_nothing_to_the_terminal(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with bus.attach("worker") as worker, bus.attach("client") as client:

        def fail(message: shmbus.Message[Any]) -> None:
            raise ValueError("one\ntwo \x1b[2J")

        worker.handle("bad", fail)
        worker.start()
        ran = shmbus_command("request", "-b", bus.name, "bad")
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "\x1b" not in ran.err

        def traffic() -> None:
            with suppress(shmbus.errors.RemoteError):
                client.request("bad", timeout=60)
            client.publish("told", "\x9b2J")

        with once_tapped(bus, traffic, 1):
            ran = shmbus_command("tap", "-b", bus.name, ">", "-n", 3)
    assert (ran.code, len(ran.lines)) == (0, 3)
    assert ran.lines[1].endswith(r"ValueError: one\ntwo \x1b[2J")
    assert ran.lines[2].endswith(r'"\x9b2J"')


def test_a_reply_is_measured_from_its_request_though_only_replies_are_wanted(
    bus: shmbus.Bus, shmbus_command: Command, traffic: Callable[[], None]
) -> None:
    ran = tap(bus, shmbus_command, traffic, "--kind", "reply", "--slower", "40ms", "-n", 1)
    assert ran.json["seconds_since_request"] > 0.04


def test_a_kind_that_there_is_not_is_a_bad_command_line(shmbus_command: Command) -> None:
    ran = shmbus_command("tap", "--kind", "answer")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "'event', 'send', 'request', 'reply', 'part', 'end', 'error'" in ran.err


def test_names_and_kinds_are_completed(
    bus: shmbus.Bus,
    traffic: Callable[[], None],
    complete: Callable[..., str],
) -> None:
    assert "plain,worker-1" in complete("tap", "-b", bus.name, "--source", "wo")
    assert "plain,sensor" in complete("types", "-b", bus.name, "--target", "se")
    assert "plain,request" in complete("tap", "--kind", "req")


# types ------------------------------------------------------------------------------------------


Flow = Callable[..., list[Any]]


@pytest.fixture
def flow_until(
    bus: shmbus.Bus,
    shmbus_command: Command,
    traffic: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Flow:
    """`flow_until(count, *options)`: all that `types` reports until it has counted so many."""

    def flow_until(count: int, *options: object) -> list[Any]:
        reports: list[Any] = []

        def show(report: flow.Report) -> None:
            reports.append(msgspec.to_builtins(report))
            if report.count >= count:
                raise KeyboardInterrupt

        monkeypatch.setattr("shmbus_command.flowing.print_json", show)
        with once_tapped(bus, traffic):
            ran = shmbus_command("types", "-b", bus.name, "--interval", "50ms", "--json", *options)
        assert ran.code == 0, ran.err
        return reports

    return flow_until


@pytest.mark.smoke
def test_types_says_what_flows_from_whom_and_how_much(flow_until: Flow) -> None:
    reports = flow_until(9)
    found = reports[-1]
    by_type = {f["type"]: f for f in found["flows"]}
    frame = by_type["camera.frame"]
    assert (frame["count"], frame["bytes"], frame["of"]) == (1, 100, ["sensor"])
    for fact, expected in (("rate", 1), ("bytes_per_second", 100)):
        parts = (
            f[fact] * report["seconds"]
            for report in reports
            for f in report["flows"]
            if f["type"] == "camera.frame"
        )
        assert sum(parts) == pytest.approx(expected)
    assert by_type["calc.bad"]["kinds"] == {"request": 1, "error": 1}
    assert by_type["calc.bad"]["of"] == ["sensor", "worker-1"]
    assert {type for type, f in by_type.items() if f["failed"]} == {
        "camera.gone",
        "calc.bad",
        "calc.none",
    }
    assert (found["count"], found["missed"], found["others"]) == (9, 0, 0)
    assert not any(type.startswith("$") for type in by_type)


def test_types_may_be_asked_by_source_and_of_some_messages(flow_until: Flow) -> None:
    found = flow_until(3, "--by", "source", "--failed")[-1]
    assert {f["source"]: f["of"] for f in found["flows"]} == {
        "sensor": ["camera.gone", "calc.none"],
        "worker-1": ["calc.bad"],
    }


def test_types_shows_the_busiest_first_and_counts_the_others(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with bus.attach("sensor") as sensor:

        def publish() -> None:
            for number in range(10):
                for _ in range(number + 1):
                    sensor.publish(f"job.{number}")

        with once_tapped(bus, publish):
            ran = shmbus_command("types", "-b", bus.name, "--over", "2s", "--most", 2)
    assert ran.lines[0].startswith(f"{bus.name}: ")
    assert ran.lines[0].endswith(", 55 in all")
    assert [line.split()[0] for line in ran.lines[1:4]] == ["TYPE", "job.9", "job.8"]
    assert ran.lines[4] == "  and 8 others: 36 messages"


def test_without_over_types_shows_a_new_table_until_it_is_interrupted(
    bus: shmbus.Bus, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    def interrupt(document: Any) -> None:
        shown.append(document)
        if len(shown) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("shmbus_command.flowing.print_json", interrupt)
    ran = shmbus_command("types", "-b", bus.name, "--interval", "10ms", "--json")
    assert ran.code == 0
    assert len(shown) == 3


@pytest.mark.bus(in_bytes=4096, out_bytes=65536)
def test_what_a_tap_missed_is_said(
    bus: shmbus.Bus, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shmbus_command.flowing._RING", shmbus.Settings(in_bytes=4096))
    with bus.attach("sensor") as sensor:
        missed = threading.Event()

        def publish() -> None:
            observer = next(e.name for e in bus.endpoints() if e.name != "sensor")
            while not missed.is_set():
                sensor.publish_many([("news", b"x" * 900)] * 50)
                if any(e.name == observer and e.lost for e in bus.endpoints()):
                    missed.set()
            sensor.publish("news")

        with once_tapped(bus, publish):
            ran = shmbus_command("types", "-b", bus.name, "--over", "2s")
    assert f"{bus.name}: at least " in ran.lines[0]
    assert "copies were missed" in ran.lines[1]
    assert "lower bounds" in ran.lines[1]


def test_a_type_for_each_message_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "KEPT", 10)

    class Copy:
        kind, size, source = "event", 5, "sensor"

        def __init__(self, type: str) -> None:
            self.type = type

    counted = Flows("symphony", "type", 0.0)
    for number in range(1000):
        for type in ("often", f"job.{number}"):
            message: Any = Copy(type)
            tap = shmbus.Tap(
                kind="event", outcome="delivered", target="t", sent_ns=0, forwarded_ns=1
            )
            counted.add(Passed(message, tap, 0.0, None))
        assert len(counted._rows) <= 20
    report = counted.report(10.0, 3)
    assert (report.flows[0].type, report.flows[0].count) == ("often", 1000)
    assert report.rate == 200.0
    assert report.bytes_per_second == 1000.0
    assert report.count == 2000
    assert report.others_count == 2000 - sum(f.count for f in report.flows)


# Other sites ------------------------------------------------------------------------------------


def from_paris(bus: shmbus.Bus) -> None:
    """A message of another site, sent 20 ms ago, as well as that is known."""
    sent = time.monotonic_ns() - 20_000_000
    origin = Origin("camera", "paris", sent, 200_000, sent + 7, 0)
    with attach_as("@link", bus.name) as link:
        link.publish("camera.frame", Encoded(MSGPACK, msgspec.msgpack.encode("x"), origin))


@pytest.mark.smoke
def test_of_what_comes_from_another_site_the_time_is_shown_with_how_well_it_is_known(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with once_tapped(bus, lambda: from_paris(bus)):
        ran = shmbus_command("tap", "-b", bus.name, "camera.>", "-n", 1, "--timeout", "30s")
    assert re.search(r"camera@paris -> - nobody in [0-9.]+ ms \+-0.2", ran.out), ran.out
    with once_tapped(bus, lambda: from_paris(bus)):
        ran = shmbus_command("tap", "-b", bus.name, "camera.>", "-n", 1, "--json")
    (found,) = map(msgspec.json.decode, ran.lines)
    assert (found["site"], found["time_error_seconds"]) == ("paris", 0.0002)
    assert found["routing_seconds"] > 0.02


def test_how_well_a_time_is_known_is_told_in_the_same_unit() -> None:
    assert measured(0.0031, 0.0002) == "3.1 ms +-0.2"
    assert measured(0.0000311, 0.0002) == "31.1 µs +-200"
    assert measured(-0.0001, 0.0002) == "-100.0 µs +-200"
    assert measured(0.0039, 0.000271) == "3.9 ms +-0.27"
    assert measured(2.5, 0.01) == "2.50 s +-0.01"
    assert measured(2.5, None) == "2.50 s"
