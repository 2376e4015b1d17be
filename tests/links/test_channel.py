"""One direction to a peer: what becomes of frames, without a network."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import msgspec
import pytest

from shmbus.links import keys, losses, wire
from shmbus.links.arrivals import Ack, Arrivals
from shmbus.links.channel import Channel, Congestion
from shmbus.links.peer import Peer
from shmbus.links.rules import Rules
from shmbus.testing import eventually

RUN, TO = "0" * 16, "1" * 16


class Network:
    """What would be sent, by whom."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, int, int]] = []
        """Type, number and bytes of each numbered one."""
        self.lost: dict[str, int] = {}
        self.threads: set[str] = set()
        self.free = threading.Event()
        self.free.set()

    def put(self, key: str, attachment: bytes, payload: Any) -> None:
        self.free.wait(30)
        self.threads.add(threading.current_thread().name)
        head = wire.read_head(attachment)
        if head.seq:
            self.frames.append((key.rpartition("/")[2], head.seq, len(payload)))
        elif key.endswith("lost"):
            self.lost |= dict(msgspec.msgpack.decode(head.body)[0])


def channel(
    network: Network,
    *,
    window: int = 1000,
    buffer: int = 2000,
    congestion: Congestion = "drop_newest",
) -> Channel:
    return Channel(
        keys.Outbox("space", "here", "there"),
        RUN,
        TO,
        network.put,
        window=window,
        buffer=buffer,
        congestion=congestion,
    )


def send(channel: Channel, type: str, size: int = 400, lane: str = wire.EVENT) -> None:
    channel.send(lane, type, b"\x90", bytes(size))


def test_no_more_than_the_window_is_under_way() -> None:
    network = Network()
    made = channel(network)
    for i in range(4):
        send(made, f"t{i}")
    assert [seq for _, seq, _ in network.frames] == [1, 2]
    made.acknowledge(1)
    assert [seq for _, seq, _ in network.frames] == [1, 2, 3]
    made.acknowledge(3)
    assert [type for type, _, _ in network.frames] == ["t0", "t1", "t2", "t3"]
    assert made.waiting_bytes == 0


@pytest.mark.parametrize("lane", [wire.EVENT, wire.SEND])
@pytest.mark.parametrize(
    ("congestion", "kept"), [("drop_newest", ["t0", "t1", "t2", "t3"]),
                             ("drop_oldest", ["t0", "t1", "t6", "t7"])]
)  # fmt: skip
def test_what_finds_no_space_is_dropped_and_counted_and_the_peer_is_told(
    congestion: Congestion, kept: list[str], lane: str
) -> None:
    network = Network()
    made = channel(network, buffer=1000, congestion=congestion)
    for i in range(8):
        send(made, f"t{i}", lane=lane)
    for seq in (2, 4):
        made.acknowledge(seq)
    assert [type for type, _, _ in network.frames] == kept
    assert made.messages + made.lost.total() == 8
    assert network.lost == dict(made.lost)


def test_a_small_frame_does_not_pass_a_large_one_that_waits() -> None:
    network = Network()
    made = channel(network)
    for type, size in (("a", 400), ("large", 800), ("small", 10)):
        send(made, type, size)
    assert [type for type, _, _ in network.frames] == ["a"]
    made.acknowledge(1)
    made.acknowledge(2)
    assert [type for type, _, _ in network.frames] == ["a", "large", "small"]


def test_events_that_fill_the_buffer_push_out_nothing_that_somebody_waits_for() -> None:
    network = Network()
    made = channel(network, buffer=2000)
    for _ in range(6):
        send(made, "event")
        made.send(wire.REPLY, "reply", b"\x90", bytes(200))
    assert set(made.lost) == {"event"}
    for seq in range(1, 13):
        made.acknowledge(seq)
    assert [type for type, _, _ in network.frames].count("reply") == 6


def test_what_somebody_waits_for_is_bounded_and_who_sent_it_is_told_once_there_is_space() -> None:
    network, told = Network(), list[int]()

    def lost(number: int) -> None:
        told.append(number)
        made.send(wire.REPLY, "failed", b"\x90", b"")

    made = channel(network)
    for number in range(100):
        made.send(wire.REPLY, "reply", b"\x90", bytes(400), lost=partial(lost, number))
    assert made.waiting_bytes <= 2000
    assert not made.has_room(400)
    assert told == []  # that would have to wait behind the others
    for seq in range(1, 200):
        made.acknowledge(seq)
    came = [type for type, _, _ in network.frames]
    assert told == [*range(came.count("reply"), 100)]
    assert came.count("failed") == len(told) == made.lost["reply"]


