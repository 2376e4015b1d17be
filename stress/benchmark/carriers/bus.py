"""The bus: by loan, which copies nothing, or by plain ``publish``, which copies once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import shmbus
from benchmark.roles.frames import Frame, Send, Take, Use

TYPE = "bench.frame"


@contextmanager
def lending(bus: str, consumers: int) -> Iterator[Send]:
    with shmbus.attach(bus, name="producer", timeout=20.0) as endpoint:
        endpoint.wait_for(TYPE, receivers=consumers, timeout=20.0)

        def send(nbytes: int, write: Use) -> None:
            with endpoint.loan_array(TYPE, nbytes // 8, np.uint64, timeout=None) as loan:
                write(loan.array)

        yield send


@contextmanager
def publishing(bus: str, consumers: int, as_bytes: bool = False) -> Iterator[Send]:
    """`as_bytes`: what the consumer gets is ``bytes``, and no array."""
    own: Frame = np.empty(0, np.uint64)
    with shmbus.attach(bus, name="producer", timeout=20.0) as endpoint:
        endpoint.wait_for(TYPE, receivers=consumers, timeout=20.0)

        def send(nbytes: int, write: Use) -> None:
            nonlocal own
            if own.nbytes != nbytes:
                own = np.empty(nbytes // 8, np.uint64)
            write(own)
            endpoint.publish(TYPE, own.data.cast("B") if as_bytes else own, timeout=None)

        yield send


@contextmanager
def taking(bus: str, number: int = 0, as_bytes: bool = False) -> Iterator[Take]:
    with shmbus.attach(bus, name=f"consumer{number}", timeout=20.0) as endpoint:
        endpoint.subscribe(TYPE)
        messages = iter(endpoint)

        def take(read: Use) -> None:
            payload = next(messages).payload
            read(np.frombuffer(payload, np.uint64) if as_bytes else payload)

        yield take
