"""Groups with a key: messages of one key go to one member, in order."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import defaultdict
from itertools import count
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import shmbus
from shmbus import Endpoint, Message, errors, events
from shmbus.endpoint.subscribing import Subscribing
from shmbus.shared import keys
from shmbus.testing import Attach, MakeRecorder, eventually

pytestmark = pytest.mark.usefixtures("bus")

PATTERN, KEY = "order.*.>", "order.{id}.>"
MASK = 0b10


def join(endpoint: Endpoint, *args: Any) -> Endpoint:
    endpoint.subscribe(PATTERN, *args, group="workers", key=KEY)
    return endpoint


def owner_of(bus: shmbus.BusView, type: str) -> str:
    (owner,) = bus.route(type).subscribers
    return owner


def settled(bus: shmbus.BusView) -> bool:
    """Whether all members own their keys, and nothing waits for a former owner."""
    head = bus._registry.head[0]
    return bool((head["keyed"]["epoch"] == head["keyed"]["settled"]).all())


def type_of(bus: shmbus.BusView, owner: str) -> str:
    """A type whose key this member owns."""
    return next(t for n in range(1000) if owner_of(bus, t := f"order.{n}.new") == owner)


def drained(endpoint: Endpoint) -> list[Message]:
    return list(iter(lambda: endpoint.receive(0), None))


@pytest.mark.smoke
def test_messages_of_one_key_go_to_one_member_in_order(bus: shmbus.Bus, attach: Attach) -> None:
    source, members = attach("source"), [join(attach(name)) for name in ("a", "b", "c")]
    for n in range(90):
        source.publish(f"order.{n % 30}.{'new' if n % 2 else 'changed.twice'}", n)
    had: dict[str, dict[str, list[int]]] = defaultdict(dict)
    eventually(lambda: bus.health().routed >= 90)
    for each in members:
        for message in drained(each):
            key = message.type.split(".")[1]
            had[key].setdefault(each.name, []).append(message.payload)
    assert len(had) == 30
    assert {len(by_member) for by_member in had.values()} == {1}
    assert all(each == sorted(each) for by in had.values() for each in by.values())
    assert len({name for by in had.values() for name in by}) == 3
    assert all([*had[key]] == [owner_of(bus, f"order.{key}.x")] for key in had)


@pytest.mark.smoke
def test_a_key_moves_only_when_its_former_owner_is_done(bus: shmbus.Bus, attach: Attach) -> None:
    source, first = attach("source"), join(attach("first"))
    for n in range(40):
        source.publish(f"order.{n % 20}.new", n)
    begun = first.receive(60)
    assert begun is not None
    second = join(attach("second"))
    moved = [n for n in range(20) if owner_of(bus, f"order.{n}.new") == "second"]
    assert 0 < len(moved) < 20
    for n in range(40, 60):
        source.publish(f"order.{n % 20}.new", n)
    eventually(lambda: sum(b.waiting for b in bus.backlogs()) == len(moved))
    assert second.receive(0) is None
    kept = [begun, *drained(first)]
    assert [m.payload for m in kept] == [
        *range(40),
        *(n for n in range(40, 60) if n % 20 not in moved),
    ]
    assert [second.receive(60).payload for _ in moved] == [40 + n for n in moved]  # type: ignore[union-attr]


def test_what_a_closed_member_had_goes_first_to_the_next_owner(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, leaving, other = attach("source"), join(attach("leaving")), join(attach("other"))
    eventually(lambda: settled(bus))
    type = type_of(bus, "leaving")
    source.publish_many([(type, n) for n in range(5)])
    first = leaving.receive(60)
    assert first is not None
    leaving.close()
    source.publish(type, 5)
    assert [other.receive(60).payload for _ in range(5)] == [1, 2, 3, 4, 5]  # type: ignore[union-attr]
    assert owner_of(bus, type) == "other"


def test_a_bus_shows_keys_and_their_owners(bus: shmbus.Bus, attach: Attach) -> None:
    for each in (join(attach("one")), join(attach("other"))):
        (interest,) = next(e for e in bus.endpoints() if e.name == each.name).interests
        assert (interest.group, interest.key) == ("workers", "order.{*}.>")
    eventually(lambda: settled(bus))
    owner = owner_of(bus, "order.1.x")
    first, second = bus.route("order.1.x").receivers
    assert (first.endpoint, first.reason) == (owner, "group workers: owns the key of order.{*}.>")
    assert second.reason == f"the key of order.{{*}}.> is owned by {owner}"
    assert not second.chosen


def test_what_was_given_back_goes_to_its_owner(bus: shmbus.Bus, attach: Attach) -> None:
    source, one, other = attach("source"), join(attach("one")), join(attach("other"))
    eventually(lambda: settled(bus))
    source.publish(type_of(bus, "one"), "x")
    message = one.receive(60)
    assert message is not None
    message.nack()
    again = one.receive(60)
    assert again is not None
    assert (again.payload, again.attempt) == ("x", 2)
    assert other.receive(0) is None


def test_an_event_says_who_owns_which_key(bus: shmbus.Bus, attach: Attach) -> None:
    ear = attach("ear")
    ear.subscribe("$bus.group.rebalanced", payload_type=events.GroupRebalanced)
    members = [join(attach("a")), join(attach("b"))]
    told = [ear.receive(60).payload for _ in range(2)]  # type: ignore[union-attr]
    assert [(e.group, e.key, e.reason) for e in told] == [("workers", "order.{*}.>", "joined")] * 2
    assert [{m.name for m in e.members} for e in told] == [{"a"}, {"a", "b"}]
    for n in range(20):
        assert told[1].owner(f"order.{n}.new") == owner_of(bus, f"order.{n}.old")
    members[0].close()
    left = ear.receive(60).payload  # type: ignore[union-attr]
    assert (left.reason, [m.name for m in left.members]) == ("left", ["b"])
    assert left.owner("order.1.x") == "b"


def test_a_worker_that_keeps_state_by_key_can_share_work(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    """Each loads a key's state when it first meets it, and drops what it does not own any more."""
    source, ended = attach("source"), recorder("result.>")
    store: dict[str, int] = {}
    loads, lock = list[str](), threading.Lock()

    def work(name: str) -> Endpoint:
        state: dict[str, int] = {}
        endpoint = attach(name)

        def count(message: Message) -> None:
            key = message.type.split(".")[1]
            if key not in state:
                with lock:
                    loads.append(f"{name} {key}")
                state[key] = store.get(key, 0)
            assert state[key] == store.get(key, 0), "somebody else has worked on it"
            state[key] += 1
            store[key] = state[key]
            endpoint.publish(f"result.{key}", state[key])

        def forget(message: Message) -> None:
            for key in [k for k in state if message.payload.owner(f"order.{k}.x") != name]:
                del state[key]

        endpoint.subscribe("$bus.group.rebalanced", forget, payload_type=events.GroupRebalanced)
        join(endpoint, count)
        endpoint.start()
        return endpoint

    def send(times: int) -> None:
        source.publish_many([(f"order.{n % 10}.x", None) for n in range(10 * times)])

    first = work("first")
    send(20)
    second = work("second")
    send(20)
    first.close()
    send(20)
    ended.wait(600)
    assert store == dict.fromkeys(map(str, range(10)), 60)
    assert second.name in {each.split()[0] for each in loads}
    by_key = defaultdict[str, list[int]](list)
    for message in ended.messages:
        by_key[message.type].append(message.payload)
    assert all(sorted(each) == [*range(1, 61)] for each in by_key.values())


