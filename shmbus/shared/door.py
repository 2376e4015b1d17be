"""The door: where a process asks to be let onto a bus. Messages never pass here.

A SEQPACKET socket beside the segments. The caller has made its segment UP, complete, before it
knocks; it sends one record, gets one answer, and keeps the connection open for as long as it is
attached: its end is how an ``exec`` shows. Who knocks, and that it lives, the dispatcher learns
from the socket itself.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from . import names

KNOCK = struct.Struct("<QQQ")  # layout, nonce, start time
ANSWER = struct.Struct(
    "<IIQIIQ480s"
)  # code, slot, generation, pid, reserved, layout or limit, text


class Code(IntEnum):
    """What the dispatcher answers."""

    ADMITTED = 0
    NAME_TAKEN = 1
    BUS_FULL = 2
    OTHER_LAYOUT = 3
    REFUSED = 4
    ENDING = 5
    NO_SPACE = 6


class Answer(NamedTuple):
    """One answer at the door."""

    code: Code
    slot: int = 0
    generation: int = 0
    pid: int = 0
    number: int = 0
    text: str = ""

    def pack(self) -> bytes:
        text = self.text.encode()[:480]
        return ANSWER.pack(self.code, self.slot, self.generation, self.pid, 0, self.number, text)

    @classmethod
    def unpack(cls, record: bytes) -> Answer:
        code, slot, generation, pid, _, number, text = ANSWER.unpack(record)
        return cls(
            Code(code), slot, generation, pid, number, text.rstrip(b"\0").decode(errors="replace")
        )


def path(bus: str) -> str:
    """Where a bus's door is."""
    return str(names.SHM / names.names_of(bus).door)
