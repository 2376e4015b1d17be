"""The door: where a process knocks to be admitted to a bus. Messages never pass here.

A SEQPACKET socket beside the segments. The caller completes its segment UP before it knocks; it
sends one record, gets one answer, and keeps the connection open for as long as it is attached: its
end shows an ``exec``. The socket identifies the caller, and shows that it is alive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import layout, names
from .layout import DoorCode

KNOCK_SIZE = layout.KNOCK.itemsize
ANSWER_SIZE = layout.ANSWER.itemsize


class Knock(NamedTuple):
    """What a caller sends."""

    layout: int
    nonce: int
    start_time: int

    def pack(self) -> bytes:
        return np.array([self], layout.KNOCK).tobytes()

    @classmethod
    def unpack(cls, record: bytes) -> Knock:
        return cls(*np.frombuffer(record, layout.KNOCK)[0].item())


class Answer(NamedTuple):
    """What it gets back."""

    code: DoorCode
    slot: int = 0
    generation: int = 0
    pid: int = 0
    number: int = 0
    text: str = ""

    def pack(self) -> bytes:
        fields = (self.code, self.slot, self.generation, self.pid, 0, self.number)
        return np.array([(*fields, self.text.encode())], layout.ANSWER).tobytes()

    @classmethod
    def unpack(cls, record: bytes) -> Answer:
        fields = np.frombuffer(record, layout.ANSWER)[0].item()
        code, slot, generation, pid, _, number, text = fields
        return cls(DoorCode(code), slot, generation, pid, number, text.decode(errors="replace"))


def path(bus: str) -> str:
    """Where a bus's door is."""
    return str(names.SHM / names.names_of(bus).door)
