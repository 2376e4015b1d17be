"""How an endpoint of an event loop ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import subprocess
import sys
import threading
import warnings

import pytest

import shmbus
import shmbus.aio
from shmbus import errors
from shmbus.aio import ending, jobs
from shmbus.testing import BusProcess, eventually

from .stage import AioAttach, facts


def keep(ep: shmbus.aio.Endpoint) -> list[shmbus.Message]:
    """Answer no request of type `never`, and keep those that come."""
    kept: list[shmbus.Message] = []

    @ep.handle("never")
    def never(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    ep.start()
    return kept


async def test_close_waits_for_tasks_at_work(attach: AioAttach) -> None:
    async with attach("client") as client:
        begun, finish = asyncio.Event(), asyncio.Event()
        server = await attach("server")

        @server.handle("work")
        async def work(message: shmbus.Message) -> str:
            begun.set()
            await finish.wait()
            return "done"

        server.start()
        reply = asyncio.create_task(client.request("work", timeout=60))
        await begun.wait()
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        finish.set()
        assert (await reply).payload == "done"
        await closing
        with pytest.raises(errors.EndpointClosed):
            await server.publish("x")


async def test_tasks_that_do_not_end_are_cancelled_and_their_requesters_told(
    attach: AioAttach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "PATIENCE", 0.05)
    async with attach("client") as client:
        cancelled = asyncio.Event()
        server = await attach("server")

        @server.handle("work")
        async def work(message: shmbus.Message) -> None:
            try:
                await asyncio.sleep(600)
            finally:
                cancelled.set()

        server.start()
        reply = asyncio.create_task(client.request("work", timeout=60))
        while not server._looped.jobs:
            await asyncio.sleep(0)
        await server.close()
        assert cancelled.is_set()
        with pytest.raises(errors.EndpointDied):
            await reply


async def test_a_task_that_refuses_to_end_is_named_and_does_not_hold_up_the_end(
    attach: AioAttach, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ending, "PATIENCE", 0.02)
    monkeypatch.setattr(jobs, "CANCELLED", 0.02)
    server, freed = await attach("server"), asyncio.Event()

    async def refuse(message: shmbus.Message) -> None:
        while not freed.is_set():
            try:
                await freed.wait()
            except asyncio.CancelledError:
                continue

    await server.subscribe("job", refuse)
    server.start()
    await server.publish("job")
    while not server._looped.jobs:
        await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING, logger="shmbus"):
        await server.close()
    assert "1 of its tasks did not end" in caplog.text
    freed.set()
    await asyncio.sleep(0.01)


async def test_a_handler_may_close_its_endpoint(attach: AioAttach) -> None:
    server = await attach("server")

    async def leave(message: shmbus.Message) -> None:
        await server.close()

    await server.subscribe("leave", leave)
    async with attach("client") as client:
        await client.publish("leave")
        await server.run()
        await server.close()


@pytest.mark.smoke
async def test_drain_finishes_what_was_accepted(bus: shmbus.Bus, attach: AioAttach) -> None:
    async with attach("client") as client:
        server, done = await attach("server"), list[int]()

        async def work(message: shmbus.Message) -> None:
            await asyncio.sleep(0)
            done.append(message.payload)

        await server.subscribe("job", work, concurrency=2)
        await client.publish_many([("job", n) for n in range(300)])
        while not server._looped.data_waits():
            await asyncio.sleep(0)
        await server.drain()
        assert sorted(done) == list(range(len(done)))
        assert bus.find("job") == []
        assert sum(loss.count for loss in bus.losses()) == 0


async def test_drain_says_how_much_is_left(
    attach: AioAttach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "PATIENCE", 0.02)
    server = await attach("server")

    async def hang(message: shmbus.Message) -> None:
        await asyncio.sleep(600)

    await server.subscribe("job", hang)
    server.start()
    await server.publish_many([("job", 1), ("job", 2)])
    while server._looped.jobs < 2:
        await asyncio.sleep(0)
    with pytest.raises(errors.DrainTimeout) as caught:
        await server.drain(timeout=0.05)
    assert caught.value.left == 2


async def test_a_drain_that_is_cancelled_gives_up_what_is_not_finished_and_closes(
    attach: AioAttach,
) -> None:
    server, begun = await attach("server"), asyncio.Event()

    async def hang(message: shmbus.Message) -> None:
        begun.set()
        await asyncio.sleep(600)

    await server.subscribe("job", hang)
    server.start()
    await server.publish("job")
    await begun.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await server.drain(None)
    with pytest.raises(errors.EndpointClosed):
        await server.publish("job")


async def test_whoever_waits_when_it_is_closed_is_told(attach: AioAttach) -> None:
    ep = await attach("ep")
    sub = await ep.subscribe("note")
    kept = keep(ep)
    async with attach("client") as client:
        own = asyncio.create_task(client.request("never", timeout=None))

        async def iterate() -> str:
            async for _ in sub:
                pass
            return "ended"

        iterating = asyncio.create_task(iterate())
        receiving = asyncio.create_task(ep.receive())
        request = asyncio.create_task(ep.request("never", timeout=None))
        running = asyncio.create_task(ep.run())
        while len(kept) < 2:
            await asyncio.sleep(0.001)
        await ep.close()
        assert await iterating == "ended"
        await running
        with pytest.raises(errors.EndpointClosed):
            await receiving
        with pytest.raises(errors.EndpointClosed):
            await request
        with pytest.raises(errors.EndpointDied):
            await own
        kept.clear()


async def test_a_close_that_is_cancelled_closes_all_the_same(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    ep = await attach("ep")
    closing = asyncio.create_task(ep.close())
    while ep._ending._leaving is None:
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    while bus.endpoints():
        await asyncio.sleep(0.001)


async def test_an_attach_that_is_cancelled_leaves_no_endpoint(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    for number, pause in enumerate((0, 0, 0.0005, 0.001, 0.002)):
        task = asyncio.ensure_future(attach(f"ep-{number}"))
        await asyncio.sleep(pause)
        task.cancel()
        try:
            ep = await task
        except asyncio.CancelledError:
            continue
        await ep.close()
    while bus.endpoints():
        await asyncio.sleep(0.001)


async def test_attaching_waits_for_the_bus_and_the_loop_goes_on(bus_name: str) -> None:
    task = asyncio.ensure_future(shmbus.aio.attach(bus_name, name="early", timeout=60))
    await asyncio.sleep(0.02)
    assert not task.done()
    with shmbus.serve(bus_name):
        await (await task).close()
    with pytest.raises(errors.AttachTimeout):
        await shmbus.aio.attach(bus_name, name="late", timeout=0.05)


async def test_no_thread_stays_behind(attach: AioAttach) -> None:
    before = threading.active_count()
    async with attach("one") as one, attach("two") as two:
        two.handle("ping", lambda message: "pong")
        await one.subscribe("note", lambda message: None)
        one.start()
        two.start()
        await one.request("ping")
        assert threading.active_count() <= before


def test_an_endpoint_that_was_never_closed_says_so(bus: shmbus.Bus) -> None:
    async def main() -> None:
        await shmbus.aio.attach(bus.name, name="forgotten")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
        eventually(lambda: gc.collect() is not None and bus.endpoints() == [])
    assert any("forgotten" in str(warning.message) for warning in caught)


PROGRAM = """
import asyncio, contextlib, sys
import shmbus.aio
from shmbus.aio import ending

