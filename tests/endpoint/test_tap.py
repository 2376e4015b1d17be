"""A tap shows what passes, and delays nothing."""

import pytest

import shmbus
from shmbus import errors


def observed(observer: shmbus.Endpoint, count: int) -> list[tuple[shmbus.Message, shmbus.Tap]]:
    seen: list[tuple[shmbus.Message, shmbus.Tap]] = []
    while len(seen) < count:
        message = observer.receive(timeout=60)
        assert message is not None
        assert message.tap is not None
        seen.append((message, message.tap))
    return seen


@pytest.mark.smoke
def test_it_sees_every_kind_with_what_became_of_it(bus_name: str) -> None:
    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("asker") as asker,
        bus.attach("server") as server,
        bus.attach("observer") as observer,
    ):
        server.subscribe("file.*", lambda message: None)
        server.handle("file.read", lambda message: message.payload + 1)
        server.handle("file.close", lambda message: None)
        observer.tap("file.>")
        server.start()

        asker.publish("file.changed", "news")
        asker.publish("other.changed", "not for the tap")
        asker.send("file.close", None)
        assert asker.request("file.read", 41, timeout=60).payload == 42
        asker.publish("file.a.b", "for nobody")
        with pytest.raises(shmbus.errors.NoRoute):
            asker.request("file.write", timeout=60)

        seen = observed(observer, 6)
        account = [(m.type, tap.kind, tap.outcome, m.source, tap.target) for m, tap in seen]
        assert account == [
            ("file.changed", "event", "delivered", "asker", "server"),
            ("file.close", "send", "delivered", "asker", "server"),
            ("file.read", "request", "delivered", "asker", "server"),
            ("file.read", "reply", "delivered", "server", "asker"),
            ("file.a.b", "event", "nobody", "asker", None),
            ("file.write", "request", "nobody", "asker", None),
        ]
        assert [m.payload for m, _ in seen[:4]] == ["news", None, 41, 42]


def test_nothing_is_dealt_with_before_it_was_sent(bus_name: str) -> None:
    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("sender") as sender,
        bus.attach("observer") as observer,
    ):
        observer.tap("x")
        for _ in range(50):
            for _ in range(200):
                sender.publish("x")  # they come as it forwards others
            for _, tap in observed(observer, 200):
                assert tap.forwarded_ns >= tap.sent_ns


def test_a_full_tap_delays_nobody_and_counts_what_it_missed(bus_name: str) -> None:
    small = shmbus.Settings(in_bytes=4096, out_bytes=4096)
    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("asker") as asker,
        bus.attach("server") as server,
        bus.attach("observer", settings=small) as observer,
    ):
        server.handle("echo", lambda message: message.payload)
        server.start()
        observer.tap()
        for number in range(200):
            assert asker.request("echo", number, timeout=60).payload == number
        assert bus.find("echo")[0].lost == 0
        mine = next(e for e in bus.endpoints() if e.name == "observer")
        assert mine.lost > 0
        assert not mine.slow


def test_a_tap_is_nobody_who_would_get_the_message(bus_name: str) -> None:
    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("asker") as asker,
        bus.attach("observer") as observer,
    ):
        observer.tap("file.read")
        with pytest.raises(shmbus.errors.WaitTimeout) as caught:
            asker.wait_for("file.read", timeout=0.1)
        assert caught.value.found == 0
        assert bus.find("file.read") == []
        (seen,) = (e for e in bus.endpoints() if e.name == "observer")
        assert seen.patterns == ()
        assert [(i.pattern, i.role) for i in seen.interests] == [("file.read", "tap")]


def test_a_tap_of_the_bus_s_own_events_is_refused_since_it_would_see_none(
    bus: shmbus.Bus,
) -> None:
    with bus.attach("spy") as spy, pytest.raises(errors.InvalidSetting) as caught:
        spy.tap("$bus.>")
    assert "ep.subscribe('$bus.>')" in str(caught.value)