@pytest.mark.parametrize(
    ("pattern", "key", "why"),
    [
        (PATTERN, "order.*.>", "no token of it stands in braces"),
        (PATTERN, "order.{id}", "not the pattern"),
        (PATTERN, "{order}.*.>", "not the pattern"),
        (PATTERN, "order.{}.>", "not the pattern"),
        ("order.new", "order.{id}", "with a \\* for each token"),
        ("$bus.*", "$bus.{x}", "have no key"),
        ("*." * 33 + "x", "*." * 32 + "{id}.x", "first 32"),
    ],
)
def test_a_key_that_is_none_is_refused_at_once(
    attach: Attach, pattern: str, key: str, why: str
) -> None:
    with pytest.raises(errors.InvalidSetting, match=why):
        attach("e").subscribe(pattern, group="g", key=key)


def test_a_key_without_a_group_is_refused(attach: Attach) -> None:
    with pytest.raises(errors.InvalidSetting, match="Give a group="):
        attach("e").subscribe(PATTERN, key=KEY)


def test_members_must_agree_about_the_key(bus: shmbus.Bus, attach: Attach) -> None:
    first, second = join(attach("first")), attach("second")
    for pattern, key, mine in (
        ("order.*.*", "order.{id}.*", "'order.{\\*}.\\*'"),
        (PATTERN, None, "no key"),
    ):
        with pytest.raises(errors.GroupConflict, match=mine) as caught:
            second.subscribe(pattern, group="workers", key=key)
        assert caught.value.theirs == "order.{*}.>"
    first.subscribe("job", group="others")
    with pytest.raises(errors.GroupConflict, match="have no key"):
        second.subscribe("job.*", group="others", key="job.{id}")
    join(second)
    assert len(bus.route("order.1.x").receivers) == 2


