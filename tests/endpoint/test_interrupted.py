"""A signal's handler may raise wherever Python runs it: that comes out of the call, leaves an
endpoint that works and closes, and harms no other."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import threading
from collections.abc import Callable, Iterator

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.testing import Attach, eventually, in_shm
from tests.in_time import in_time
from tests.interruption import Alarm, Interruption, Journey, Place, handled, shown
from tests.kept import Kept

FEW = 6
"""Places of each call that are tried where time is short."""

Call = Callable[[], object]


def prove(endpoint: shmbus.Endpoint) -> None:
    """That it works."""
    future = in_time(lambda: endpoint.request_async("echo", 1, timeout=60))
    told: list[object] = []
    in_time(lambda: future.add_done_callback(told.append))
    assert in_time(lambda: future.result(60)).payload == 1
    eventually(lambda: told)


def fill(endpoint: shmbus.Endpoint, send: Callable[..., object]) -> None:
    """Send until its ring is full, and wait for room then."""
    while True:
        send("flood", bytes(1000), timeout=60)


def fill_and_drain(endpoint: shmbus.Endpoint) -> Call:
    with contextlib.suppress(errors.QueueFull):
        while True:
            endpoint.publish("flood", bytes(1000), timeout=0.02)
    return endpoint.drain


def failing(error: type[BaseException], call: Call) -> Call:
    def failed() -> None:
        with pytest.raises(error):
            call()

    return failed


def asked(endpoint: shmbus.Endpoint) -> list[concurrent.futures.Future[Message]]:
    return [endpoint.request_async("echo", n, timeout=60) for n in range(3)]


def wait(endpoint: shmbus.Endpoint) -> Call:
    futures = asked(endpoint)
    return lambda: concurrent.futures.wait(futures, 60)


def wait_in_vain(endpoint: shmbus.Endpoint) -> Call:
    future = endpoint.request_async("later", timeout=60)
    endpoint.request("echo", timeout=60)  # by then the other is in hand
    return lambda: concurrent.futures.wait([future], 0.01)


def wait_for_each(endpoint: shmbus.Endpoint) -> Call:
    futures = asked(endpoint)
    return lambda: list(concurrent.futures.as_completed(futures, 60))


def run(endpoint: shmbus.Endpoint, threads: int) -> Call:
    """Until another thread closes it, which that does after the third message."""
    done: list[Message] = []
    endpoint.handle("work", done.append)
    for n in range(3):
        endpoint.send("work", n)

    def end() -> None:
        eventually(lambda: len(done) == 3 or endpoint._done.is_set())
        endpoint.close()

    threading.Thread(target=end).start()
    return lambda: endpoint.run(threads=threads)


def drain(endpoint: shmbus.Endpoint) -> Call:
    done: list[Message] = []
    endpoint.handle("work", done.append)
    for n in range(3):
        endpoint.send("work", n)
    return endpoint.drain


def leave(endpoint: shmbus.Endpoint) -> Call:
    def block() -> None:
        with endpoint:
            endpoint.publish("x")

    return block


def batch(endpoint: shmbus.Endpoint) -> Call:
    def block() -> None:
        with endpoint.batch() as batch:
            batch.publish("x")
            batch.publish("y")

    return block


def watch(endpoint: shmbus.Endpoint) -> Call:
    told: list[shmbus.Death] = []

    def both() -> None:
        endpoint.on_death("nobody", told.append)
        endpoint.on_death("server", told.append).close()

    return both


def iterate(endpoint: shmbus.Endpoint) -> Call:
    endpoint.subscribe("x")
    endpoint.publish("x")
    return lambda: next(iter(endpoint))


def start(endpoint: shmbus.Endpoint) -> Call:
    endpoint.handle("work", repr)
    return lambda: endpoint.start(threads=2)


CALLS: dict[str, Callable[[shmbus.Endpoint], Call]] = {
    "close": lambda ep: ep.close,
    "with": leave,
    "drain": drain,
    "run": lambda ep: run(ep, 1),
    "start": start,
    "wait": wait,
    "wait in vain": wait_in_vain,
    "as_completed": wait_for_each,
    "wait_for": lambda ep: lambda: ep.wait_for("echo"),
    "wait_for nobody": lambda ep: failing(
        errors.WaitTimeout, lambda: ep.wait_for("nobody", timeout=0.01)
    ),
    "on_death": watch,
    "endpoints": lambda ep: lambda: ep.bus.endpoints(),
    "find": lambda ep: lambda: ep.bus.find("echo"),
    "health": lambda ep: lambda: ep.bus.health(),
    "batch": batch,
    "callback": lambda ep: lambda: ep.request_async("echo", timeout=60).add_done_callback(repr),
    "request_many": lambda ep: lambda: list(ep.request_many([("echo", n) for n in range(3)])),
    "iteration": iterate,
    "subscribe": lambda ep: lambda: ep.subscribe("x").close(),
    "handle": lambda ep: lambda: ep.handle("work", repr),
}

IN_C: dict[str, Callable[[shmbus.Endpoint], Call]] = {
    "publish": lambda ep: lambda: fill(ep, ep.publish),
    "send": lambda ep: lambda: fill(ep, ep.send),
    "publish_many": lambda ep: lambda: ep.publish_many([("flood", bytes(1000))] * 500, timeout=60),
    "request": lambda ep: lambda: ep.request("later", timeout=60),
    "result": lambda ep: lambda: ep.request_async("later", timeout=60).result(60),
    "request_many": lambda ep: lambda: list(ep.request_many([("later", n) for n in range(9)])),
    "receive": lambda ep: lambda: ep.receive(60),
    "iteration": lambda ep: (ep.subscribe("x"), lambda: next(iter(ep)))[1],
    "run": lambda ep: (ep.handle("work", repr), ep.run)[1],
    "wait": lambda ep: lambda: concurrent.futures.wait([ep.request_async("later", timeout=60)], 60),
    "wait_for": lambda ep: lambda: ep.wait_for("nobody", timeout=60),
    "drain": fill_and_drain,
}
"""Calls that wait, or take long, in the C kernel."""


class Stage:
    """A bus on which calls are interrupted, of a server and of an endpoint that takes nothing."""

    def __init__(self, bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bus = bus
        self.kept = Kept()
        self.full = threading.Event()
        server, slow = attach("server"), attach("slow")
        server.handle("echo", lambda message: message.payload)
        server.handle("later", self.kept)
        server.start()
        slow.subscribe("flood", lambda message: self.full.wait(60))
        slow.handle("flood", lambda message: self.full.wait(60))
        slow.start()
        self.bystander = attach("bystander")
        prove(self.bystander)
        self.twice: list[int] = []
        close = os.close

        def checked(descriptor: int) -> None:
            try:
                close(descriptor)
            except OSError:
                self.twice.append(descriptor)

        monkeypatch.setattr(os, "close", checked)

    def interrupt(self, make: Callable[[shmbus.Endpoint], Call], how: Journey | Alarm) -> bool:
        """Make a call of an endpoint of its own, and interrupt it: whether the signal came."""
        self.full.clear()
        with self.nothing_left(), handled() as came:
            endpoint = shmbus.attach(self.bus.name, name="interrupted", timeout=60)
            theirs = endpoint.request_async("later", timeout=60)
            waiter = threading.Thread(target=theirs.exception)
            waiter.start()
            eventually(lambda: self.kept)
            raised = self.raised_by(how, make(endpoint))
            assert raised == bool(came), "it was swallowed"
            self.full.set()
            for message in self.kept:
                with contextlib.suppress(errors.BusError):
                    message.reply()
            self.kept.clear()
            if not endpoint._ending.begun:
                prove(endpoint)
            in_time(endpoint.close)
            assert "closed" in repr(endpoint)
            waiter.join(60)
            assert not waiter.is_alive()
            del endpoint
        prove(self.bystander)
        return raised

    @staticmethod
    def raised_by(how: Journey | Alarm, call: Call) -> bool:
        """Whether what the signal's handler raises comes out of it."""
        why = None
        try:
            how.through(call)
        except BaseException as raised:
            why = raised
        # A `threading.Condition` that is interrupted may raise another one in its place.
        while why is not None and not isinstance(why, Interruption):
            why = why.__context__
        return why is not None

    @contextlib.contextmanager
    def nothing_left(self) -> Iterator[None]:
        """A block that leaves no name, no descriptor, and closes none twice."""
        gc.collect()
        names, descriptors = in_shm(self.bus.name), _descriptors()
        yield
        gc.collect()  # the exception, and what its frames have
        eventually(lambda: in_shm(self.bus.name) == names, "its names are gone")
        eventually(lambda: _descriptors() <= descriptors, "its descriptors are closed")
        assert self.twice == []


