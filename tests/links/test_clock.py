"""Clocks of other machines: a link knows by how much they are ahead, and how well it knows that."""

from __future__ import annotations

import random

import pytest

from shmbus.links.clock import BUSY, DRIFT, IDLE, UNKNOWN, Clock, Pong, answered

MS = 1_000_000


def measure(clock: Clock, now: int, ahead: int, there: int, back: int) -> int:
    """A ping that takes so long each way, to a peer whose clock is so much ahead: when its answer
    has come."""
    ping = clock.ping(now)
    came = now + there
    pong = answered(ping, came + ahead, came + ahead + 5_000)
    arrived = came + 5_000 + back
    assert clock.take(pong, arrived) == there + back
    return arrived


@pytest.mark.smoke
@pytest.mark.parametrize("ahead", [0, 3 * 10**15, -(10**12)])
def test_a_time_from_there_is_told_within_its_error(ahead: int) -> None:
    clock, dice, now = Clock(), random.Random(7), 10**14
    for _ in range(50):
        now = measure(clock, now, ahead, dice.randrange(MS), dice.randrange(MS)) + 10 * MS
        sent = now - 3 * MS
        told, error = clock.here(sent + ahead, now)
        assert abs(told - sent) <= error <= MS


def test_a_clock_that_has_begun_anew_is_known_and_one_that_has_slept_is_not_taken_for_that() -> (
    None
):
    second = 1000 * MS
    clock, now, uptime = Clock(), 10**15, 3 * 10**13
    assert not clock.began_anew_since(uptime, now, now)  # nothing is known
    now = measure(clock, now, uptime - now, MS, MS)
    hour_ago = now - 3600 * second
    stamp = hour_ago + uptime - now
    assert not clock.began_anew_since(stamp, hour_ago, now)
    assert not clock.began_anew_since(stamp - 1800 * second, hour_ago, now)  # this one has slept
    assert clock.began_anew_since(stamp + 60 * second, hour_ago, now)


def test_the_quickest_of_the_last_pings_counts() -> None:
    clock = Clock()
    now = measure(clock, 10**12, 500, 9 * MS, MS)
    now = measure(clock, now, 500, 100, 100)
    now = measure(clock, now, 500, 40 * MS, 0)
    assert clock.known is not None
    assert clock.known.ahead_ns == 500
    assert clock.round_trip_ns == 200


def test_what_is_old_is_known_less_well() -> None:
    clock = Clock()
    now = measure(clock, 10**12, 0, 100, 100)
    _, fresh = clock.here(now, now)
    _, old = clock.here(now, now + 60 * 10**9)
    assert old == fresh + 60 * 10**9 // DRIFT
    later = measure(clock, now + 60 * 10**9, 7 * MS, MS, MS)  # slower, but it has not drifted
    assert clock.here(later + 7 * MS, later) == (later, MS)


def test_nothing_comes_from_the_future() -> None:
    clock = Clock()
    now = measure(clock, 10**12, 0, 2 * MS, 0)
    told, _ = clock.here(now, now)
    assert told <= now


def test_before_the_first_answer_nothing_is_known() -> None:
    clock = Clock()
    assert clock.here(5, 10**12) == (10**12, UNKNOWN)
    assert clock.round_trip_ns == UNKNOWN


def test_answers_that_cannot_be_change_nothing() -> None:
    clock = Clock()
    ping = clock.ping(1_000)
    assert clock.take(Pong(999, 10, 20), 2_000) is None  # to no ping
    assert clock.take(Pong(ping.left_ns, 20, 10), 2_000) is None  # answered before it came
    assert clock.take(Pong(ping.left_ns, 0, 5_000), 2_000) is None  # or after its answer had come
    assert clock.known is None
    assert clock.take(Pong(ping.left_ns, 10, 20), 2_000) == 990
    assert clock.take(Pong(ping.left_ns, 10, 20), 2_000) is None  # again


def test_pings_are_many_at_first_and_few_while_nothing_comes() -> None:
    clock, now, pings = Clock(), 10**12, 0
    while clock.due(now):
        now = measure(clock, now, 0, 100, 100)
        pings += 1
    assert pings == 4
    assert not clock.due(now + BUSY // 2)
    assert clock.due(now + BUSY)
    assert not clock.due(now + BUSY, idle=True)
    assert clock.due(now + IDLE, idle=True)
    clock.ping(now)  # an answer that is lost is not waited for
    assert not clock.due(now + MS)
    assert clock.due(now + BUSY)
