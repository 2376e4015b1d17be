"""The mailboxes of an endpoint, as their segments and what it says of them in UP show them.

One that cannot be opened has been removed since, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ringbuf import RingbufError
from ringbuf._kernel import Mapping
from shmbus.shared import _kernel, layout, names

from .facts import Mailbox
from .memory import copy_of, open_segment, table

_MADE = 1 << 63
_LEAST = layout.RECORD.itemsize + layout.BLOCK.itemsize
"""Bytes of a record whose payload lies in a pool."""


class Mailboxes:
    """Those of one endpoint, each opened once."""

    def __init__(self, bus: names.BusNames) -> None:
        self._bus = bus
        self._known: dict[int, Mapping] = {}

    def look(self, down: Any, had: Any) -> tuple[tuple[Mailbox, ...], int]:
        """All that there are, by what the dispatcher says of them (``down``) and the endpoint
        (``had``); and how many messages were written over that the endpoint has not missed yet."""
        known, self._known = self._known, {}
        found, unseen = [], 0
        for index in np.flatnonzero(down).tolist():
            whom = int(down[index])
            memory = known.get(whom) or (self._open(whom) if whom >= _MADE else None)
            if memory is not None:
                self._known[whom] = memory
                box, more = _mailbox(memory, had[index], whom)
                found.append(box)
                unseen += more
        return tuple(found), unseen

    def blocks(self) -> Iterator[np.void]:
        """What says where their payloads lie, of those messages in them that are too large for
        rings, as of the last look."""
        for memory in self._known.values():
            box = copy_of(memory, layout.MAILBOX)
            entries = table(memory, box["depth"], box["entries_offset"], layout.MAIL)
            cells = table(memory, box["cell_count"], box["cells_offset"], layout.MAIL_CELL)
            for entry in entries[entries["number"] != 0].copy():
                cell, length = int(entry["at"]) & 0xFFFFFFFF, int(entry["at"]) >> 32
                if cell >= len(cells) or not _LEAST <= length <= layout.MAIL_BYTES:
                    continue  # a record with such a payload has one cell
                record = cells[cell]["words"].tobytes()[:length]
                header = np.frombuffer(record, layout.RECORD, 1)[0]
                if int(header["flags"]) & layout.RecordFlag.POOLED:
                    yield np.frombuffer(record[-layout.BLOCK.itemsize :], layout.BLOCK, 1)[0]

    def _open(self, whom: int) -> Mapping | None:
        name = self._bus.mailbox(*_kernel.unpack_whom(whom))
        try:
            return open_segment(name, layout.SegmentKind.MAILBOX, layout.MAILBOX.itemsize)
        except RingbufError:
            return None


def _mailbox(memory: Mapping, had: Any, whom: int) -> tuple[Mailbox, int]:
    copy = copy_of(memory, layout.MAILBOX)
    entries = table(memory, copy["depth"], copy["entries_offset"], layout.MAIL)
    there = int(np.count_nonzero(entries["number"]))
    came, received, lost = int(copy["down"]["incoming"][0]["head"]), 0, 0
    if int(had["whom"]) == whom:  # else it is not mapped yet
        received, lost = int(had["received"]), int(had["lost"]) - int(had["lost_before"])
    left = max(came - received - lost, 0)  # it waits, or was written over since
    waiting = min(there, left)
    box = Mailbox(
        pattern=layout.text(copy["pattern"]),
        overflow="latest" if copy["latest"] else "drop_oldest",
        depth=int(copy["depth"]),
        slot=int(copy["down"]["slot"]),
        generation=int(copy["down"]["generation"]),
        came=came,
        received=received,
        waiting=waiting,
        lost=lost + left - waiting,
    )
    return box, left - waiting