def sweep(interrupt: Callable[[Journey], bool], most: int) -> None:
    """Interrupt at so many places."""
    journey = Journey()
    interrupt(journey)
    places = list(journey.places)
    chosen: list[Place] = places[:: -(-len(places) // most)]
    came = 0
    for place in chosen:
        try:
            came += interrupt(Journey(place))
        except BaseException as why:
            why.add_note(f"interrupted at {shown(place)}")
            raise
    assert came > len(chosen) / 2


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def stage(bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    gc.disable()  # what a collection finds is none of the interrupted call's
    gc.freeze()  # and collecting that itself takes long
    stage = Stage(bus, attach, monkeypatch)
    yield stage
    stage.full.set()
    gc.unfreeze()
    gc.enable()


small = pytest.mark.bus(in_bytes=65536, out_bytes=65536, block_timeout=3600)

# An interrupted `open` leaves its file to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@small
@pytest.mark.parametrize("call", CALLS)
def test_an_interruption_here_and_there_comes_out_and_harms_nothing(
    stage: Stage, call: str
) -> None:
    sweep(lambda how: stage.interrupt(CALLS[call], how), FEW)


@small
@pytest.mark.parametrize("call", IN_C)
def test_an_interruption_of_a_wait_comes_out_and_harms_nothing(stage: Stage, call: str) -> None:
    for delay in (0.0001, 0.03):
        assert stage.interrupt(IN_C[call], Alarm(delay))


def attach_and_close(stage: Stage) -> None:
    shmbus.attach(stage.bus.name, name="new", timeout=60).close()


def serve_and_close(stage: Stage) -> None:
    with shmbus.serve(f"{stage.bus.name}-2", settings=shmbus.Settings(in_bytes=4096)) as bus:
        bus.attach("e").close()


@small
@pytest.mark.parametrize("call", [attach_and_close, serve_and_close])
def test_an_interrupted_beginning_can_be_made_anew(
    stage: Stage, call: Callable[[Stage], None]
) -> None:
    def begin(how: Journey) -> bool:
        with stage.nothing_left(), handled() as came:
            raised = stage.raised_by(how, lambda: call(stage))
            assert raised == bool(came), "it was swallowed"
            call(stage)
        return raised

    sweep(begin, FEW)
