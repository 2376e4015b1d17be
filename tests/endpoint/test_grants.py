"""A grant: what the host lets an endpoint do, and what becomes of all else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from forger import DATA, EVENT, SEND, Forger, record
from hypothesis import given
from hypothesis import strategies as st

import shmbus
from shmbus import Endpoint, Grant, errors, events
from shmbus.endpoint.subscribing import Subscribing
from shmbus.limits import GRANTED
from shmbus.shared import layout, patterns
from shmbus.testing import Attach, BusProcess, MakeRecorder, eventually
from tests.by_hand import entry

PLUG = Grant(
    publish=("made.*", "news"),
    subscribe=("seen.>",),
    handle=("work.>",),
    request=("ask.*",),
)
BY_NAME = {
    f"plug-{n}": Grant(subscribe=(pattern,), publish=(">",))
    for n, pattern in enumerate(("a", "*", ">", "a.*", "*.b.>", "a.>", "a.*.b", "$bus.>"))
}
NACK = 11


@pytest.fixture
def bus_grants() -> dict[str, Grant | None]:
    return {"plug": PLUG, "mute": Grant(), **BY_NAME, "*": None}


@pytest.fixture
def plug(bus_process: BusProcess, attach: Attach) -> Endpoint:
    return attach("plug")


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> errors.Forbidden:
    with pytest.raises(errors.Forbidden) as caught:
        call(*arguments, **options)
    return caught.value


def types(recorder: Any) -> list[str]:
    return [message.type for message in recorder.messages]


@pytest.mark.smoke
def test_an_endpoint_does_what_its_grant_covers_and_nothing_else(
    plug: Endpoint, recorder: MakeRecorder
) -> None:
    seen = recorder(">", handles=[">"], name="seen")
    plug.publish("made.one", 1)
    assert refused(plug.publish, "secret", 2).data == {
        "reason": "",
        "remedy": "",
        "bus": plug.bus.name,
        "endpoint": "plug",
        "right": "publish",
        "type": "secret",
        "granted": ("made.*", "news"),
        "index": None,
    }
    refused(plug.publish, "made.two.more")
    refused(plug.publish, "secret", None, retain=True)  # clears what is kept
    refused(plug.publish, "secret", urgent=True)
    plug.send("ask.one", 3)
    assert refused(plug.send, "made.one").right == "request"
    with plug.batch() as batch:
        refused(batch.publish, "secret")
        refused(batch.send, "secret")
    caught = refused(plug.publish_many, [("news", 4), ("secret", 5), ("news", 6)])
    assert (caught.index, caught.type) == (1, "secret")
    plug.publish("news", 7)
    eventually(lambda: types(seen) == ["made.one", "ask.one", "news", "news"])


def test_a_request_that_is_not_granted_ends_at_once(plug: Endpoint, attach: Attach) -> None:
    server = attach("server")
    begun: list[str] = []
    server.handle(">", lambda message: begun.append(message.type))
    server.start()
    assert plug.request("ask.one").payload is None
    assert refused(plug.request, "secret").granted == ("ask.*",)
    with pytest.raises(errors.Forbidden):
        plug.request_async("secret").result(5)
    with pytest.raises(errors.Forbidden), plug.stream("secret") as parts:
        list(parts)
    found = plug.gather("secret")
    assert [type(each) for each in found.values()] == [errors.Forbidden]
    assert begun == ["ask.one"]


def test_who_has_a_grant_gets_and_answers_requests_all_the_same(
    plug: Endpoint, attach: Attach
) -> None:
    plug.handle("work.>", lambda message: [message.payload])
    plug.start()
    assert attach("host").request("work.now", 5).payload == [5]


class Echo:
    def echo(self, value: int) -> int:
        return value


INTERESTS: list[tuple[str, Callable[[Endpoint], Any]]] = [
    ("subscribe", lambda plug: plug.subscribe("other")),
    ("subscribe", lambda plug: plug.subscribe(">")),
    ("subscribe", lambda plug: plug.subscribe("*.one")),
    ("subscribe", lambda plug: plug.subscribe("other", group="workers")),
    ("subscribe", lambda plug: plug.subscribe("other", overflow="latest", depth=4)),
    ("subscribe", lambda plug: plug.subscribe("other", history=1)),
    ("subscribe", lambda plug: plug.subscribe("$bus.>")),
    ("handle", lambda plug: plug.handle("seen.one", print)),
    ("handle", lambda plug: plug.offer(Echo(), "seen")),
    ("handle", lambda plug: plug.tap("seen.one")),  # it would see commands and requests, too
    ("publish", lambda plug: plug.on_match("seen.one", print)),
]


def test_an_interest_that_is_not_granted_is_refused(plug: Endpoint, attach: Attach) -> None:
    for right, call in INTERESTS:
        assert refused(call, plug).right == right
    plug.subscribe("seen.*.twice", group="workers")
    attach("host").publish("seen.it.twice", 1)
    message = plug.receive(5)
    assert message is not None
    assert message.type == "seen.it.twice"
    (info,) = (each for each in plug.bus.endpoints() if each.name == "plug")
    assert info.patterns == ("seen.*.twice",)


def test_who_is_granted_nothing_may_do_nothing(bus_process: BusProcess, attach: Attach) -> None:
    mute = attach("mute")
    for call in (mute.publish, mute.send, mute.request, mute.subscribe, mute.tap):
        assert refused(call, "news").granted == ()


@pytest.mark.slow
def test_what_is_refused_is_counted_and_told_of(plug: Endpoint, attach: Attach) -> None:
    witness = attach("witness")
    told = witness.subscribe("$bus.endpoint.forbidden", payload_type=events.EndpointForbidden)
    for n in range(50):
        refused(plug.publish, f"secret.{n}")
    first = witness.receive(5)
    assert first is not None
    assert (first.payload.name, first.payload.right, first.payload.count) == ("plug", "publish", 1)
    last = witness.receive(5)  # a second later
    assert last is not None
    assert (last.payload.count, last.payload.type) == (50, "secret.49")
    told.close()


def test_one_type_s_verdict_is_no_other_s(plug: Endpoint, recorder: MakeRecorder) -> None:
    seen = recorder(">", name="seen")
    forger = Forger(plug)
    for n in range(200):
        eventually(lambda: forger.space(DATA) > 1024)
        forger.push(DATA, record(EVENT, f"made.{n}"))
        forger.push(DATA, record(EVENT, f"secret.{n}"))
    eventually(lambda: plug.bus.endpoints()[0].forwarded == 400)
    seen.wait(200)
    assert types(seen) == [f"made.{n}" for n in range(200)]
    (info,) = (each for each in plug.bus.endpoints() if each.name == "plug")
    assert (info.forbidden, info.last_forbidden) == (200, "publish secret.199")


def test_between_a_command_and_an_event_of_one_type_the_right_differs(
    plug: Endpoint, recorder: MakeRecorder
) -> None:
    seen = recorder("news", "ask.one", handles=["ask.one"], name="seen")
    with plug.batch() as batch:
        batch.publish("news")
        batch.send("ask.one")
        refused(batch.publish, "ask.one")
        batch.publish("news")
    seen.wait(3)
    assert [(m.kind, m.type) for m in seen.messages] == [
        ("event", "news"),
        ("send", "ask.one"),
        ("event", "news"),
    ]


def test_a_tap_sees_what_is_refused(plug: Endpoint, attach: Attach) -> None:
    observer = attach("observer")
    observer.tap("secret")
    refused(plug.publish, "secret")
    message = observer.receive(5)
    assert message is not None
    assert message.tap is not None
    assert message.tap.outcome == "forbidden"


def test_who_writes_into_its_rings_by_hand_is_refused_as_well(
    plug: Endpoint, recorder: MakeRecorder
) -> None:
    seen = recorder(">", handles=[">"], name="seen")
    forger = Forger(plug)
    forger.push(DATA, record(EVENT, "secret"))
    forger.push(DATA, record(SEND, "secret"))
    forger.push(DATA, record(EVENT, "news"))
    eventually(lambda: types(seen) == ["news"])
    logged = entry(1, "secret")
    at = forger.interests.dtype.itemsize + int(forger.interests["bytes"])
    forger.interests_memory[at : at + len(logged)] = logged
    forger.interests["bytes"] += len(logged)
    forger.up["outgoing"][DATA]["interests_version"] += 1
    forger.ring_bell()
    eventually(lambda: int(forger.down["interests_seen"]) == 1)
    assert plug.bus.route("secret").subscribers == ("seen",)
    forger.push(DATA, record(NACK, "secret", interests=1))  # as if it had been given that
    eventually(lambda: "plug" not in {each.name for each in plug.bus.endpoints()})
    assert types(seen) == ["news"]


def test_what_it_says_to_have_let_go_is_no_dead_letter_where_it_may_not_have_it(
    plug: Endpoint, recorder: MakeRecorder
) -> None:
    letters = recorder("$bus.undeliverable", name="letters")
    forged = [(EVENT, "work.one"), (SEND, "seen.one"), (SEND, "work.two"), (EVENT, "seen.two")]
    forger = Forger(plug)
    for kept, (kind, type) in zip(forger.up["kept"], forged, strict=False):
        made = record(kind, type)
        kept["record"][: len(made)] = list(made)
        kept["at"] = 1
    forger.push(DATA, record(NACK, "secret", interests=1))  # which ends it
    eventually(lambda: "seen.two" in [each.payload["type"] for each in letters.messages])
    assert [each.payload["type"] for each in letters.messages] == ["work.two", "seen.two"]


@pytest.mark.bus(block_timeout=60.0)
def test_what_waits_for_a_slow_subscriber_cannot_become_another_type(
    plug: Endpoint, attach: Attach, recorder: MakeRecorder
) -> None:
    slow = attach("slow", settings=shmbus.Settings(in_bytes=8192))
    slow.subscribe(">")
    seen = recorder(">", name="seen")
    forger, made = Forger(plug), record(EVENT, "made.one", bytes(1000))
    for _ in range(12):
        forger.push(DATA, made)
    waited_for = Forger(slow).down["incoming"][DATA]
    eventually(lambda: waited_for["need"] != layout.NOWHERE)
    forger.rewrite(DATA, int(forger.down["todo"]["from"]), record(EVENT, "evil.one"))
    for _ in range(12):
        slow.receive(0)
    eventually(lambda: "plug" not in {info.name for info in plug.bus.endpoints()})
    while message := slow.receive(0):
        assert message.type == "made.one"
    eventually(lambda: types(seen))
    assert set(types(seen)) == {"made.one"}


def test_the_next_dispatcher_enforces_the_same(
    plug: Endpoint, bus_process: BusProcess, attach: Attach
) -> None:
    plug = attach("mute", reconnect=True)
    refused(plug.publish, "news")
    bus_process.restart()
    refused(plug.subscribe, "news")
    assert refused(plug.request, "news").granted == ()


def test_the_dispatcher_knows_which_pattern_covers_which(
    bus_process: BusProcess, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Subscribing, "_check_refused", lambda *_: None)  # it does not look itself
    host, chance = attach("host"), random.Random(5)

    def some() -> str:
        tokens = chance.choices(["a", "b", "*"], k=chance.randint(1, 3))
        own = chance.random() < 0.1
        return ".".join(["$bus", *tokens] if own else tokens) + chance.choice(["", "", ".>"])

    for name, grant in BY_NAME.items():
        plug = attach(name)
        for asked in {some() for _ in range(30)} | {">", "*", "$bus.>"}:
            wanted = grant.covers("subscribe", asked)
            with plug.subscribe(asked):
                assert bool(host.matched(asked)) == wanted, (asked, grant)


tokens = st.sampled_from(["a", "b", "*", "$x"])


@st.composite
def some_patterns(draw: st.DrawFn) -> str:
    first = draw(tokens)
    rest = draw(st.lists(st.sampled_from(["a", "b", "*"]), max_size=2))
    return ".".join([first, *rest, *draw(st.sampled_from([[], [">"]]))])


@given(some_patterns(), some_patterns())
def test_a_pattern_covers_another_where_it_matches_all_of_its_types(one: str, two: str) -> None:
    words = ["a", "b", "c"]
    there = [[w] for w in [*words, "$x", "$y"]]
    for _ in range(3):
        there += [[*t, w] for t in there for w in words if len(t) < 4]
    all_types = {".".join(t) for t in there}
    mine = {t for t in all_types if patterns.covers(one, t)}
    theirs = {t for t in all_types if patterns.covers(two, t)}
    assert patterns.covers(one, two) == (theirs <= mine)


def test_a_grant_is_made_of_patterns() -> None:
    with pytest.raises(errors.InvalidPattern):
        Grant(publish=("a..b",))
    with pytest.raises(errors.InvalidSetting):
        Grant(handle="work.>")  # type: ignore[arg-type]
    some = tuple(f"a.{n}" for n in range(GRANTED // 2))
    assert Grant(publish=some, request=some).covers("request", "a.1")
    with pytest.raises(errors.InvalidSetting, match=rf"Grant={GRANTED + 1}: .* {GRANTED} in all"):
        Grant(publish=some, request=(*some, "one.more"))
    assert shmbus.Grant(publish=("a.>",)).covers("publish", "a.b.c")
