"""One direction to one peer: frames, in order, numbered, and what became of each.

At most `window` bytes are on their way at a time: sent, and not acknowledged. What is more waits in
a buffer, of at most `buffer` bytes. So every message is delivered, or is in one of both, or is
counted as lost, by its type, and the peer is told of it.

While little is under way the loop sends itself. Else a thread does, which begins when it is first
needed: a peer that takes nothing stalls that, and not the loop.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from shmbus.shared.frames import Bytes

from . import keys, wire
from .losses import Losses

log = logging.getLogger("shmbus")

Put = Callable[[str, bytes, Bytes], None]
Lost = Callable[[], object]
Congestion = Literal["drop_newest", "drop_oldest", "block"]

DIRECT = 64 << 10
"""Bytes under way up to which the loop sends."""

_TOLD = 500  # types in one frame
_MAY_BE_LOST = (wire.EVENT, wire.SEND)
"""Lanes whose frames are dropped where there is no space, by `congestion`. For those of others
somebody waits: they have as much space again, of their own."""

_REFUSED = 8192  # that did not leave, and of which somebody is still to be told

_FRAME = 64  # bytes of a frame besides its body, type and payload, roughly


class _Frame(NamedTuple):
    """What waits in the buffer."""

    lane: str
    type: str
    body: bytes
    payload: Bytes
    messages: int
    size: int
    lost: Lost | None


class _Sent(NamedTuple):
    """What is under way."""

    seq: int
    type: str
    messages: int
    size: int
    lost: Lost | None


class Channel:
    """What this link sends to one run of another. Only the loop calls it."""

    def __init__(
        self,
        outbox: keys.Outbox,
        run: str,
        to: str,
        put: Put,
        *,
        window: int,
        buffer: int,
        congestion: Congestion,
    ) -> None:
        self._outbox, self._run, self._to, self._put = outbox, run, to, put
        self._window, self.buffer, self._congestion = window, buffer, congestion
        self._seq = 0
        self._waiting: deque[_Frame] = deque()
        self._sent: deque[_Sent] = deque()
        self._untold = Losses()
        self._space: list[asyncio.Future[None]] = []
        self._awaited = 0  # bytes in the buffer that somebody waits for
        self._refused: deque[Lost] = deque(maxlen=_REFUSED)
        self._sender: _Sender | None = None
        self._open, self._cut = True, False
        self.waiting_bytes = self.under_way = 0
        """Bytes in the buffer, and on their way."""
        self.on_sent: Callable[[], object] | None = None
        """Called when something is on its way, and nothing was."""
        self.messages = self.payload_bytes = 0
        """That have left."""
        self.lost = Losses()
        """Messages that were dropped here or are known not to have come there, by type."""

    def count_on(self, former: Channel) -> None:
        """It has the place of one to a former run, whose counts go on; what that has not
        acknowledged counts as lost."""
        former.close()
        self.messages, self.payload_bytes = former.messages, former.payload_bytes
        self.lost, self._untold = former.lost, former._untold
        self._cut = True  # until the peer says that it is there

    # Sending ---------------------------------------------------------------------------------

    def tell(self, what: str, body: object) -> None:
        """A frame of the control lane: not numbered, and ahead of what waits in the buffer."""
        head = wire.head(self._run, self._to, 0, wire.packed(body))
        self._go(self._outbox.key(wire.CONTROL, what), head, b"")

    def send(
        self,
        lane: str,
        type: str,
        body: bytes,
        payload: Bytes,
        messages: int = 1,
        lost: Lost | None = None,
    ) -> None:
        """A frame of another lane, with so many messages. Events and commands that find no space in
        the buffer are dropped, by `congestion`; what somebody waits for is, where so much of that
        waits alone. `lost`: called when it has left and is known not to have come; where it found
        no space, once there is some, and in a cut, once the peer is there again."""
        size = len(payload) + len(body) + len(type) + _FRAME
        frame = _Frame(lane, type, body, payload, messages, size, lost)
        if self._cut or not self._open:
            self._lose(frame)
        elif not self._waiting and self._fits(size):
            self._leave(frame)
        elif self._has_space(size) if lane in _MAY_BE_LOST else self.has_room(size):
            self._waiting.append(frame)
            self.waiting_bytes += size
            self._awaited += size if lane not in _MAY_BE_LOST else 0
        else:
            self._lose(frame)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes that somebody waits for find space in the buffer."""
        return self._awaited + size <= self.buffer or not self._awaited

    @property
    def full(self) -> bool:
        """Whether the buffer has no space, and nothing shall be dropped: whoever sends events or
        commands waits for `space`."""
        return self._congestion == "block" and self.waiting_bytes >= self.buffer

    async def space(self) -> None:
        """Wait while it is full."""
        while self.full and self._open:
            future = asyncio.get_running_loop().create_future()
            self._space.append(future)
            await future

    def _fits(self, size: int) -> bool:
        return not self._sent or self.under_way + size <= self._window

    def _has_space(self, size: int) -> bool:
        """In the buffer, for what may be dropped: the oldest of that makes place where that is
        wanted."""
        if self._congestion == "block":
            return True  # a frame more: who sends waits then
        if self._congestion == "drop_oldest":
            while self.waiting_bytes + size > self.buffer and self._drop_oldest():
                pass
        return self.waiting_bytes + size <= self.buffer or not self._waiting

    def _drop_oldest(self) -> bool:
        for i, frame in enumerate(self._waiting):
            if frame.lane in _MAY_BE_LOST:
                del self._waiting[i]
                self.waiting_bytes -= frame.size
                self._lose(frame)
                return True
        return False

    def _lose(self, frame: _Frame) -> None:
        self.miss(frame.type, frame.messages)
        if frame.lost is not None:
            self._refused.append(frame.lost)

    def miss(self, type: str, messages: int) -> None:
        """So many messages of a type do not get there."""
        self.lost.count(type, messages)
        self._untold.count(type, messages)

    @property
    def last(self) -> int:
        """The number of the frame that left last."""
        return self._seq

    @property
    def oldest(self) -> int | None:
        """Of the oldest one that is on its way; None: none is."""
        return self._sent[0].seq if self._sent else None

    def _leave(self, frame: _Frame) -> None:
        self._seq += 1
        if not self._sent and self.on_sent is not None:
            self.on_sent()
        self._sent.append(_Sent(self._seq, frame.type, frame.messages, frame.size, frame.lost))
        self.under_way += frame.size
        self.messages += frame.messages
        self.payload_bytes += len(frame.payload)
        head = wire.head(self._run, self._to, self._seq, frame.body)
        self._go(self._outbox.key(frame.lane, frame.type), head, frame.payload)

    def _go(self, key: str, head: bytes, payload: Bytes) -> None:
        sender = self._sender
        if (sender is None or sender.idle) and self.under_way <= DIRECT:
            self._put(key, head, payload)
            return
        if sender is None:
            sender = self._sender = _Sender(self._put, self._to)
        sender.send(key, head, payload)

    # What became of it -----------------------------------------------------------------------

    def acknowledge(self, seq: int, missing: Iterable[tuple[int, int]] = ()) -> None:
        """The peer has taken all frames up to this one, but those `missing`, from one to another,
        which will never come."""
        gaps = tuple(missing)
        told = list[Lost]()
        while self._sent and self._sent[0].seq <= seq:
            sent = self._sent.popleft()
            self.under_way -= sent.size
            if any(first <= sent.seq <= last for first, last in gaps):
                self.miss(sent.type, sent.messages)
                if sent.lost is not None:
                    told.append(sent.lost)
        self._flow()
        for lost in told:
            lost()

    def resume(self, seq: int) -> None:
        """The peer is there again after a cut, and has taken all frames up to this one; the others
        did not come."""
        self._cut = False
        last = self._sent[-1].seq if self._sent else seq
        self.acknowledge(last, [(seq + 1, last)])

    def _flow(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size):
            frame = self._waiting.popleft()
            self.waiting_bytes -= frame.size
            self._awaited -= frame.size if frame.lane not in _MAY_BE_LOST else 0
            self._leave(frame)
        for _ in range(len(self._refused)):  # what that sends may be refused again
            if 2 * self._awaited > self.buffer:
                break
            self._refused.popleft()()
        self.tell_lost()
        self._wake()

    def _wake(self) -> None:
        if not self.full:
            for future in self._space:
                if not future.done():
                    future.set_result(None)
            self._space.clear()

    def tell_lost(self) -> None:
        """Tell the peer what was lost since it was told last, by type."""
        if self._untold:
            untold, self._untold = list(self._untold.items()), Losses()
            for at in range(0, len(untold), _TOLD):
                self.tell("lost", [untold[at : at + _TOLD]])

    def cut(self) -> None:
        """The peer is not there: what waits is lost, and what comes until it is there again."""
        self._cut = True
        while self._waiting:
            self._lose(self._waiting.popleft())
        self.waiting_bytes = self._awaited = 0
        if self._sender is not None:
            self._sender.drop()
        self._wake()

    def close(self) -> None:
        """It will not come back: what it has not acknowledged counts as lost, too."""
        self._open = False
        self.cut()
        for sent in self._sent:
            self.miss(sent.type, sent.messages)
        self._sent.clear()
        self._refused.clear()
        self.under_way = 0
        if self._sender is not None:
            self._sender.end()
            self._sender = None


class _Sender:
    """The thread of one channel."""

    def __init__(self, put: Put, name: str) -> None:
        self._put = put
        self._frames: queue.SimpleQueue[tuple[str, bytes, Bytes] | None]
        self._frames = queue.SimpleQueue()
        self._given = self._done = 0  # each has one writer: the loop, and the thread
        self._dropped = 0  # of those given
        threading.Thread(target=self._run, name=f"shmbus-link-to-{name}", daemon=True).start()

    @property
    def idle(self) -> bool:
        """Whether it has sent all."""
        return self._done == self._given

    def send(self, key: str, head: bytes, payload: Bytes) -> None:
        """Behind what it has."""
        self._given += 1
        self._frames.put((key, head, payload))

    def drop(self) -> None:
        """Send nothing of what it has."""
        self._dropped = self._given

    def end(self) -> None:
        """Nothing more comes."""
        self.drop()
        self._frames.put(None)

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            try:
                if self._done >= self._dropped:
                    self._put(*frame)
            except Exception:  # a mistake of ours: that one is missing there, and counted
                log.exception("a frame to %s is not sent", threading.current_thread().name)
            self._done += 1
            del frame  # a large payload is of a pool, and is held until then
