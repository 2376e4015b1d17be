"""The demonstration: the processes on a bus, one of them killed, the result checked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

import shmbus
from shmbus import Bus, Message
from shmbus.host import uninterrupted

from .roles import PATIENCE, SHOWN, Hits, Part, Status, rings_of
from .sources import Index, find, tokenise

SEARCHES = 2000
_FRAME = 1024  # bytes of a message beside the file: header, type, path, framing
_LEAST_RING = 64 * 1024
_SILENCE = 60.0  # seconds without a new file, after which the rest counts as missing

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured in one run. Times in seconds."""

    path: str
    files: int
    bytes: int
    words: int
    workers: int
    ring_bytes: int
    seconds: float
    """From the first file published to the last in the index."""
    plain_seconds: float
    """What one process took without a bus, reading included."""
    messages: int
    """Delivered, in that time."""
    rate: float
    """Messages a second."""
    latency_mean: float
    latency_p50: float
    latency_p99: float
    requests: int
    correct: int
    lost: int
    redelivered: int
    killed: str
    """The worker that was killed."""
    death_seen: float | None
    """From the SIGKILL to the event at a subscriber."""
    taken_over: float | None
    """From the SIGKILL until another worker took the first file handed on."""
    handed_on: int
    """Files of the killed worker that others did."""
    differences: tuple[str, ...]
    """What differs from what is expected; empty if nothing does."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and numbers of a run."""

    workers: int
    ring_bytes: int
    """Of those that carry whole files."""
    index_ring_bytes: int
    """Of the index, which gets the words alone."""
    needed: int
    """Bytes of /dev/shm, approximately."""


def play(root: Path, *, workers: int = 3, progress: Progress = lambda *_: None) -> Outcome:
    """Index the source files below ``root`` over a bus of this process's own.

    Raises ``FileNotFoundError`` where there are none, ``SegmentError`` where /dev/shm is too small,
    and whatever the bus raises.
    """
    plain, sizes, plain_seconds = _plain(root, progress)
    plan = _plan(sizes, plain, workers)
    name = f"demo-{os.getpid()}"
    settings = rings_of(_LEAST_RING, block_timeout=PATIENCE)
    with shmbus.serve(name, settings=settings) as bus:
        outcome = _Play(bus, root, plan, plain, sizes, plain_seconds, progress).run()
    left = [file for file in os.listdir("/dev/shm") if f":{name}:" in file]
    if left:
        found = (*outcome.differences, f"left in /dev/shm: {', '.join(left)}")
        outcome = msgspec.structs.replace(outcome, differences=found)
    return outcome


def _plain(root: Path, progress: Progress) -> tuple[Index, list[int], float]:
    """The same index, made here alone; the sizes of the files; and how long it took."""
    files = list(find(root))
    if not files:
        raise FileNotFoundError(f"there are no source files below {root}")
    index, sizes = Index(), []
    began = time.monotonic()
    for number, path in enumerate(files, 1):
        content = path.read_bytes()
        sizes.append(len(content))
        index.add(str(path.relative_to(root)), tokenise(content))
        progress("one process alone", number, len(files))
    return index, sizes, time.monotonic() - began


def _plan(sizes: list[int], plain: Index, workers: int) -> Plan:
    """Rings for the largest file, and as many workers as fit into /dev/shm: two at least."""
    largest = max(sizes)
    # A word takes its letters and at most three bytes more in MessagePack.
    words = max(sum(len(word) + 3 for word in words) for words in plain.files.values())
    ring, index_ring = _ring_for(largest), _ring_for(words)
    # Workers get files and send words; the index gets words, and replies with paths.
    ring = max(ring, index_ring)
    free = shutil.disk_usage("/dev/shm").free
    for count in range(max(workers, 2), 1, -1):
        needed = (
            rings_of(_LEAST_RING).bytes_for(1)
            + (1 + count) * rings_of(ring).endpoint_bytes
            + rings_of(index_ring).endpoint_bytes
        )
        if needed <= free:
            return Plan(workers=count, ring_bytes=ring, index_ring_bytes=index_ring, needed=needed)
    raise shmbus.errors.SegmentError(
        name="/dev/shm",
        reason=f"too small for rings that carry the largest file, of {largest} bytes",
        remedy="Make it larger (in a container: --shm-size), or give a tree of smaller files",
        size=needed,
        free=free,
    )


def _ring_for(payload: int) -> int:
    """A power of two, of which a message may take a quarter."""
    return max(_LEAST_RING, 1 << (4 * (payload + _FRAME) - 1).bit_length())


