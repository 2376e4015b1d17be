"""Restarts of the dispatcher under load: every process counts its messages."""

from __future__ import annotations

import contextlib
import signal
import time
from itertools import zip_longest
from multiprocessing.connection import Connection

import shmbus

from .measures import Samples, Scale, ms
from .roles import TIMEOUT, dispatcher, now
from .stage import stage


def publisher(connection: Connection, bus: str, number: int) -> None:
    with shmbus.attach(bus, name=f"publisher-{number}", reconnect=True) as endpoint:
        endpoint.wait_for("load", receivers=3, timeout=TIMEOUT)
        connection.send("ready")
        accepted = 0
        while not connection.poll():
            for _ in range(100):
                with contextlib.suppress(shmbus.QueueFull):
                    endpoint.publish("load", (number, accepted), timeout=TIMEOUT)
                    accepted += 1
        connection.recv()
        endpoint.publish("end", timeout=TIMEOUT)
        connection.send(accepted)
        connection.recv()


def subscriber(connection: Connection, bus: str, publishers: int, group: str | None) -> None:
    """Sends how often each message came, once every publisher has published its `end`."""
    times = [bytearray() for _ in range(publishers)]
    with shmbus.attach(bus, reconnect=True) as endpoint:
        endpoint.subscribe("load", group=group)
        endpoint.subscribe("end")
        connection.send("ready")
        going = publishers
        while message := endpoint.receive(None if going else 1.0):  # and none comes after all
            if message.type == "end":
                going -= 1
                continue
            number, serial = message.payload
            seen = times[number]
            if serial >= len(seen):
                seen.extend(bytes(serial + 1 - len(seen)))
            seen[serial] = min(255, seen[serial] + 1)
        connection.send([bytes(seen) for seen in times])


def echo(connection: Connection, bus: str) -> None:
    with shmbus.attach(bus, name="echo", reconnect=True) as endpoint:
        endpoint.handle("probe", lambda message: message.payload)
        connection.send("ready")
        endpoint.run()


def prober(connection: Connection, bus: str) -> None:
    """Makes requests all the time; for each fence sends when the first reply after it came."""
    with shmbus.attach(bus, name="prober", reconnect=True) as endpoint:
        endpoint.wait_for("probe", timeout=TIMEOUT)
        connection.send("ready")
        answers: list[int] = []
        while True:
            endpoint.request("probe", timeout=TIMEOUT)
            answers.append(now())
            if connection.poll():
                fenced = connection.recv()
                answers = [at for at in answers if at > fenced]
                if not answers:
                    endpoint.request("probe", timeout=TIMEOUT)
                    answers = [now()]
                connection.send(answers[0])


def restarts(scale: Scale) -> Samples:
    samples: Samples = {"resumed": []}
    with stage() as this:
        serving = this.ready(dispatcher, this.bus)
        everybody = [this.start(subscriber, this.bus, 2, group) for group in (None, None, "g", "g")]
        for part in everybody:
            part.receive()
        publishing = [this.start(publisher, this.bus, number) for number in range(2)]
        for part in publishing:
            part.receive()
        this.ready(echo, this.bus)
        probing = this.ready(prober, this.bus)
        for _ in range(scale.restarts):
            time.sleep(0.25)  # of traffic
            serving.end(signal.SIGKILL)
            this.parts.remove(serving)
            serving = this.start(dispatcher, this.bus)
            fenced = serving.receive()
            probing.send(fenced)
            samples["resumed"].append(ms(fenced, probing.receive()))
        for part in publishing:
            part.send("enough")
        accepted = [part.receive() for part in publishing]
        books = [part.receive() for part in everybody]
        for part in publishing:
            part.send("all is counted")
    lost = doubled = 0
    grouped = [
        bytes(map(sum, zip_longest(*pair, fillvalue=0))) for pair in zip(*books[2:], strict=True)
    ]
    for book in (books[0], books[1], grouped):
        for sent, times in zip(accepted, book, strict=True):
            lost += times.count(0) + max(0, sent - len(times))
            doubled += len(times) - times.count(0) - times.count(1)
    return samples | {"lost": [lost], "doubled": [doubled], "accepted": [sum(accepted)]}
