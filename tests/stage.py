"""A bus on which calls of an endpoint are interrupted, and what must hold afterwards."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.endpoint import ending
from shmbus.testing import Attach, eventually, in_shm
from tests.in_time import in_time
from tests.interruption import Alarm, Interruption, Journey, Place, shown
from tests.kept import Kept

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
    interrupted = threading.Event()
    endpoint.handle("work", done.append)
    for n in range(3):
        endpoint.send("work", n)

    def end() -> None:
        eventually(lambda: len(done) == 3 or interrupted.is_set())
        if not interrupted.is_set():
            endpoint.close()

    closer = threading.Thread(target=end)
    closer.start()

    def block() -> None:
        try:
            endpoint.run(threads=threads)
        finally:
            interrupted.set()
            closer.join()  # from now on it is open, or closed

    return block


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
    "run by two": lambda ep: run(ep, 2),
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

    def __init__(self, bus: shmbus.Bus, attach: Attach) -> None:
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

    def interrupt(self, make: Callable[[shmbus.Endpoint], Call], how: Journey | Alarm) -> bool:
        """Make a call of an endpoint of its own, and interrupt it: whether the signal came."""
        self.full.clear()
        with self.nothing_left(how):
            endpoint = shmbus.attach(self.bus.name, name="interrupted", timeout=60)
            theirs = endpoint.request_async("later", timeout=60)
            waiter = threading.Thread(target=theirs.exception)
            waiter.start()
            eventually(lambda: self.kept)
            raised = how.comes_out_of(make(endpoint))
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

    def begin(self, call: Callable[[Stage], None], how: Journey) -> bool:
        """Make a call that begins something and ends it, interrupt it, and make it anew: whether
        the signal came."""
        with self.nothing_left(how):
            raised = how.comes_out_of(lambda: call(self))
        with self.nothing_left(how):
            call(self)
        return raised

    @contextlib.contextmanager
    def nothing_left(self, how: Journey | Alarm) -> Iterator[None]:
        """A block that leaves no name, descriptor or blocked signal, and closes nothing twice."""
        gc.collect()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        names, descriptors = {*in_shm(self.bus.name)}, _descriptors()
        # An alarm could ring in the midst of the Python code that looks.
        with contextlib.ExitStack() as looking:
            twice = looking.enter_context(closing_twice()) if isinstance(how, Journey) else []
            yield
            gc.collect()  # the exception, and what its frames have
            eventually(lambda: names.issuperset(in_shm(self.bus.name)), "its names are gone")
            eventually(lambda: _descriptors() <= descriptors, "its descriptors are closed")
        assert twice == []
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked


@contextlib.contextmanager
def staged(bus: shmbus.Bus, attach: Attach) -> Iterator[Stage]:
    """A block in which there is one."""
    gc.disable()  # what a collection finds is none of the interrupted call's
    gc.freeze()  # and collecting that itself takes long
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "CLOSING", 600.0)  # who waits for it in vain does not end in time
        stage = Stage(bus, attach)
        try:
            yield stage
        finally:
            stage.full.set()
            gc.unfreeze()
            gc.enable()


@contextlib.contextmanager
def closing_twice() -> Iterator[list[int]]:
    """A block; the descriptors that are closed in it and are not open."""
    twice: list[int] = []
    close = os.close

    def checked(descriptor: int) -> None:
        try:
            close(descriptor)
        except OSError:
            twice.append(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "close", checked)
        yield twice


def places_of(interrupt: Callable[[Journey], bool]) -> list[Place]:
    """All places at which it may be interrupted."""
    journey = Journey()
    interrupt(journey)
    return list(journey.places)


def sweep(
    interrupt: Callable[[Journey], bool],
    places: Sequence[Place],
    raising: Callable[[], type[BaseException]] = lambda: Interruption,
) -> None:
    """Interrupt at each of the places."""
    came = 0
    for place in places:
        raised = raising()
        try:
            came += interrupt(Journey(place, raised))
        except BaseException as why:
            why.add_note(f"interrupted by {raised.__name__} at {shown(place)}")
            raise
    assert came > len(places) / 2


def attach_and_close(stage: Stage) -> None:
    shmbus.attach(stage.bus.name, name="new", timeout=60).close()


def serve_and_close(stage: Stage) -> None:
    bus = shmbus.serve(f"{stage.bus.name}-2", settings=shmbus.Settings(in_bytes=4096))
    try:
        bus.attach("e").close()
    finally:
        try:
            bus.close()
        finally:  # that may be interrupted where it begins
            bus.close()


BEGINNINGS = (attach_and_close, serve_and_close)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
