"""Nothing at all."""

from __future__ import annotations

import time
from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, metric
from benchmark.roles import ends
from benchmark.stage import Role, cpu_seconds, perform


def bus_idle(bench: Bench) -> Sample:
    bus = bench.bus()

    def consumed(pids: list[int]) -> float:
        time.sleep(0.5)  # until the start is over
        before = sum(map(cpu_seconds, pids))
        time.sleep(bench.scale.idle)
        return sum(map(cpu_seconds, pids)) - before

    (cpu,) = perform(
        [
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
            *(Role(ends.idle, (bus, n), supporting=True) for n in range(5)),
        ],
        meanwhile=consumed,
    )
    return {"cpu": cpu}


def _idle(bench: Bench) -> Figure:
    return Figure(
        "idle",
        {"idle": partial(bus_idle, bench)},
        [
            Claim(
                f"CPU of dispatcher and 5 processes, idle for {bench.scale.idle:.0f} s",
                metric("idle", "cpu"),
                0.03,
                at_most=True,
                unit="s",
            )
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_idle(bench)]