ending.PATIENCE = 0.2

async def main(bus):
    async with shmbus.aio.attach(bus, name="program") as ep:
        @ep.handle("work")
        async def work(message):
            await asyncio.sleep(600)
        await ep.subscribe("note", work)
        sub = await ep.subscribe("other")
        async def ask():
            with contextlib.suppress(shmbus.BusError):
                await ep.request("work", timeout=None)
        async def iterate():
            async for message in sub:
                pass
        tasks = [asyncio.create_task(ask()), asyncio.create_task(iterate())]
        await ep.publish("note", 1)
        ep.start()
        print("ready", flush=True)
        await ep.run()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("kind", ["ctrl-c", "twice"])
def test_ctrl_c_ends_a_program_and_no_warning_shows(bus: shmbus.Bus, kind: str) -> None:
    program = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, bus.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGINT)
    if kind == "twice":
        eventually(lambda: bus.find("work") == [])
        program.send_signal(signal.SIGINT)
    _, complaints = program.communicate(timeout=60)
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    for word in ("Warning", "never retrieved", "destroyed", "never awaited"):
        assert word not in complaints
    eventually(lambda: bus.endpoints() == [])


AT_A_PLACE = """
import asyncio, contextlib, os, signal, sys
import shmbus.aio
from shmbus.aio import ending

ending.PATIENCE = 0.2
place, passed = int(sys.argv[2]), -1

FOLLOWED = {os.path.dirname(module.__file__) for module in (asyncio, ending)}

def enter(frame, event, argument):
    return line if os.path.dirname(frame.f_code.co_filename) in FOLLOWED else None

def line(frame, event, argument):
    global passed
    if event == "line" and (passed >= 0 or frame.f_code.co_filename == ending.__file__):
        passed += 1
        if passed == place:
            print(frame.f_code.co_qualname, frame.f_lineno, flush=True)
            signal.raise_signal(signal.SIGINT)
    return line

def press():
    sys.settrace(enter)
    signal.raise_signal(signal.SIGINT)

async def worker(bus):
    async with shmbus.aio.attach(bus) as ep:
        @ep.handle("work")
        async def work(message):
            await asyncio.sleep(600)
        sub = await ep.subscribe("other")
        async def ask():
            with contextlib.suppress(shmbus.BusError):
                await ep.request("work")
        async def iterate():
            async for message in sub:
                pass
        tasks = [asyncio.create_task(ask()), asyncio.create_task(iterate())]
        asyncio.get_running_loop().call_later(0.05, press)
        if sys.argv[3] == "run":
            await ep.run()
        else:
            ep.start()
            try:
                await asyncio.Event().wait()
            finally:
                await ep.drain(0.2)

async def main(bus):
    try:
        await worker(bus)
    finally:
        sys.settrace(None)

try:
    asyncio.run(main(sys.argv[1]), debug=True)
finally:
    print(passed, "places")
"""


