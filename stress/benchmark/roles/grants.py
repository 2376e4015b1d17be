"""What a grant costs its endpoint; each function is a role (stage.py)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat

import shmbus
from benchmark.measure import PAYLOAD, Flood, sender_turns
from benchmark.stage import Stage

GRANTS: dict[str, shmbus.Grant | None] = {
    "granted": shmbus.Grant(
        publish=tuple(f"bench.{name}" for name in ("started", "*.done", "log.>", "flood")),
        subscribe=("bench.>",),
    ),
    "*": None,
}


def sender(stage: Stage, bus: str, flood: Flood) -> tuple[float, float]:
    """Messages per second of an endpoint without a grant and of one with a grant, which take
    turns."""
    with (
        shmbus.attach(bus, name="free", timeout=20.0) as free,
        shmbus.attach(bus, name="granted", timeout=20.0) as granted,
    ):
        free.wait_for("bench.flood", timeout=20.0)

        def spell(publish: Callable[..., None]) -> Callable[[int], None]:
            def send(count: int) -> None:
                for _ in repeat(None, count):
                    publish("bench.flood", PAYLOAD)

            return send

        stage.ready()
        return sender_turns(flood, spell(free.publish), spell(granted.publish))
