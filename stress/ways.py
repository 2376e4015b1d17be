"""What the processes of a stress test do beyond events, jobs, commands and requests: replies in
parts, questions to all, values that are kept, mailboxes, keys and urgent events. As in `roles`, all
is numbered and written to ledgers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import ledger
from crew import Place
from roles import ANSWERED, ASKED, DIED, NOBODY, number

import shmbus
from shmbus import errors

STATE, SAMPLE, ORDER, ALARM = 0, 1, 2, 3
KEYS = 6  # of orders
BROKEN_OFF = 4  # how a request can end, beside those of `roles`

Sequence = tuple[int, int]  # a sender's incarnation, and the number of what it sent


def publish(place: Place, seed: int) -> None:
    """Publishes states that are kept, samples, orders of several keys and urgent alarms, until it
    is ended."""
    chance = random.Random(f"{seed} {place.name} {place.incarnation}")
    book = ledger.Ledger(place.path("published"), 4)
    sequence: dict[tuple[int, int], int] = {}
    idle = threading.Event()
    with place.attach() as endpoint:
        while True:
            kind = chance.choices((STATE, SAMPLE, ORDER, ALARM), (1, 4, 2, 1))[0]
            for _ in range(chance.randrange(1, 100 if kind == SAMPLE else 10)):
                key = chance.randrange(KEYS) if kind == ORDER else 0
                n = sequence.get((kind, key), 0)
                sequence[kind, key] = n + 1
                what = ("state", "sample", f"order.{key}", "alarm")[kind]
                book.write(kind, key, n, 0)
                endpoint.publish(
                    f"ways.{what}.{place.name}",
                    [place.incarnation, n],
                    timeout=60.0,
                    retain=kind == STATE,
                    urgent=kind == ALARM,
                )
                book.write(kind, key, n, 1)
            idle.wait(chance.random() * 0.01)


def show(place: Place, pattern: str, overflow: str) -> None:
    """Writes what it sees of these types to a ledger, looking now and then, until `ways.end`."""
    book = ledger.Ledger(place.path("seen"), 4)
    idle = threading.Event()
    with place.attach() as endpoint:
        endpoint.subscribe(pattern, overflow=overflow)  # type: ignore[arg-type]
        endpoint.subscribe("ways.end")
        for count, message in enumerate(endpoint):
            if message.type == "ways.end":
                # What was published before it may come behind it: it has another way.
                for late in iter(lambda: endpoint.receive(0.5), None):
                    book.write(number(late.source), *late.payload, late.lost)
                return
            book.write(number(message.source), *message.payload, message.lost)
            if overflow != "block" and count % 50 == 0:
                idle.wait(0.005)


def join(place: Place) -> None:
    """Joins late, again and again: writes what it sees of each visit to a ledger, until it is
    ended."""
    book = ledger.Ledger(place.path("visits"), 6)
    with place.attach() as endpoint:
        visit = 0
        while True:
            with endpoint.subscribe("ways.state.>", history=2):
                for message in iter(lambda: endpoint.receive(0.02), None):
                    row = (number(message.source), *message.payload, message.lost)
                    book.write(visit, *row, int(message.retained))
            while endpoint.receive(0.0) is not None:
                pass
            visit += 1


def carry(place: Place) -> None:
    """A member of the group whose messages have keys."""
    book = ledger.Ledger(place.path("orders"), 6)
    with place.attach() as endpoint:
        endpoint.subscribe("ways.order.*.>", group="carriers", key="ways.order.{key}.>")
        for message in endpoint:
            key = int(message.type.split(".")[2])
            began = time.monotonic_ns()
            book.write(number(message.source), *message.payload, key, message.attempt, began)


def serve(place: Place) -> None:
    """Replies in parts, and to questions to all."""

    def parts(message: shmbus.Message) -> Iterator[object]:
        token, count = message.payload
        for n in range(count):
            yield [token, n]

    with place.attach() as endpoint:
        endpoint.handle("ways.parts", parts)
        endpoint.handle("ways.ask", lambda message: message.payload)
        endpoint.run()


def read(place: Place, seed: int) -> None:
    """Reads one reply in parts after the other, and breaks some off, until it is ended. Raises at a
    part that is not the next one."""
    chance = random.Random(f"{seed} {place.name} {place.incarnation}")
    book = ledger.Ledger(place.path("asked"), 2)
    idle = threading.Event()
    with place.attach() as endpoint:
        sequence = 0
        while True:
            token, count = [place.name, place.incarnation, sequence], chance.choice((0, 1, 20, 500))
            enough = chance.randrange(count + 1) if chance.random() < 0.2 else None
            book.write(sequence, ASKED)
            outcome, seen = ANSWERED, 0
            try:
                with endpoint.stream("ways.parts", [token, count], timeout=60.0) as stream:
                    for part in stream:
                        if part.payload != [token, seen]:
                            raise AssertionError(f"{token}: part {seen} is {part.payload}")
                        seen += 1
                        if seen == enough:
                            outcome = BROKEN_OFF
                            break
                if outcome == ANSWERED and seen != count:
                    raise AssertionError(f"{token}: {seen} parts of {count}")
            except errors.EndpointDied:
                outcome = DIED
            except errors.NoRoute:
                outcome = NOBODY
                idle.wait(0.01)
            book.write(sequence, outcome)
            sequence += 1
            idle.wait(chance.random() * 0.005)


def ask_all(place: Place) -> None:
    """Asks everybody, again and again, until it is ended. Raises where a wrong answer comes."""
    book = ledger.Ledger(place.path("asked"), 2)
    idle = threading.Event()
    with place.attach() as endpoint:
        sequence = 0
        while True:
            token = [place.name, place.incarnation, sequence]
            book.write(sequence, ASKED)
            for name, answer in endpoint.gather("ways.ask", token, timeout=60.0).items():
                if isinstance(answer, errors.EndpointDied):
                    continue
                if isinstance(answer, errors.BusError):
                    raise answer
                if answer.payload != token:
                    raise AssertionError(f"{name} answered {token} with {answer.payload}")
            book.write(sequence, ANSWERED)
            sequence += 1
            idle.wait(0.005)