def test_a_member_that_a_later_dispatcher_refused_is_shown(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(attach("first"))
    late = attach("late")
    monkeypatch.setattr(Subscribing, "_check_refused", lambda *_: None)  # nobody was there to ask
    late.subscribe("order.*.>", group="workers")
    (note,) = (e.note for e in bus.endpoints() if e.name == "late")
    assert note.startswith("nothing comes to it for order.*.> in group workers")


def test_python_and_the_dispatcher_agree_about_owners(bus: shmbus.Bus, attach: Attach) -> None:
    source, members = attach("source"), {n: join(attach(n)) for n in ("a", "b", "c", "d")}
    generations = {e.generation: e.name for e in bus.endpoints() if e.name in members}
    eventually(lambda: settled(bus))
    types = [f"order.{n}.{'x' * (n % 7)}y" for n in range(60)] + ["order.a.b.c", "order.-_.z"]
    source.publish_many([(type, None) for type in types])
    eventually(lambda: bus.health().routed >= len(types))
    for name, each in members.items():
        for message in drained(each):
            assert generations[keys.owner(message.type, MASK, generations) or 0] == name
            types.remove(message.type)
    assert not types


class Model:
    """Of each key what is published, what is done, and who has one in hand."""

    def __init__(self, bus: shmbus.Bus, stack: contextlib.ExitStack) -> None:
        self.bus, self.stack, self.names = bus, stack, count()
        self.source = stack.enter_context(bus.attach("source"))
        self.members: dict[str, Endpoint] = {}
        self.hands: dict[str, tuple[str, int]] = {}
        self.published: dict[str, int] = defaultdict(int)
        self.done: dict[str, int] = defaultdict(int)
        self.join(0)

    def join(self, _: int) -> None:
        name = f"m{next(self.names)}"
        self.members[name] = join(self.stack.enter_context(self.bus.attach(name)))

    def pick(self, n: int) -> str:
        return sorted(self.members)[n % len(self.members)]

    def publish(self, n: int) -> None:
        key = str(n % 7)
        self.source.publish(f"order.{key}.x", self.published[key])
        self.published[key] += 1

    def receive(self, n: int) -> None:
        name = self.pick(n)
        message = self.members[name].receive(0)
        self.finish(name)  # what it had before
        if message is not None:
            key = message.type.split(".")[1]
            assert key not in {other for other, _ in self.hands.values()}
            assert message.payload == self.done[key]
            self.hands[name] = key, message.payload

    def finish(self, name: str) -> None:
        if name in self.hands:
            key, number = self.hands.pop(name)
            self.done[key] = number + 1

    def close(self, n: int) -> None:
        if len(self.members) > 1:
            name = self.pick(n)
            self.members.pop(name).close()
            self.finish(name)

    def evict(self, n: int) -> None:
        if len(self.members) > 1:
            name = self.pick(n)
            self.bus.evict(name)
            self.hands.pop(name, None)
            del self.members[name]  # closed at the end: what it has in hand would count as done

    def all_done(self) -> bool:
        for n in range(len(self.members)):
            self.receive(n)
        return self.done == self.published


@pytest.mark.slow
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    st.lists(
        st.tuples(
            st.sampled_from(["publish"] * 5 + ["receive"] * 4 + ["join", "close", "evict"]),
            st.integers(0, 99),
        ),
        min_size=20,
        max_size=120,
    )
)
def test_a_key_is_on_one_hand_and_in_order_whoever_comes_and_goes(
    steps: list[tuple[str, int]],
) -> None:
    settings = shmbus.Settings(max_deliveries=255)
    name = f"keys-{os.getpid()}"
    with shmbus.serve(name, settings=settings) as bus, contextlib.ExitStack() as stack:
        model = Model(bus, stack)
        for step, n in steps:
            getattr(model, step)(n)
        eventually(model.all_done)
        assert bus.health().lost == 0
