"""The processes of the demonstration: a walker, workers and an index, each on the bus."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import msgspec

import shmbus
from shmbus import Message, Settings

from .sources import Index, find, tokenise

PATIENCE = 120.0
"""Seconds that any wait here takes at most; long, for busy machines."""
WINDOW = 32
"""Files under way at a time. More would only wait in rings, and be handed on at a death."""
SHOWN = 20  # of the files that a search finds


def rings_of(size: int, *, block_timeout: float = Settings().block_timeout) -> Settings:
    """All rings of one size, in bytes."""
    return Settings(in_bytes=size, out_bytes=size, reply_bytes=size, block_timeout=block_timeout)


class Part(msgspec.Struct, frozen=True):
    """What a process does, as its command line has it."""

    role: str
    bus: str
    name: str
    ring_bytes: int
    root: str = ""


class Source(msgspec.Struct, frozen=True):
    """The event ``source.file``: a source file."""

    path: str
    content: bytes


class Words(msgspec.Struct, frozen=True):
    """The event ``source.words``: what a worker found in a file."""

    path: str
    words: list[str]
    sent_ns: int
    """When the file was published."""
    taken_ns: int
    """When the worker took it."""
    redelivered: bool
    """Whether it was handed on to this worker by the death of another."""


class Hits(msgspec.Struct, frozen=True):
    """The reply to ``index.search``."""

    count: int
    files: list[str]


class Status(msgspec.Struct, frozen=True):
    """The reply to ``index.status``."""

    files: int
    began_ns: int
    """When the first file was published."""
    last_ns: int
    """When the index last got something."""
    handed_on: int
    """Files that were handed on by a death."""
    taken_over_ns: int | None
    """When the first of them was taken."""


def walk(part: Part) -> None:
    """Publish every source file with its content."""
    root = Path(part.root)
    files = list(find(root))
    with _attach(part) as endpoint:
        for number, path in enumerate(files):
            if number >= WINDOW and number % (WINDOW // 2) == 0:
                endpoint.request("index.reached", number - WINDOW // 2, timeout=PATIENCE)
            if number == len(files) // 2:
                endpoint.request("demo.half", timeout=PATIENCE)
            source = Source(str(path.relative_to(root)), path.read_bytes())
            endpoint.publish("source.file", source, timeout=PATIENCE)


def work(part: Part) -> None:
    """As one of a group, find the words of the files that come."""
    keeps = False
    with _attach(part) as endpoint:

        def keep(message: Message) -> None:
            """Keep the next file in hand until this process is killed."""
            nonlocal keeps
            keeps = True

        def on_file(message: Message[Source]) -> None:
            if keeps:
                time.sleep(PATIENCE)
            taken, source = time.monotonic_ns(), message.payload
            words = Words(
                path=source.path,
                words=tokenise(source.content),
                sent_ns=message.sent_ns,
                taken_ns=taken,
                redelivered=message.redelivered,
            )
            endpoint.publish("source.words", words, timeout=PATIENCE)

        endpoint.handle(f"{part.name}.keep", keep)
        endpoint.subscribe("source.file", on_file, group="tokenisers")
        endpoint.run(reconnect=False)


def index(part: Part) -> None:
    """Collect what the workers find, and answer requests for it."""
    found = Index()
    began: list[int] = []
    last = 0
    taken_over: list[int] = []
    waiting: list[Message[int]] = []
    with _attach(part) as endpoint:

        def on_words(message: Message[Words]) -> None:
            nonlocal last
            words = message.payload
            if words.redelivered:
                taken_over.append(words.taken_ns)
            began[:] = [min([*began, words.sent_ns])]
            found.add(words.path, words.words)
            last = time.monotonic_ns()
            for asker in [w for w in waiting if w.payload <= len(found.files)]:
                waiting.remove(asker)
                asker.reply()

        def reached(message: Message[int]) -> None:
            message.defer()
            if message.payload <= len(found.files):
                message.reply()
            else:
                waiting.append(message)

        def search(message: Message[str]) -> Hits:
            files = found.search(message.payload)
            return Hits(len(files), files[:SHOWN])

        def status(message: Message[None]) -> Status:
            return Status(
                files=len(found.files),
                began_ns=min(began, default=0),
                last_ns=last,
                handed_on=len(taken_over),
                taken_over_ns=min(taken_over, default=None),
            )

        endpoint.subscribe("source.words", on_words)
        endpoint.handle("index.reached", reached)
        endpoint.handle("index.search", search)
        endpoint.handle("index.status", status)
        endpoint.handle("index.digest", lambda message: found.digest())
        endpoint.run(reconnect=False)


def _attach(part: Part) -> shmbus.Endpoint:
    return shmbus.attach(
        part.bus, name=part.name, settings=rings_of(part.ring_bytes), timeout=PATIENCE
    )


ROLES = {"walker": walk, "worker": work, "index": index}


def main() -> None:
    """Run the role that the command line names."""
    part = msgspec.json.decode(sys.argv[1], type=Part)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    os.nice(10)  # leave the CPU to the dispatcher
    try:
        ROLES[part.role](part)
    except (shmbus.BusDown, KeyboardInterrupt):
        pass  # the demonstration has ended


if __name__ == "__main__":
    main()