def test_frames_that_did_not_come_are_lost() -> None:
    network = Network()
    made = channel(network, window=5000)
    for i in range(5):
        made.send(wire.EVENT, f"t{i}", b"\x90", bytes(10), 3)
    made.acknowledge(5, [(2, 3)])
    assert made.lost == {"t1": 3, "t2": 3}
    assert network.lost == {"t1": 3, "t2": 3}


def test_losses_of_more_types_than_are_counted_are_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(losses, "TYPES", 3)
    network = Network()
    made = channel(network, window=5000)
    for i in range(6):
        send(made, f"t{i}", 10)
    made.acknowledge(6, [(1, 6)])
    assert made.lost == network.lost == {"t0": 1, "t1": 1, "t2": 1, "$other": 3}
    peer = Peer("there", TO, Rules([">"], [">"]), made)
    for type, count in {"t9": 1, **network.lost}.items():
        peer.lose(type, count)
    assert peer.lost == {"t9": 1, "t0": 1, "t1": 1, "$other": 4}
    told = [peer.take_untold(type) for type in ("t1", "t1", "t5", "t6", "t0", "t9")]
    assert told == [1, 0, 4, 0, 1, 1]


def test_who_sent_what_did_not_come_is_told_once_it_is_known() -> None:
    network, told = Network(), list[str]()
    made = channel(network, window=10_000)
    for name in "abc":
        made.send(wire.REQUEST, name, b"\x90", b"", lost=partial(told.append, name))
    made.acknowledge(2, [(2, 2)])
    made.acknowledge(3)
    assert told == ["b"]


def test_after_a_cut_all_is_either_there_or_lost() -> None:
    network = Network()
    made = channel(network)
    for i in range(4):
        send(made, f"t{i}")
    made.cut()
    assert made.lost == {"t2": 1, "t3": 1}
    made.resume(1)
    assert made.lost == {"t1": 1, "t2": 1, "t3": 1}
    assert network.lost == dict(made.lost)
    send(made, "t4")
    assert network.frames[-1][:2] == ("t4", 3)


def test_who_sent_something_in_a_cut_is_told_once_the_peer_is_there_again() -> None:
    network, told = Network(), list[str]()
    made = channel(network)
    for name in ("sent", "waits"):
        made.send(wire.REPLY, name, b"\x90", bytes(800), lost=partial(told.append, name))
    made.cut()
    made.send(wire.REPLY, "later", b"\x90", b"", lost=partial(told.append, "later"))
    assert told == []
    made.resume(0)
    assert sorted(told) == ["later", "sent", "waits"]


def test_a_peer_that_takes_nothing_stalls_a_thread_and_not_who_sends() -> None:
    network = Network()
    made = channel(network, window=1 << 20, buffer=1 << 20)
    network.free.clear()
    send(made, "large", 200_000)
    for _ in range(100):
        send(made, "small", 100)
    assert network.frames == []
    network.free.set()
    eventually(lambda: len(network.frames) == 101)
    assert [seq for _, seq, _ in network.frames] == [*range(1, 102)]
    assert threading.current_thread().name not in network.threads
    made.close()


def test_a_buffer_that_drops_nothing_says_that_it_is_full() -> None:
    network = Network()
    made = channel(network, window=500, buffer=500, congestion="block")
    states = []
    for _ in range(3):
        send(made, "a")
        states.append(made.full)
    for seq in (1, 2):
        made.acknowledge(seq)
        states.append(made.full)
    assert states == [False, False, True, False, False]
    assert made.lost.total() == 0


def test_gaps_are_told_once_and_repeated_frames_are_not_taken() -> None:
    arrivals = Arrivals()
    assert [arrivals.come(seq, 10) for seq in (1, 2, 2, 5, 4)] == [True, True, False, True, False]
    assert arrivals.due
    assert arrivals.ack() == Ack(5, ((3, 4),))
    assert arrivals.ack() is None


def test_what_is_missing_at_the_end_is_told_when_the_peer_says_where_that_is() -> None:
    arrivals = Arrivals()
    arrivals.come(1, 10)
    assert not arrivals.end(1)
    assert arrivals.end(3)
    assert arrivals.ack() == Ack(3, ((2, 3),))
    assert not arrivals.come(2, 10)


def test_nothing_is_acknowledged_before_it_is_done_with() -> None:
    arrivals = Arrivals()
    arrivals.come(1, 10)
    held = arrivals.come(2, 10) and arrivals.hold()
    arrivals.come(3, 10)
    assert arrivals.ack() == Ack(1)
    arrivals.release(held)
    assert arrivals.ack() == Ack(3)
