"""What comes back as what: the table in docs/payloads.md, made by sending each value.

A bus is not needed for that: how values become bytes and the reverse is the same, `Codec`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import typing
from collections import deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from shmbus.endpoint.payloads import PLAIN
from shmbus.errors import DecodeError, EncodeError


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(typing.NamedTuple):
    x: int
    y: int


class Sample(msgspec.Struct):
    sensor: int
    value: float


class Packed(msgspec.Struct, array_like=True):
    sensor: int
    value: float


_EAST = timezone(timedelta(hours=2))
_NAMES = {"datetime": datetime, "date": date, "time": time, "timedelta": timedelta, "EAST": _EAST}
_NAMES |= {"np": np, "UUID": UUID, "math": math}
_NAMES |= {"Colour": Colour, "Level": Level, "Point": Point, "Pair": Pair, "Sample": Sample}
_NAMES |= {"Packed": Packed, "Decimal": Decimal, "Fraction": Fraction, "Path": Path}
_NAMES |= {"deque": deque}

SENT = [
    ("None", "None"),
    ("True", "bool"),
    ("7", "int"),
    ("2**64 - 1", "int"),
    ("2**64", "int"),
    ("0.5", "float"),
    ("math.nan", "float"),
    ("math.inf", "float"),
    ("'text'", "str"),
    ("'\\ud800'", "str"),
    ("b'raw'", "bytes"),
    ("bytearray(b'raw')", "bytearray"),
    ("memoryview(b'raw')", "bytes"),
    ("[1, 2]", "list[int]"),
    ("(1, 2)", "tuple[int, ...]"),
    ("{3}", "set[int]"),
    ("frozenset({3})", "frozenset[int]"),
    ("{'a': 1}", "dict[str, int]"),
    ("{1: 'a'}", "dict[int, str]"),
    ("{(1, 2): 'a'}", "dict[tuple[int, int], str]"),
    ("datetime(2026, 1, 2, 3, 4)", "datetime"),
    ("datetime(2026, 1, 2, 3, 4, tzinfo=EAST)", "datetime"),
    ("date(2026, 1, 2)", "date"),
    ("time(3, 4)", "time"),
    ("timedelta(seconds=90)", "timedelta"),
    ("Decimal('1.10')", "Decimal"),
    ("UUID(int=7)", "UUID"),
    ("Colour.RED", "Colour"),
    ("Level.LOW", "Level"),
    ("Point(x=1, y=2)", "Point"),
    ("Pair(x=1, y=2)", "Pair"),
    ("Sample(sensor=7, value=0.5)", "Sample"),
    ("Packed(sensor=7, value=0.5)", "Packed"),
    ("np.float64(0.5)", "float"),
    ("np.arange(3)", "np.ndarray"),
    ("[np.zeros(2), 'x']", "list"),
    ("np.arange(3).tolist()", "list[int]"),
    ("Path('a.py')", "str"),
    ("Fraction(1, 2)", "float"),
    ("deque([1])", "list[int]"),
    ("1 + 2j", "list[float]"),
    ("object()", "None"),
]
"""Each value as it is written, and the type that a receiver names for it."""


def value(written: str) -> Any:
    """What is written in `SENT`: a value or a type."""
    return eval(written, dict(_NAMES))


def received(sent: Any, payload_type: Any = None) -> Any:
    """What a receiver gets. Raises `EncodeError`, `DecodeError`."""
    kind, data = PLAIN.encode(sent)
    return PLAIN.decode(kind, data, payload_type)


def payload_types() -> str:
    """The table."""
    rows = ["| sent | comes as | with `payload_type=` | comes as |", "|---|---|---|---|"]
    for written, named in SENT:
        sent = value(written)
        try:
            plain = _shown(received(sent))
        except EncodeError:
            rows.append(f"| `{written}` | not sent: `EncodeError` | | |")
            continue
        try:
            typed = _shown(received(sent, value(named)))
        except DecodeError:
            typed = "`DecodeError`"
        rows.append(f"| `{written}` | {plain} | `{named}` | {typed} |")
    return "\n".join(rows)


def _shown(value: Any) -> str:
    return f"`{repr(value).replace('datetime.', '')}`"
