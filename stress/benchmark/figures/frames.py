"""Frames of a camera, of 1 and of 6 MiB: by loan and by plain ``publish``, beside pyzmq, shared
memory by hand, iceoryx2 and torch.

All do the same: an array of numbers is written in the producer and read in the consumer, as far as
the work says (roles/frames.py). The memory into which it is written is lent by whoever lends some;
pyzmq and ``publish`` take the producer's own. No frame is lost, and none is overwritten unread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec

from benchmark.carriers import bus, pyzmq, shared_memory
from benchmark.claims import Bench, Claim, Figure, Runs, Sample, ratio, within
from benchmark.measure.paced import Pace
from benchmark.roles import ends, turning
from benchmark.roles.frames import ALL, LINE, WRITTEN, Send, Spell, Take, Work, consumer, producer
from benchmark.roles.plain import Opened
from benchmark.stage import Role, perform

MIB = 1 << 20
SIZES = (MIB, 6 * MIB)
WORKS = (LINE, WRITTEN, ALL)
SMALL = 64 << 10
"""What a ring takes."""


def _spells(bench: Bench, sizes: tuple[int, ...]) -> list[Spell]:
    return [Spell(size, work, bench.scale.seconds * 0.3) for size in sizes for work in WORKS]


def carried(
    bench: Bench,
    sending: Opened[Send],
    taking: list[Opened[Take]],
    *more: Role,
    sizes: tuple[int, ...] = SIZES,
) -> Sample:
    """Microseconds per frame, at the consumer that is slowest."""
    spells = _spells(bench, sizes)
    _, *took = perform(
        [
            *more,
            Role(producer, (sending, spells)),
            *(Role(consumer, (opened, spells)) for opened in taking),
        ]
    )
    return {
        str(spell): max(each) for spell, each in zip(spells, zip(*took, strict=True), strict=True)
    }


def by_bus(
    bench: Bench,
    sending: Callable[[str, int], Opened[Send]],
    consumers: int = 1,
    *,
    as_bytes: bool = False,
    sizes: tuple[int, ...] = SIZES,
) -> Sample:
    name = bench.bus()
    return carried(
        bench,
        sending(name, consumers),
        [partial(bus.taking, name, number, as_bytes) for number in range(consumers)],
        Role(ends.dispatcher, (name, bench.settings), supporting=True),
        sizes=sizes,
    )


def lent(name: str, consumers: int) -> Opened[Send]:
    return partial(bus.lending, name, consumers)


def published(name: str, consumers: int) -> Opened[Send]:
    return partial(bus.publishing, name, consumers)


def published_as_bytes(name: str, consumers: int) -> Opened[Send]:
    return partial(bus.publishing, name, consumers, as_bytes=True)


def by_pyzmq(bench: Bench, sizes: tuple[int, ...] = SIZES) -> Sample:
    address = f"ipc://{bench.subdirectory()}/frames"
    return carried(
        bench, partial(pyzmq.sending, address), [partial(pyzmq.taking, address)], sizes=sizes
    )


def by_hand(bench: Bench, *, again: bool = False) -> Sample:
    names = shared_memory.Names()
    sending = shared_memory.sending_again if again else shared_memory.sending
    taking = shared_memory.taking_again if again else shared_memory.taking
    return carried(bench, partial(sending, names), [partial(taking, names)])


def by_iceoryx2(bench: Bench) -> Sample:
    from benchmark.carriers import iceoryx2

    with ExitStack() as stack:
        config = stack.enter_context(iceoryx2.files(bench))
        return carried(
            bench,
            partial(iceoryx2.sending, config),
            [partial(iceoryx2.taking, config)],
        )


def by_torch(bench: Bench) -> Sample:
    from benchmark.carriers import torch

    queue = torch.tensors()
    return carried(bench, partial(torch.sending, queue), [partial(torch.taking, queue)])


def least(over: str, under: str, work: Work) -> Callable[[Runs], float]:
    """The ratio for the size where it is least."""
    spells = [str(Spell(size, work, 0)) for size in SIZES]
    return lambda runs: min(ratio(over, under, spell)(runs) for spell in spells)


def most(over: str, under: str, work: Work) -> Callable[[Runs], float]:
    spells = [str(Spell(size, work, 0)) for size in SIZES]
    return lambda runs: max(ratio(over, under, spell)(runs) for spell in spells)


PYZMQ, BY_HAND, AGAIN = "pyzmq", "shared memory, a segment each", "shared memory, used again"
LOAN, PUBLISH, FOUR = "bus, loan", "bus, publish", "bus, loan, 4 consumers"


def _frames(bench: Bench) -> Figure:
    variants: dict[str, Callable[[], Sample]] = {
        LOAN: partial(by_bus, bench, lent),
        FOUR: partial(by_bus, bench, lent, 4),
        PUBLISH: partial(by_bus, bench, published),
        PYZMQ: partial(by_pyzmq, bench),
        BY_HAND: partial(by_hand, bench),
        AGAIN: partial(by_hand, bench, again=True),
    }
    if find_spec("iceoryx2"):
        variants["iceoryx2"] = partial(by_iceoryx2, bench)
    if find_spec("torch"):
        variants["torch.multiprocessing"] = partial(by_torch, bench)
    return Figure(
        "frames",
        variants,
        [
            Claim(
                "time of a frame of 1 or 6 MiB, a line written and read: pyzmq / bus, loan",
                least(PYZMQ, LOAN, LINE),
                20,
            ),
            Claim(
                "the same: shared memory with a queue for its names / bus, loan",
                least(BY_HAND, LOAN, LINE),
                10,
            ),
            Claim(
                "the same: pyzmq / bus, publish",
                least(PYZMQ, PUBLISH, LINE),
                4,
            ),
            Claim(
                "time of a frame, all of it written: by loan to 4 consumers / to one",
                most(FOUR, LOAN, WRITTEN),
                1.3,
                at_most=True,
            ),
        ],
    )


SMALL_LINE = str(Spell(SMALL, LINE, 0))


def _ring(bench: Bench) -> Figure:
    small = (SMALL,)
    return Figure(
        "frames_ring",
        {
            "array": partial(by_bus, bench, published, sizes=small),
            "bytes": partial(by_bus, bench, published_as_bytes, as_bytes=True, sizes=small),
            PYZMQ: partial(by_pyzmq, bench, small),
        },
        [
            Claim(
                f"time of 64 KiB through the ring, as {way}: pyzmq / bus",
                ratio(PYZMQ, way, SMALL_LINE),
                1,
            )
            for way in ("bytes", "array")
        ],
    )


TURNS = "in turns"


def bus_turns(bench: Bench, pace: Pace) -> Sample:
    name = bench.bus()
    _, (event, frame) = perform(
        [
            Role(turning.producer, (name, pace, MIB)),
            Role(turning.consumer, (name, pace)),
            Role(ends.dispatcher, (name, bench.settings), supporting=True),
        ]
    )
    return {"event p50": event.p50, "event p99": event.p99, "p50": frame.p50, "p99": frame.p99}


def _latency(bench: Bench) -> Figure:
    pace = Pace(chunks=int(2000 * bench.scale.seconds), chunk=1, interval=1e-3)
    return Figure(
        "frames_latency",
        {TURNS: partial(bus_turns, bench, pace)},
        [
            Claim(
                "p50 from the loan of a frame of 1 MiB to its consumer / of a 64-byte event",
                within(TURNS, "p50", "event p50"),
                1.5,
                at_most=True,
            )
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_frames(bench), _ring(bench), _latency(bench)]
