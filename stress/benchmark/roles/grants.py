"""What a grant costs its endpoint; each function is a role (stage.py)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice, repeat

import shmbus
from benchmark.measure.calls import PAYLOAD
from benchmark.measure.floods import Flood, sender_turns
from benchmark.stage import Stage
from shmbus.limits import GRANTED

GRANTS: dict[str, shmbus.Grant | None] = {
    "granted": shmbus.Grant(
        publish=tuple(f"bench.{name}" for name in ("started", "*.done", "log.>", "flood")),
        subscribe=("bench.>",),
    ),
    "*": None,
}


MANY: dict[str, shmbus.Grant | None] = {
    "granted": shmbus.Grant(publish=tuple(f"bench.{n}.*" for n in range(GRANTED))),
    "*": None,
}
"""As many patterns as there may be."""
TYPES = tuple(f"bench.{n % GRANTED}.{n}" for n in range(1000))
"""Granted by these."""


def sender(stage: Stage, bus: str, flood: Flood, many: bool = False) -> tuple[float, float]:
    """Messages per second of an endpoint without a grant and of one with a grant, which take
    turns. `many`: each sends ``TYPES``, one after the other."""
    with (
        shmbus.attach(bus, name="free", timeout=20.0) as free,
        shmbus.attach(bus, name="granted", timeout=20.0) as granted,
    ):
        free.wait_for(TYPES[0] if many else "bench.flood", timeout=20.0)

        def spell(publish: Callable[..., None]) -> Callable[[int], None]:
            def send(count: int) -> None:
                for type in islice(cycle(TYPES), count) if many else repeat("bench.flood", count):
                    publish(type, PAYLOAD)

            return send

        stage.ready()
        return sender_turns(flood, spell(free.publish), spell(granted.publish))
