"""What the processes of a stress test do. Whatever they send is numbered, and whatever they receive
is written to a ledger, so that at the end every message can be accounted for."""

from __future__ import annotations

import random
import struct
import threading
from typing import Any

import ledger
import msgspec
from crew import Place

import shmbus
from shmbus import errors

EVENT, JOB, TASK = 0, 1, 2
FORGED = "storm.forged"  # the type of dead letters that a hostile endpoint forged
TYPES = ("storm.event", "storm.job", "storm.task")
ASKED, ANSWERED, DIED, NOBODY = 0, 1, 2, 3
LARGE = struct.Struct("=BQQ")
"""What the payloads that are too large for rings begin with: 0, which MessagePack's of the others
does not, and the numbers."""
LARGE_BYTES = 300_000


def number(name: str) -> int:
    """An endpoint's name as a number."""
    return ord(name[0]) * 1000 + int(name[1:])


def hostile(name: str) -> bool:
    """Whether it may send anything."""
    return name.startswith("x")


def large(incarnation: int, sequence: int) -> bytes:
    """A payload that goes through a pool."""
    return LARGE.pack(0, incarnation, sequence) + bytes([sequence % 251]) * LARGE_BYTES


def numbers(message: shmbus.Message) -> tuple[int, int]:
    """The sender's incarnation, and the message's number there; (0, 0) of a hostile one. Raises
    where a large payload is not as it was sent."""
    if hostile(message.source):
        return 0, 0
    payload: Any = message.payload
    if isinstance(payload, bytes):
        _, incarnation, sequence = LARGE.unpack_from(payload)
        if payload != large(incarnation, sequence):
            raise AssertionError(f"{message!r} is not as it was sent")
        return incarnation, sequence
    incarnation, sequence = payload
    return incarnation, sequence


def numbers_of_letter(payload: bytes) -> tuple[int, int]:
    """The same of a dead letter, which has the payload's beginning."""
    if payload[0] == 0:
        _, incarnation, sequence = LARGE.unpack_from(payload)
        return incarnation, sequence
    return msgspec.msgpack.decode(payload, type=tuple[int, int])


def send(place: Place, seed: int) -> None:
    """Publishes events, jobs for a queue group and commands, in bursts, until it is ended."""
    chance = random.Random(f"{seed} {place.name} {place.incarnation}")
    book = ledger.Ledger(place.path("sent"), 3)
    sequence = [0, 0, 0]
    idle = threading.Event()
    with place.attach() as endpoint:
        while True:
            kind = chance.choices((EVENT, JOB, TASK), (8, 2, 1))[0]
            for _ in range(chance.randrange(1, 60 if kind == EVENT else 10)):
                payload: Any = [place.incarnation, sequence[kind]]
                if chance.random() < 0.03:
                    payload = large(*payload)
                book.write(kind, sequence[kind], 0)
                type = f"{TYPES[kind]}.{place.name}"
                (endpoint.send if kind == TASK else endpoint.publish)(type, payload, timeout=60.0)
                book.write(kind, sequence[kind], 1)
                sequence[kind] += 1
            idle.wait(chance.random() * 0.01)


def survive(place: Place) -> None:
    """Writes every event to a ledger, until `storm.end`."""
    book = ledger.Ledger(place.path("received"), 4)
    with place.attach() as endpoint:
        endpoint.subscribe("storm.event.>")
        endpoint.subscribe("storm.end")
        for message in endpoint:
            if message.type == "storm.end":
                return
            book.write(number(message.source), *numbers(message), message.lost)


def watch(place: Place) -> None:
    """Writes dead letters and the ends of endpoints to ledgers, until `storm.end`."""
    letters = ledger.Ledger(place.path("letters"), 4)
    downs = ledger.Ledger(place.path("downs"), 2)
    with place.attach() as endpoint:
        for pattern in ("$bus.undeliverable", "$bus.endpoint.down", "storm.end"):
            endpoint.subscribe(pattern)
        for message in endpoint:
            event: Any = message.payload
            if message.type == "storm.end":
                return
            if message.type == "$bus.endpoint.down":
                downs.write(event["pid"], event["generation"])
                continue
            if not hostile(event["source"]) and event["type"] != FORGED:
                kind = TYPES.index(event["type"].rpartition(".")[0])
                what = numbers_of_letter(event["payload"])
                letters.write(kind, number(event["source"]), *what)


def work(place: Place) -> None:
    """A member of the queue group."""
    book = ledger.Ledger(place.path("jobs"), 4)
    with place.attach() as endpoint:
        endpoint.subscribe("storm.job.>", group="workers")
        for message in endpoint:
            if not hostile(message.source):
                book.write(number(message.source), *numbers(message), message.attempt)


def handle(place: Place) -> None:
    """Handles commands and answers requests."""
    book = ledger.Ledger(place.path("tasks"), 4)

    def task(message: shmbus.Message) -> None:
        if not hostile(message.source):
            book.write(number(message.source), *numbers(message), message.attempt)

    with place.attach() as endpoint:
        endpoint.handle("storm.task.>", task)
        endpoint.handle("storm.ask", lambda message: message.payload)
        endpoint.run()


def ask(place: Place) -> None:
    """Makes one request after the other, until it is ended. Raises at a wrong reply."""
    book = ledger.Ledger(place.path("asked"), 2)
    idle = threading.Event()
    with place.attach() as endpoint:
        sequence = 0
        while True:
            token = [place.name, place.incarnation, sequence]
            book.write(sequence, ASKED)
            try:
                answer = endpoint.request("storm.ask", token, timeout=60.0).payload
                if answer != token:
                    raise AssertionError(f"{token} was answered with {answer}")
                outcome = ANSWERED
            except errors.EndpointDied:
                outcome = DIED
            except errors.NoRoute:
                outcome = NOBODY
                idle.wait(0.01)
            book.write(sequence, outcome)
            sequence += 1
            if sequence % 64 == 0:
                idle.wait(0.005)
