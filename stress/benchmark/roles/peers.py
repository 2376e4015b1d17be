"""The others: pyzmq through its own proxy, pyzmq directly, and a socket pair without any middle.

Each function is a role (see stage.py) and does the least that the transport allows, the way its
own documentation shows it.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import repeat

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from benchmark.measure.calls import PAYLOAD, Latency, call_rate, time_calls
from benchmark.measure.floods import Flood, receive_rate, sender_cpu
from benchmark.measure.paced import Pace, receive_stamped, send_stamped, warm_up
from benchmark.measure.typed import READING, Reading
from benchmark.stage import Stage, busy_thread


class Address:
    """Where a pyzmq proxy listens: ``ipc`` sockets, meant for the processes of one machine."""

    def __init__(self, directory: str) -> None:
        self.front, self.back = f"ipc://{directory}/front", f"ipc://{directory}/back"


# front socket, back socket
REQUESTS = (zmq.ROUTER, zmq.DEALER)
ONE_WAY = (zmq.PULL, zmq.PUSH)
FAN_OUT = (zmq.XSUB, zmq.XPUB)
LOSSY = (zmq.PUB, zmq.SUB, *FAN_OUT)  # kinds that lose what is beyond the high-water mark


@contextmanager
def _socket(
    kind: int, *, connect: str | None = None, bind: str | None = None
) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    sock = context.socket(kind)
    if kind in LOSSY:
        sock.set_hwm(0)
    try:
        if bind:
            sock.bind(bind)
        if connect:
            sock.connect(connect)
        yield sock
    finally:
        sock.close(linger=0)
        context.term()


def proxy(stage: Stage, address: Address, kinds: tuple[int, int], busy: bool = False) -> None:
    """zmq.proxy, which holds no GIL, in a process of its own; with `busy`, beside a busy thread."""
    context = zmq.Context()
    front, back = context.socket(kinds[0]), context.socket(kinds[1])
    if kinds == FAN_OUT:
        front.set_hwm(0)
        back.set_hwm(0)
    front.bind(address.front)
    back.bind(address.back)
    with ExitStack() as stack:
        if busy:
            stack.enter_context(busy_thread())
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # zmq.proxy may miss one
            stage.ready_before_others()  # subscribers are ready once something has come
            zmq.proxy(front, back)
        finally:
            context.destroy(linger=0)


def replier(stage: Stage, address: Address, direct: bool = False) -> None:
    """Behind the proxy; or `direct`, in its place."""
    here = {"bind": address.front} if direct else {"connect": address.back}
    with _socket(zmq.REP, **here) as sock:
        stage.ready()
        while True:
            sock.send(sock.recv())


def requester(stage: Stage, address: Address, seconds: float) -> Latency:
    with _socket(zmq.REQ, connect=address.front) as sock:

        def call(payload: bytes) -> bytes:
            sock.send(payload)
            return sock.recv()

        stage.ready()
        return time_calls(call, seconds)


def dealer(stage: Stage, address: Address, outstanding: int, seconds: float) -> float:
    """Replies per second, with so many requests outstanding. Frame by frame, since
    `send_multipart` and `recv_multipart` take twice as long."""
    with _socket(zmq.DEALER, connect=address.front) as sock:
        send, receive = sock.send, sock.recv

        def ask() -> None:
            send(b"", zmq.SNDMORE)  # as REQ sends it, and REP expects it
            send(PAYLOAD)

        def take(count: int) -> None:
            for _ in repeat(None, count):
                receive()
                receive()
                ask()

        stage.ready()
        for _ in repeat(None, outstanding):
            ask()
        return call_rate(take, seconds)


def sender(stage: Stage, connect: str, flood: Flood, typed: bool = False) -> None:
    """CPU microseconds per message."""
    with _socket(zmq.PUSH, connect=connect) as sock:
        send = sock.send
        encode = msgspec.msgpack.Encoder().encode

        def send_raw(count: int) -> None:
            for _ in repeat(None, count):
                send(PAYLOAD)

        def send_typed(count: int) -> None:
            for _ in repeat(None, count):
                send(encode(READING))

        stage.ready()
        stage.report(sender_cpu(flood, send_typed if typed else send_raw))
        stage.wait_until_stopped()  # a proxy loses the last messages of a sender that goes at once


def receiver(
    stage: Stage,
    flood: Flood,
    connect: str | None = None,
    bind: str | None = None,
    typed: bool = False,
) -> float:
    """Messages per second."""
    with _socket(zmq.PULL, connect=connect, bind=bind) as sock:
        receive = sock.recv
        decode = msgspec.msgpack.Decoder(Reading).decode

        def take_raw(count: int) -> None:
            for _ in repeat(None, count):
                receive()

        def take_typed(count: int) -> None:
            for _ in repeat(None, count):
                decode(receive())

        stage.ready()
        return receive_rate(flood, take_typed if typed else take_raw)


def publisher(stage: Stage, address: Address, pace: Pace, direct: bool = False) -> None:
    """The rate that it held, Paced; `direct`, where the subscribers find the proxy otherwise."""
    here = {"bind": address.back} if direct else {"connect": address.front}
    with _socket(zmq.PUB, **here) as sock:
        # What is sent before the subscriptions arrive is lost: it only warms up.
        stage.ready(meanwhile=lambda: warm_up(pace, sock.send))
        stage.report(send_stamped(pace, sock.send, warm=20))
        stage.wait_until_stopped()


def subscriber(stage: Stage, address: Address, pace: Pace) -> npt.NDArray[np.int64]:
    with _socket(zmq.SUB, connect=address.back) as sock:
        sock.subscribe(b"")
        sock.recv()  # it has arrived
        stage.ready()
        return receive_stamped(pace, iter(sock.recv, None))


def pair_server(stage: Stage, end: socket.socket) -> None:
    stage.ready()
    while True:
        end.send(end.recv(256))


def pair_client(stage: Stage, end: socket.socket, seconds: float) -> Latency:
    def call(payload: bytes) -> bytes:
        end.send(payload)
        return end.recv(256)

    stage.ready()
    return time_calls(call, seconds)
