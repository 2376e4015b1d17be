"""pyzmq's PUSH and PULL over ``ipc``, connected to each other, with ``copy=False`` at both ends.

The sender's own frames are used again once libzmq has sent them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import zmq

from benchmark.roles.frames import Frame, Send, Take, Use

from . import DEPTH


@contextmanager
def sending(address: str) -> Iterator[Send]:
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.set_hwm(DEPTH)
    socket.bind(address)
    own: deque[tuple[Frame, zmq.MessageTracker | None]] = deque(maxlen=2 * DEPTH)
    own.extend((np.empty(0, np.uint64), None) for _ in range(2 * DEPTH))

    def send(nbytes: int, write: Use) -> None:
        frame, under_way = own.popleft()
        if under_way is not None:
            under_way.wait()
        if frame.nbytes != nbytes:
            frame = np.empty(nbytes // 8, np.uint64)
        write(frame)
        own.append((frame, socket.send(frame.data, copy=False, track=True)))

    try:
        yield send
    finally:
        context.destroy(linger=0)


@contextmanager
def taking(address: str) -> Iterator[Take]:
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.set_hwm(DEPTH)
    socket.connect(address)

    def take(read: Use) -> None:
        read(np.frombuffer(socket.recv(copy=False).buffer, np.uint64))

    try:
        yield take
    finally:
        context.destroy(linger=0)
