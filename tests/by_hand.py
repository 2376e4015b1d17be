"""A bus made by hand: its segments, word by word, without any process behind them."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from ringbuf import Segment
from shmbus.settings import MIB
from shmbus.shared import layout, names, sites
from shmbus.shared.methods import MethodInfo
from shmbus.shared.processes import start_time
from shmbus.shared.sites import EndpointNote, SiteNote, Wish

SHM = Path("/dev/shm")
RING = 4096


def entry(
    identifier: int,
    pattern: str = "",
    *,
    op: layout.InterestOp = layout.InterestOp.ADD,
    role: layout.InterestRole = layout.InterestRole.SUBSCRIBE,
    group: str = "",
    flags: int = 0,
    description: bytes = b"",
) -> bytes:
    body = pattern.encode() + group.encode() + description
    length = layout.INTEREST.itemsize + len(body)
    head = np.zeros(1, layout.INTEREST)
    fixed = (length, op, role, int(bool(group)), flags, identifier)
    head[0] = (*fixed, len(pattern), len(group), len(description), 0, 0, 0, 0)
    return (head.tobytes() + body).ljust(-(-length // 8) * 8, b"\0")


def note(identifier: int, what: sites.Note | bytes) -> bytes:
    """The entry in which a link notes this."""
    text = what if isinstance(what, bytes) else sites.encode(what)
    return entry(identifier, op=layout.InterestOp.NOTE, description=text)


class EndpointByHand:
    """UP, DOWN and interests of one endpoint, all words at hand."""

    def __init__(self, bus: BusByHand, slot: int, generation: int, name: str, pid: int) -> None:
        self.bus, self.slot, self.generation = bus, slot, generation
        self.owner = names.new_owner(pid, start_time(pid))
        kind, stack = layout.SegmentKind, bus.stack
        size = layout.UP.itemsize + 2 * RING + 16 * layout.PENDING.itemsize
        self.up_segment = stack.enter_context(
            Segment.create(bus.names.up(self.owner), size, kind=kind.UP, layout=layout.LAYOUT)
        )
        self.up = view(self.up_segment, layout.UP)
        self.up["name"], self.up["state"] = name.encode(), layout.UpState.ATTACHED
        self.up["pending_count"], self.up["pending_offset"] = 16, layout.UP.itemsize + 2 * RING
        self.up["held"]["position"] = layout.NOWHERE
        self.up["prefetch"] = int(bus.head["prefetch"])
        self.up["outgoing_ring"]["capacity"] = RING
        down = bus.names.down(slot, generation)
        size = layout.DOWN.itemsize + 2 * RING + 16 * layout.TARGET.itemsize
        self.down_segment = stack.enter_context(
            Segment.create(down, size, kind=kind.DOWN, layout=layout.LAYOUT, generation=generation)
        )
        self.down = view(self.down_segment, layout.DOWN)
        self.down["incoming_ring"]["capacity"] = RING
        self.down["incoming"]["reclaim"] = layout.NOWHERE
        self.down["target_count"] = 16
        self.down["target_offset"] = layout.DOWN.itemsize + 2 * RING
        self.down["state"] = layout.DownState.LIVE
        self.row = bus.rows[slot]
        self.row["generation"], self.row["name"] = generation, name.encode()
        self.row["nonce"] = int(self.owner.nonce, 16)
        self.row["identity"]["pid"], self.row["identity"]["start_time"] = pid, self.owner.start
        self.row["since_wall_ns"] = time.time_ns()
        self.row["state"] = layout.RowState.LIVE
        bus.head["attached"] += 1

    def pending(self) -> Any:
        at = int(self.up["pending_offset"])
        return np.frombuffer(memoryview(self.up_segment.memory), layout.PENDING, 16, at)

    def targets(self) -> Any:
        at = int(self.down["target_offset"])
        return np.frombuffer(memoryview(self.down_segment.memory), layout.TARGET, 16, at)

    def pool(self, size: int = layout.POOL_DATA + 16 * 4096) -> Any:
        """Its pool, made now."""
        segment = self.bus.stack.enter_context(
            Segment.create(
                self.bus.names.pool(self.slot, self.generation),
                size,
                kind=layout.SegmentKind.POOL,
                layout=layout.LAYOUT,
                generation=self.generation,
            )
        )
        head = view(segment, layout.POOL)
        head["slot"], head["generation"], head["bytes"] = self.slot, self.generation, size
        self.up["pool_bytes"] = size
        return head

    def hold(self, of: EndpointByHand, *sizes: int) -> None:
        """Let it hold payloads of these sizes in the pool of another."""
        head = self.pool()
        for i, size in enumerate(sizes):
            head["shares"][i] = 64 * i + 1, of.whom(), 1 << 63 | i, size
        head["shares"][len(sizes)] = 0, of.whom(), 1 << 63, 4096  # it looks no more
        head["shares_used"] = len(sizes) + 1

    def whom(self) -> int:
        """Of this endpoint, as words of others name it."""
        return 1 << 63 | self.generation << 16 | self.slot

    def interests(self, *log: bytes, serial: int = 0) -> None:
        data = b"".join(log)
        name = self.bus.names.interests(self.owner, serial)
        if not (SHM / name).exists():
            segment = Segment.create(
                name, 8192, kind=layout.SegmentKind.INTERESTS, layout=layout.LAYOUT
            )
            self.log = self.bus.stack.enter_context(segment)
        memory = np.frombuffer(memoryview(self.log.memory), np.uint8)
        head = view(self.log, layout.INTERESTS)
        at = layout.INTERESTS.itemsize + int(head["bytes"])
        memory[at : at + len(data)] = np.frombuffer(data, np.uint8)
        head["bytes"] += len(data)
        self.up["outgoing"][0]["interests_serial"] = serial
        self.up["outgoing"][0]["interests_version"] += 1


class BusByHand:
    def __init__(
        self, stack: ExitStack, name: str, slots: int = 8, layout_: int = 0, pid: int = 0
    ) -> None:
        self.pid = pid or os.getpid()
        self.stack, self.name, self.names = stack, name, names.names_of(name)
        size = layout.BUS.itemsize + slots * layout.ROW.itemsize
        self.segment = stack.enter_context(
            Segment.create(
                self.names.bus_segment,
                size,
                kind=layout.SegmentKind.BUS,
                layout=layout_ or layout.LAYOUT,
            )
        )
        for file in (self.names.ready, self.names.door, f"sem.{self.names.bell[1:]}"):
            (SHM / file).touch()  # an observer never opens them
            stack.callback((SHM / file).unlink, missing_ok=True)
        self.head = view(self.segment, layout.BUS)
        memory = np.frombuffer(memoryview(self.segment.memory), np.uint8)
        self.rows = memory[layout.BUS.itemsize :].view(layout.ROW)
        self.head["slots"], self.head["rows_offset"] = slots, layout.BUS.itemsize
        self.head["identity"]["pid"] = self.pid
        self.head["identity"]["start_time"] = start_time(self.pid)
        self.head["started_ns"] = time.monotonic_ns()
        self.head["heartbeat_ns"] = (
            time.monotonic_ns() + 10**12
        )  # in the future, so that it stays recent while a test runs
        self.head["state"] = layout.BusState.SERVING
        self.head["in_bytes"] = self.head["out_bytes"] = self.head["reply_bytes"] = 65536
        self.head["max_requests"] = 16
        self.head["block_timeout_ns"], self.head["stall_after_ns"] = 10**9, 2 * 10**9
        self.head["prefetch"], self.head["max_deliveries"] = 4, 2
        self.head["backlog_bytes"] = 65536
        self.head["batch_per_pass"] = 256
        self.head["package"] = b"0.1.0"

    def endpoint(self, slot: int, name: str, generation: int = 1, pid: int = 0) -> EndpointByHand:
        return EndpointByHand(self, slot, generation, name, pid or self.pid)


def camera_on(bus: BusByHand, slot: int = 0) -> EndpointByHand:
    """An endpoint with a pool of 64 MiB, of which 12 are reserved and 6 in use."""
    camera = bus.endpoint(slot, "camera")
    camera.pool()
    camera.up["pool_limit"], camera.up["loans"] = 64 * MIB, 32
    camera.up["pool_asked"] = camera.down["pool_granted"] = 3 << 40 | 12 * MIB // 4096
    camera.up["pool_reserved"], camera.up["pool_in_use"] = 12 * MIB, 6 * MIB
    camera.up["pool_waits"] = 4
    return camera


ADD = MethodInfo(service="calc", name="add", interface="Calc", summary="Adds.")


def link_on(bus: BusByHand, slot: int = 0) -> EndpointByHand:
    """A link of the site berlin, which sees paris, with an endpoint camera, and rome, with one that
    offers calc.add and subscribes to light.>; oslo is down."""
    link = bus.endpoint(slot, "@link")
    now = time.time()
    here = SiteNote(site="berlin", space="lan", run="0" * 16, state="here", since=now - 60)
    up = SiteNote(site="rome", space="lan", run="1" * 16, state="up", since=now - 60)
    shoots, sees = Wish("shoot", "handle"), Wish("light.>", group="lights")
    camera = EndpointNote(name="camera", site="paris", pid=7, host="pc7", interests=(shoots, sees))
    offers = Wish("calc.add", "handle", method=ADD)
    calc = EndpointNote(name="calc", site="rome", pid=8, interests=(offers, Wish("light.>")))
    known = {"round_trip": 0.02, "clock_error_ns": 200_000, "clock_offset_ns": -5}
    counts = {"sent": 5, "received": 3, "lost_to": 2, "lost_from": 1, "garbage": 4}
    link.interests(
        entry(1, "shoot", role=layout.InterestRole.HANDLE),
        entry(2, "calc.add", role=layout.InterestRole.HANDLE),
        entry(3, "light.>"),
        note(10, here),
        note(11, replace(up, site="paris", **known, **counts)),
        note(12, replace(up, round_trip=0.0031)),
        note(13, replace(up, site="oslo", state="down", reason="nothing is heard of it")),
        note(14, camera),
        note(15, calc),
    )
    link.down["interests_seen"] = 1
    return link


def view(segment: Segment, structure: layout.Dtype) -> Any:
    return np.frombuffer(memoryview(segment.memory), structure, 1)[0]
