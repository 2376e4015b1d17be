"""A value with types, as the typed figures send it."""

from __future__ import annotations

import msgspec


class Reading(msgspec.Struct):
    """Five fields, 64 bytes once encoded as MessagePack."""

    sensor: str
    sequence: int
    value: float
    unit: str
    flags: list[int]


READING = Reading("fan3", 123_456, 48.25, "1/min", [1, 2, 3, 4])