class _Play:
    """One run. The client and the bus are this process; all others are its children."""

    def __init__(
        self,
        bus: Bus,
        root: Path,
        plan: Plan,
        plain: Index,
        sizes: list[int],
        plain_seconds: float,
        progress: Progress,
    ) -> None:
        self.bus, self.root, self.plan, self.plain = bus, root, plan, plain
        self.sizes, self.plain_seconds, self.progress = sizes, plain_seconds, progress
        self.half = threading.Event()
        self.died = threading.Event()
        self.killed_ns = self.seen_ns = 0
        self.differences: list[str] = []

    def run(self) -> Outcome:
        plan, victim = self.plan, "worker-1"
        with self._children() as start:
            start("index", "index", plan.index_ring_bytes)
            workers = [f"worker-{n}" for n in range(1, plan.workers + 1)]
            pids = {name: start("worker", name, plan.ring_bytes).pid for name in workers}
            with self.bus.attach("client", timeout=PATIENCE) as client:

                def on_half(message: Message) -> None:
                    client.request(f"{victim}.keep", timeout=PATIENCE)
                    self.half.set()

                def on_down(message: Message) -> None:
                    if message.payload["name"] == victim:
                        self.seen_ns = time.monotonic_ns()
                        self.died.set()

                client.handle("demo.half", on_half)
                client.subscribe("$bus.endpoint.down", on_down)
                client.start()
                client.wait_for("index.status", timeout=PATIENCE)
                client.wait_for("source.words", timeout=PATIENCE)
                client.wait_for("source.file", receivers=plan.workers, timeout=PATIENCE)
                walker = start("walker", "walker", plan.ring_bytes)
                status = self._follow(client, walker, victim, pids[victim])
                traffic = self.bus.health()
                correct, requests = self._search(client)
                if not self.died.wait(5.0):
                    self.differences.append(f"the death of {victim} was not reported")
                health = self.bus.health()
        seconds = max((status.last_ns - status.began_ns) / 1e9, 1e-9)
        taken = status.taken_over_ns
        if health.lost:
            self.differences.append(f"{health.lost} messages were lost")
        return Outcome(
            path=str(self.root),
            files=status.files,
            bytes=sum(self.sizes),
            words=len(self.plain.words()),
            workers=plan.workers,
            ring_bytes=plan.ring_bytes,
            seconds=seconds,
            plain_seconds=self.plain_seconds,
            messages=traffic.routed,
            rate=traffic.routed / seconds,
            latency_mean=health.latency.mean,
            latency_p50=health.latency.p50,
            latency_p99=health.latency.p99,
            requests=requests,
            correct=correct,
            lost=health.lost,
            redelivered=health.redelivered,
            killed=victim,
            death_seen=(self.seen_ns - self.killed_ns) / 1e9 if self.seen_ns else None,
            taken_over=(taken - self.killed_ns) / 1e9 if taken is not None else None,
            handed_on=status.handed_on,
            differences=tuple(self.differences),
        )

    def _follow(
        self, client: shmbus.Endpoint, walker: subprocess.Popen[bytes], victim: str, pid: int
    ) -> Status:
        """Until the index has every file; kills the victim half-way, once it has one in hand."""
        total, since, before = len(self.sizes), time.monotonic(), -1
        while True:
            reply = client.request("index.status", timeout=PATIENCE, reply_type=Status)
            status: Status = reply.payload
            self.progress("over the bus", status.files, total)
            if self.half.is_set() and not self.killed_ns:
                seen = next((e for e in self.bus.endpoints() if e.name == victim), None)
                if seen is None or seen.held or status.files >= total:
                    self.killed_ns = time.monotonic_ns()
                    os.kill(pid, signal.SIGKILL)
            elif status.files >= total and self.killed_ns:
                return status
            if status.files != before:
                since, before = time.monotonic(), status.files
            elif walker.poll() or time.monotonic() - since > _SILENCE:
                self.differences.append(f"{total - status.files} of {total} files are missing")
                return status
            if self.killed_ns:
                time.sleep(0.02)
            else:
                self.half.wait(0.02)

    def _search(self, client: shmbus.Endpoint) -> tuple[int, int]:
        """Search for words and pairs of words, and compare; then compare the whole index."""
        words = self.plain.words()
        searched = words[:: max(len(words) // SEARCHES, 1)][:SEARCHES]
        pairs = zip(searched[::10], searched[1::10], strict=False)
        searched += [f"{one} {two}" for one, two in pairs]
        correct = 0
        for number, text in enumerate(searched, 1):
            hits = client.request("index.search", text, timeout=PATIENCE, reply_type=Hits).payload
            expected = self.plain.search(text)
            correct += hits == Hits(len(expected), expected[:SHOWN])
            if number % 50 == 0 or number == len(searched):
                self.progress("searches", number, len(searched))
        if correct < len(searched):
            self.differences.append(
                f"{len(searched) - correct} of {len(searched)} searches are wrong"
            )
        digest = client.request("index.digest", timeout=PATIENCE, reply_type=str).payload
        if digest != self.plain.digest():
            self.differences.append("the index differs from the one made without a bus")
        return correct, len(searched)

    @contextmanager
    def _children(self) -> Iterator[Callable[[str, str, int], subprocess.Popen[bytes]]]:
        """A function that starts a process; all are ended afterwards."""
        children: list[subprocess.Popen[bytes]] = []

        def start(role: str, name: str, ring_bytes: int) -> subprocess.Popen[bytes]:
            part = Part(role, self.bus.name, name, ring_bytes, str(self.root))
            command = [sys.executable, "-P", "-m", "shmbus_command.demo.roles"]
            # In a process group of its own: Ctrl-C reaches this process alone, which ends it.
            with uninterrupted():
                child = subprocess.Popen(
                    [*command, msgspec.json.encode(part).decode()], process_group=0
                )
                children.append(child)
            return child

        try:
            yield start
        finally:  # while the bus still runs, so that they can detach
            for child in children:
                child.terminate()
            for child in children:
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
