"""The second bell of an endpoint: an event that becomes readable where something comes, for who
sleeps in an event loop."""

from __future__ import annotations

import array
import os
import resource
import select
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import shmbus
from shmbus import Bus, Endpoint, errors
from shmbus.shared import door
from shmbus.shared.door import Answer, Knock
from shmbus.shared.layout import LAYOUT, DoorCode, EventWant
from shmbus.testing import TIMEOUT, BusProcess, eventually

DATA, REPLIES, STATE = EventWant.DATA, EventWant.REPLIES, EventWant.STATE


def open_event(endpoint: Endpoint) -> int:
    return endpoint._connection.open_event(TIMEOUT)


def readable(fd: int, timeout: float = TIMEOUT) -> bool:
    return bool(select.select([fd], [], [], timeout)[0])


def settle(endpoint: Endpoint, wants: int) -> None:
    """Look until there is nothing more, as a loop does before it sleeps."""
    while endpoint._connection.arm(wants):
        pass


@pytest.mark.smoke
def test_an_event_becomes_readable_where_a_message_comes_and_not_again_until_it_is_taken(
    bus: Bus,
) -> None:
    with bus.attach("a") as a, bus.attach("b") as b:
        event = open_event(a)
        a.subscribe("x")
        settle(a, DATA | STATE)
        assert not readable(event, 0)
        b.publish("x", 1)
        assert readable(event)
        assert os.read(event, 8) == (1).to_bytes(8, "little")
        b.publish("x", 2)
        eventually(lambda: bus.endpoints()[0].untouched == 2)
        assert not readable(event, 0)
        assert a._connection.arm(DATA)
        assert [message.payload for message in a.receive_many(9, 0)] == [1, 2]
        assert not a._connection.arm(DATA)


def test_what_nobody_wants_to_know_of_does_not_make_it_readable(bus: Bus) -> None:
    with bus.attach("a") as a, bus.attach("b") as b:
        event = open_event(a)
        a.subscribe("x")
        b.handle("r", lambda message: message.payload)
        b.start()
        future = a.request_async("r", 1)
        settle(a, REPLIES)
        assert readable(event)
        assert future.result(TIMEOUT).payload == 1  # or the thread of the futures has taken it
        assert not a._connection.arm(REPLIES)
        b.publish("x")
        eventually(a._data_waits)
        assert not readable(event, 0)
        assert a._connection.arm(DATA)


@pytest.mark.parametrize("ends", ["evicted", "closed", "over"])
def test_it_becomes_readable_where_the_endpoint_ends(bus: Bus, ends: str) -> None:
    with bus.attach("a") as a:
        event = os.dup(open_event(a))
        a._connection.disarm()
        settle(a, STATE)
        {"evicted": lambda: bus.evict("a"), "closed": a.close, "over": bus.close}[ends]()
        assert readable(event)
        with pytest.raises(errors.BusError):
            a.receive(0)
    assert a._connection.event == -1
    os.close(event)


def test_it_becomes_readable_where_the_bus_is_left_to_a_successor(bus_name: str) -> None:
    bus = shmbus.serve(bus_name)
    with bus.attach("a") as endpoint:
        event = open_event(endpoint)
        endpoint._connection.disarm()
        settle(endpoint, DATA | STATE)
        bus.close(handover=True)
        assert readable(event)
        with pytest.raises(errors.BusDown):
            endpoint.receive(0)
        with shmbus.serve(bus_name):
            endpoint.subscribe("x")
            settle(endpoint, DATA)
            endpoint.publish("x")
            assert readable(event)


@contextmanager
def knocked(endpoint: Endpoint, descriptors: list[int]) -> Iterator[Answer]:
    """What is answered to an endpoint that passes these."""
    owner = endpoint._seat.owner
    record = Knock(LAYOUT, int(owner.nonce, 16), owner.start).pack()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(door.path(endpoint.bus.name))
        passed = array.array("i", descriptors)
        connection.sendmsg([record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        yield Answer.unpack(connection.recv(door.ANSWER_SIZE))


def count_open() -> int:
    """Eventfds and pipes of this process."""
    count = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(file.readlink()).startswith(("anon_inode:[eventfd]", "pipe:"))
    return count


STRANGE: dict[str, tuple[Callable[[], Iterable[int]], int]] = {
    "a pipe": (os.pipe, 2),
    "one end of a pipe": (os.pipe, 1),
    "a pipe that does not block": (lambda: os.pipe2(os.O_NONBLOCK), 1),
    "one that blocks": (lambda: [os.eventfd(0)], 1),
    "two": (lambda: [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)], 2),
    "many": (lambda: [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(100)], 100),
}


@pytest.mark.parametrize("what", STRANGE)
def test_the_dispatcher_keeps_no_descriptor_that_is_no_event(bus: Bus, what: str) -> None:
    with bus.attach("a") as a:
        make, count = STRANGE[what]
        made = list(make())
        try:
            before = count_open()
            with knocked(a, made[:count]) as answer:
                assert answer.code == DoorCode.REFUSED
                assert "is not one eventfd" in answer.text
            eventually(lambda: count_open() == before)
        finally:
            for fd in made:
                os.close(fd)
        a.subscribe("x")
        a.publish("x", 1)
        message = a.receive(TIMEOUT)
        assert message is not None
        assert message.payload == 1


@pytest.mark.slow
def test_a_dispatcher_that_may_open_no_more_files_says_so_and_takes_it_later(
    bus_name: str, bus_process: BusProcess
) -> None:
    event = os.eventfd(0, os.EFD_NONBLOCK)
    with shmbus.attach(bus_name) as endpoint:
        pid, files = bus_process.pid, resource.RLIMIT_NOFILE
        before = resource.prlimit(pid, files)

        def refused(knock: Callable[[], bool]) -> bool:
            used = {int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()}
            _connection, limit = sorted(set(range(len(used) + 2)) - used)[:2]
            resource.prlimit(pid, files, (limit, before[1]))
            try:
                return knock()
            finally:
                resource.prlimit(pid, files, before)

        def by_hand() -> bool:
            with knocked(endpoint, [event]) as answer:
                return answer.code == DoorCode.REFUSED and "no more files" in answer.text

        def by_endpoint() -> bool:
            with pytest.raises(errors.Refused, match="ulimit -n"):
                endpoint._connection.open_event(0.1)
            return True

        eventually(lambda: refused(by_hand))  # at once, unless it was just closing one
        assert refused(by_endpoint)
        assert open_event(endpoint) >= 0
    os.close(event)


def test_an_event_is_closed_where_its_endpoint_ends_or_passes_another(bus: Bus) -> None:
    with bus.attach("b"):
        before = count_open()
        for _ in range(3):
            with bus.attach("a") as a:
                open_event(a)
                for _ in range(3):
                    fd = os.eventfd(0, os.EFD_NONBLOCK)
                    with knocked(a, [fd]) as answer:
                        assert answer.code == DoorCode.ADMITTED
                    os.close(fd)
        eventually(lambda: count_open() == before)


def test_a_forked_child_closes_its_copy(bus: Bus) -> None:
    with bus.attach("a") as a:
        event = open_event(a)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from 3.12 on, of forking beside threads
            pid = os.fork()
        if pid == 0:
            try:
                os.fstat(event)
                os._exit(1)
            except OSError:
                os._exit(0 if a._connection.event == -1 else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        a.subscribe("x")
        settle(a, DATA)
        a.publish("x")
        assert readable(event)
