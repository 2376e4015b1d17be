"""Every request ends with its own reply or its own error, whatever comes late, twice or forged,
and whether it goes through rings or pools."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from uuid import UUID

import ledger
import pytest
from crew import Crew, Place
from forger import REPLIES, REPLY, Forger, record

import shmbus
import shmbus.aio
from shmbus import Message, errors
from shmbus.testing import TIMEOUT, BusProcess

PROCESSES, THREADS = 4, 8
RING, POOL = 20_000, 300_000
"""Bytes of a large payload that goes through rings, and of one that goes by a pool."""
OWN_REPLY, OWN_ERROR, TIMED_OUT, NO_ROUTE, WRONG = range(5)


def ask(place: Place, seed: int, count: int) -> None:
    """Eight threads share an endpoint; each makes `count` requests and checks each reply."""
    book = ledger.Ledger(place.path("outcomes"), 5)
    outcomes: Counter[int] = Counter()
    lock = threading.Lock()
    with place.attach() as endpoint:
        for pattern, receivers in (("ask.echo", 3), ("ask.forged", 1)):
            endpoint.wait_for(pattern, receivers=receivers, timeout=TIMEOUT)

        def run(thread: int) -> None:
            chance = random.Random(f"{seed} {place.name} {thread}")
            mine: Counter[int] = Counter()
            for n in range(count):
                token = f"{place.name} {thread} {n}"
                mine[one(endpoint, chance, token)] += 1
            with lock:
                outcomes.update(mine)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        book.write(*(outcomes[outcome] for outcome in range(5)))


def ask_in_loop(place: Place, seed: int, count: int) -> None:
    """The same, by as many tasks of an event loop as there are threads elsewhere."""
    book = ledger.Ledger(place.path("outcomes"), 5)

    async def run(endpoint: shmbus.aio.Endpoint, task: int) -> Counter[int]:
        chance = random.Random(f"{seed} {place.name} {task}")
        mine: Counter[int] = Counter()
        for n in range(count):
            token = f"{place.name} {task} {n}"
            kind, timeout = wish(chance)
            try:
                reply = await endpoint.request(*question(kind, token), timeout=timeout)
            except errors.BusError as error:
                mine[judge(kind, token, error)] += 1
            else:
                mine[judge(kind, token, reply)] += 1
        return mine

    async def main() -> Counter[int]:
        async with shmbus.aio.attach(place.bus, name=place.name) as endpoint:
            for pattern, receivers in (("ask.echo", 3), ("ask.forged", 1)):
                await endpoint.wait_for(pattern, receivers=receivers, timeout=TIMEOUT)
            found = await asyncio.gather(*(run(endpoint, task) for task in range(THREADS)))
            return sum(found, Counter())

    outcomes = asyncio.run(main())
    book.write(*(outcomes[outcome] for outcome in range(5)))


def wish(chance: random.Random) -> tuple[str, float]:
    """A random kind of request, and its patience."""
    kinds = ("echo", "ring", "pool", "both", "fail", "late", "forged", "nobody")
    kind = chance.choices(kinds, (76.5, 2, 1, 0.5, 5, 3, 10, 2))[0]
    return kind, chance.choice((0.005, 0.02, 0.05)) if kind == "late" else 2 * TIMEOUT


def body(token: bytes, size: int) -> bytes:
    """So many bytes that no other token gives."""
    return (token * (size // len(token) + 1))[:size]


def question(kind: str, token: str) -> tuple[str, bytes]:
    """The type and the payload of its request."""
    if kind == "both":  # large there and back
        return "ask.echo", body(token.encode(), POOL)
    return f"ask.{kind}", token.encode()


def answer_to(kind: str, token: str) -> bytes:
    """The payload of its reply."""
    size = {"ring": RING, "pool": POOL, "both": POOL}.get(kind)
    return token.encode() if size is None else body(token.encode(), size)


def judge(kind: str, token: str, ended: Message | errors.BusError) -> int:
    """Whether a request ended as it should, and how."""
    match ended:
        case errors.RemoteError():
            return OWN_ERROR if (kind, ended.message) == ("fail", token) else WRONG
        case errors.RequestTimeout():
            return TIMED_OUT if kind == "late" and ended.type == "ask.late" else WRONG
        case errors.NoRoute():
            return NO_ROUTE if kind == "nobody" and ended.type == "ask.nobody" else WRONG
        case errors.BusError():
            raise ended
    return OWN_REPLY if kind != "fail" and ended.payload == answer_to(kind, token) else WRONG


def one(endpoint: shmbus.Endpoint, chance: random.Random, token: str) -> int:
    """One request, of a random kind and patience."""
    kind, timeout = wish(chance)
    try:
        reply = endpoint.request(*question(kind, token), timeout=timeout)
    except errors.BusError as error:
        return judge(kind, token, error)
    return judge(kind, token, reply)


def answer_in_loop(place: Place, seed: int) -> None:
    """Answers by tasks of an event loop, at once, with an error, or late."""
    chance = random.Random(f"{seed} {place.name}")

    async def main() -> None:
        async with shmbus.aio.attach(place.bus, name=place.name) as endpoint:

            @endpoint.handle("ask.echo")
            async def echo(message: Message) -> bytes:
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
                return bytes(message.payload)

            @endpoint.handle("ask.ring")
            async def ring(message: Message) -> bytes:
                return body(message.payload, RING)

            @endpoint.handle("ask.pool")
            async def pool(message: Message) -> bytes:
                return body(message.payload, POOL)

            @endpoint.handle("ask.fail")
            async def fail(message: Message) -> None:
                raise ValueError(message.payload.decode())

            @endpoint.handle("ask.late")
            async def late(message: Message) -> bytes:
                await asyncio.sleep(chance.random() * 0.06)
                return bytes(message.payload)

            await endpoint.run()

    asyncio.run(main())


def answer(place: Place, seed: int) -> None:
    """Answers at once, with an error, or late: after most requesters have given up."""
    chance = random.Random(f"{seed} {place.name}")
    late: list[tuple[float, Message]] = []

    def delay(message: Message) -> None:
        message.defer()
        late.append((time.monotonic() + chance.random() * 0.06, message))

    def fail(message: Message) -> None:
        raise ValueError(message.payload.decode())

    with place.attach() as endpoint:
        endpoint.handle("ask.echo", lambda message: message.payload)
        endpoint.handle("ask.ring", lambda message: body(message.payload, RING))
        endpoint.handle("ask.pool", lambda message: body(message.payload, POOL))
        endpoint.handle("ask.fail", fail)
        endpoint.handle("ask.late", delay)
        endpoint.start(threads=2)
        idle = threading.Event()
        while True:
            idle.wait(0.002)
            for entry in [entry for entry in list(late) if entry[0] <= time.monotonic()]:
                late.remove(entry)
                entry[1].reply(entry[1].payload)


def forge(place: Place, seed: int) -> None:
    """Answers by hand: the right reply once, and wrong ones for the same request before it from
    somebody else, after it from itself, and for requests long over."""
    chance = random.Random(f"{seed} {place.name}")
    slots: dict[str, tuple[int, int]] = {}
    old: list[tuple[int, int, UUID]] = []
    kept: list[Message] = []  # a deferred request that is dropped is answered with an error
    with place.attach() as endpoint, shmbus.attach(place.bus, name="impostor") as second:
        hand, impostor = Forger(endpoint), Forger(second)

        def put(forger: Forger, peer: int, generation: int, id: UUID, payload: bytes) -> None:
            made = record(
                REPLY, "", payload, peer=peer, peer_generation=generation, correlation=id.bytes
            )
            while forger.space(REPLIES) < 4 * len(made):
                forger.ring_bell()
                time.sleep(0.0001)
            forger.push(REPLIES, made)

        def reply(message: Message) -> None:
            message.defer()
            kept.append(message)
            if message.source not in slots:
                slots.update({e.name: (e.slot, e.generation) for e in endpoint.bus.endpoints()})
            peer, generation = slots[message.source]
            id = message.correlation_id
            assert id is not None
            if chance.random() < 0.3:
                put(impostor, peer, generation, id, b"of another than was asked")
            if old and chance.random() < 0.3:
                put(hand, *chance.choice(old), b"of one long over")
            put(hand, peer, generation, id, message.payload)
            if chance.random() < 0.3:
                put(hand, peer, generation, id, b"the second")
            if chance.random() < 0.1:
                put(hand, peer, generation, UUID(int=chance.getrandbits(128)), b"of nobody")
            old.append((peer, generation, id))
            del old[:-1000]

        endpoint.handle("ask.forged", reply)
        endpoint.run()


@pytest.mark.bus(block_timeout=60.0, pool_bytes=1 << 20)  # three large ones at a time
def test_every_request_ends_with_its_own_reply_or_its_own_error(
    bus_process: BusProcess, company: Crew, seed: int, long: bool
) -> None:
    requests = 1_000_000 if long else 50_000
    each = requests // (PROCESSES * THREADS)
    servers = [
        company.hire(answer, "h0", seed),
        company.hire(answer, "h1", seed),
        company.hire(answer_in_loop, "h2", seed),
        company.hire(forge, "f0", seed),
    ]
    began = time.monotonic()
    kinds = (ask, ask_in_loop)
    askers = [company.hire(kinds[n % 2], f"q{n}", seed, each) for n in range(PROCESSES)]
    for asker in askers:
        assert asker.wait(6000) == 0
    took = time.monotonic() - began
    outcomes = sum(ledger.read(path)[0] for _, _, path in company.ledgers("outcomes"))
    with shmbus.observe(bus_process.name) as view:
        health = view.health()
        assert {e.name for e in view.endpoints()} >= {
            "h0",
            "h1",
            "h2",
            "f0",
        }  # none was quarantined
    for server in servers:
        server.kill()
        server.wait()
    print(f"{requests} requests, {requests / took:.0f}/s: own reply, own error, timeout, no route,")
    print(f"wrong: {outcomes.tolist()}; {health.orphans} late, second and forged replies dropped")
    assert outcomes[WRONG] == 0
    assert int(outcomes.sum()) == PROCESSES * THREADS * each
    assert all(outcomes[:WRONG] > 0)
    assert health.orphans > requests // 100
    assert health.violations == 0
