"""What the processes of a stress test do in event loops: as those of `roles`, with its ledgers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import ledger
from crew import Place
from roles import ANSWERED, ASKED, DIED, NOBODY, hostile, number, numbers

import shmbus
import shmbus.aio
from shmbus import errors


def run(place: Place, main: Callable[[shmbus.aio.Endpoint], Awaitable[None]]) -> None:
    """Attach in a loop and do that."""

    async def attached() -> None:
        async with shmbus.aio.attach(
            place.bus, name=place.name, timeout=60.0, reconnect=True
        ) as endpoint:
            await main(endpoint)

    asyncio.run(attached())


def survive(place: Place) -> None:
    """Writes every event to a ledger, until `storm.end`."""
    book = ledger.Ledger(place.path("received"), 4)

    async def main(endpoint: shmbus.aio.Endpoint) -> None:
        await endpoint.subscribe("storm.event.>")
        await endpoint.subscribe("storm.end")
        async for message in endpoint:
            if message.type == "storm.end":
                return
            book.write(number(message.source), *numbers(message), message.lost)

    run(place, main)


def work(place: Place) -> None:
    """A member of the queue group."""
    book = ledger.Ledger(place.path("jobs"), 4)

    async def main(endpoint: shmbus.aio.Endpoint) -> None:
        async for message in await endpoint.subscribe("storm.job.>", group="workers"):
            if not hostile(message.source):
                book.write(number(message.source), *numbers(message), message.attempt)

    run(place, main)


def handle(place: Place) -> None:
    """Handles commands and answers requests, in tasks."""
    book = ledger.Ledger(place.path("tasks"), 4)

    async def task(message: shmbus.Message) -> None:
        if not hostile(message.source):
            book.write(number(message.source), *numbers(message), message.attempt)
        await asyncio.sleep(0)

    async def answer(message: shmbus.Message) -> object:
        await asyncio.sleep(0)
        return message.payload

    async def main(endpoint: shmbus.aio.Endpoint) -> None:
        endpoint.handle("storm.task.>", task)
        endpoint.handle("storm.ask", answer)
        await endpoint.run()

    run(place, main)


def ask(place: Place) -> None:
    """Makes one request after the other, until it is ended. Raises at a wrong reply."""
    book = ledger.Ledger(place.path("asked"), 2)

    async def main(endpoint: shmbus.aio.Endpoint) -> None:
        sequence = 0
        while True:
            token = [place.name, place.incarnation, sequence]
            book.write(sequence, ASKED)
            try:
                answer = (await endpoint.request("storm.ask", token, timeout=60.0)).payload
                if answer != token:
                    raise AssertionError(f"{token} was answered with {answer}")
                outcome = ANSWERED
            except errors.EndpointDied:
                outcome = DIED
            except errors.NoRoute:
                outcome = NOBODY
                await asyncio.sleep(0.01)
            book.write(sequence, outcome)
            sequence += 1
            if sequence % 64 == 0:
                await asyncio.sleep(0.005)

    run(place, main)


def serve(place: Place) -> None:
    """Replies in parts, and to questions to all."""

    async def parts(message: shmbus.Message) -> AsyncIterator[object]:
        token, count = message.payload
        for n in range(count):
            yield [token, n]

    async def main(endpoint: shmbus.aio.Endpoint) -> None:
        endpoint.handle("ways.parts", parts)
        endpoint.handle("ways.ask", lambda message: message.payload)
        await endpoint.run()

    run(place, main)


def join(place: Place) -> None:
    """Joins late, again and again, as `ways.join`."""
    book = ledger.Ledger(place.path("visits"), 6)

    async def main(endpoint: shmbus.aio.Endpoint) -> None:
        visit = 0
        while True:
            async with await endpoint.subscribe("ways.state.>", history=2) as states:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        async for message in states:
                            row = (number(message.source), *message.payload, message.lost)
                            book.write(visit, *row, int(message.retained))
            visit += 1

    run(place, main)