@pytest.mark.slow
@pytest.mark.parametrize("leaves", ["run", "drain"])
def test_a_second_ctrl_c_wherever_it_comes_while_an_endpoint_leaves_ends_the_program(
    bus: shmbus.Bus, leaves: str
) -> None:
    def press_at(place: int) -> tuple[list[str], str]:
        program = [sys.executable, "-c", AT_A_PLACE, bus.name, str(place), leaves]
        ended = subprocess.run(program, capture_output=True, text=True, timeout=60)
        return ended.stdout.splitlines(), ended.stderr

    places = int(press_at(-1)[0][-1].split()[0])
    assert places > 100
    pressed = 0
    while pressed < 4:
        place = random.randrange(places)
        printed, complaints = press_at(place)
        if (
            len(printed) == 1
        ):  # it took another way, a shorter one, and had ended before it came there
            places = int(printed[0].split()[0])
            continue
        pressed += 1
        where = f"at {place}, {printed[0]}"
        assert complaints.rstrip().endswith("KeyboardInterrupt"), where
        assert "never retrieved" not in complaints, where
        assert bus.endpoints() == [], where


def test_ctrl_c_is_as_it_was_once_an_endpoint_has_left_that_the_end_of_main_interrupted(
    bus: shmbus.Bus,
) -> None:
    async def main() -> None:
        ep = await shmbus.aio.attach(bus.name, name="short")
        task = asyncio.create_task(ep.close())
        await asyncio.sleep(0)
        assert signal.getsignal(signal.SIGINT) != before
        assert not task.done()

    before = signal.getsignal(signal.SIGINT)
    asyncio.run(main())
    assert signal.getsignal(signal.SIGINT) == before
    eventually(lambda: bus.endpoints() == [])


async def test_the_death_of_an_endpoint_is_told_in_the_loop(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("watcher") as watcher:
        deaths: list[tuple[str, str]] = []
        told = asyncio.Event()

        async def tell(death: shmbus.Death) -> None:
            await asyncio.sleep(0)
            deaths.append((death.name, death.reason))
            told.set()

        other = await attach("other")
        watcher.on_death("other", tell)
        await other.close()
        await told.wait()
        assert deaths == [("other", "detached")]


async def test_a_callback_of_a_death_that_does_not_end_is_cancelled_at_the_end(
    attach: AioAttach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "PATIENCE", 0.02)
    begun, cancelled = asyncio.Event(), asyncio.Event()
    async with attach("watcher") as watcher:

        async def tell(death: shmbus.Death) -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

        watcher.on_death("nobody", tell)
        await begun.wait()
    assert cancelled.is_set()


async def test_a_dispatcher_that_dies_fails_what_is_under_way(
    bus_name: str, bus_process: BusProcess
) -> None:
    async with shmbus.aio.attach(bus_name, name="ep") as ep:
        sub = await ep.subscribe("note")
        kept = keep(ep)
        request = asyncio.create_task(ep.request("never", timeout=None))
        iterating = asyncio.create_task(anext(aiter(sub)))
        await asyncio.sleep(0.01)
        bus_process.kill()
        with pytest.raises(errors.BusDown):
            await request
        with pytest.raises(errors.BusDown):
            await iterating
        kept.clear()


async def test_with_reconnect_a_dispatcher_s_death_is_ridden_out(
    bus_name: str, bus_process: BusProcess
) -> None:
    attached = shmbus.aio.attach(bus_name, name="ep", reconnect=True)
    async with attached as ep:
        sub = await ep.subscribe("note")

        @ep.handle("late")
        async def late(message: shmbus.Message) -> str:
            await gone.wait()
            return "answered"

        gone = asyncio.Event()
        ep.start()
        request = asyncio.create_task(ep.request("late", timeout=60))
        first = asyncio.create_task(anext(aiter(sub)))
        while not ep._looped.jobs:
            await asyncio.sleep(0)
        bus_process.kill()
        await ep.publish("note", "meanwhile")
        gone.set()
        await asyncio.to_thread(bus_process.start)
        assert (await request).payload == "answered"
        assert (await first).payload == "meanwhile"


async def test_who_is_evicted_is_told(bus: shmbus.Bus, attach: AioAttach) -> None:
    ep = await attach("ep")
    sub = await ep.subscribe("note")
    waiting = asyncio.create_task(anext(aiter(sub)))
    await asyncio.sleep(0)
    bus.evict("ep")
    with pytest.raises(errors.Evicted):
        await waiting
    with pytest.raises(errors.Evicted):
        await ep.request("x")
    await ep.close()


async def test_who_rides_out_a_death_is_told_where_the_bus_is_over(
    bus_name: str, bus_process: BusProcess
) -> None:
    async with shmbus.aio.attach(bus_name, name="ep") as ep:
        running = asyncio.create_task(ep.run())
        await asyncio.sleep(0)
        bus_process.kill()
        while ep._turns.trouble is None:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert not running.done()
        with await asyncio.to_thread(shmbus.serve, bus_name):
            pass  # and ended in good order
        with pytest.raises(errors.BusDown):
            await running


async def test_a_handler_is_added_while_the_dispatcher_is_gone_and_the_next_one_knows_of_it(
    bus_name: str, bus_process: BusProcess
) -> None:
    async with shmbus.aio.attach(bus_name, name="ep", reconnect=True) as ep:
        bus_process.kill()
        while ep._inner._connection.trouble() == 0:
            await asyncio.sleep(0.001)
        ep.handle("late", lambda message: "answered")  # which raises nothing
        ep.start()
        await asyncio.to_thread(bus_process.start)
        retry = shmbus.Retry(attempts=100, on=(errors.NoRoute,))
        assert (await ep.request("late", timeout=60, retry=retry)).payload == "answered"


async def test_who_iterates_gets_what_had_come_before_the_end(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    ep = await attach("ep")
    sub, got = await ep.subscribe("note"), list[int]()
    await ep.publish_many([("note", number) for number in range(5)])
    while facts(bus, "ep").untouched < 5:
        await asyncio.sleep(0)
    async for message in sub:
        got.append(message.payload)
        if len(got) == 1:
            await ep.close()
    assert got == list(range(5))
