"""Rings between processes."""

import inspect
import subprocess
from collections.abc import Callable, Iterator

import pytest

from ringbuf import (
    Consumer,
    Producer,
)

from .rings import CAPACITY, span


def payloads() -> Iterator[bytes]:
    """Payloads whose records have every size, and begin at every position of a ring of 1024."""
    at = count = 0
    for target in range(0, 1024, 8):
        for wanted in range(8, 257, 8):
            at %= 1024
            way = [target - at] if target >= at else [1024 - at, target]
            for distance in way:
                steps = [256] * (distance // 256) + [distance % 256]
                for step in [*steps, wanted] if distance is way[-1] else steps:
                    if step:
                        count += 1
                        size = max(0, step - 8 - count % 8)
                        yield (count & 255).to_bytes(1, "big") * size
            at = target + wanted if target + wanted <= 1024 else wanted


SENDER = """
import sys
from collections.abc import Iterator
from ringbuf import Producer
{payloads}
with Producer.attach(sys.argv[1]) as ring:
    batch = int(sys.argv[2])
    if batch:
        assert ring.push_many(payloads(), timeout=None) == int(sys.argv[3])
    else:
        for payload in payloads():
            ring.push(payload, timeout=None)
"""


@pytest.mark.parametrize("batch", [0, 16])
def test_every_size_at_every_position_passes_between_processes(
    name: str, batch: int, start: Callable[..., subprocess.Popen[str]]
) -> None:
    expected = list(payloads())
    at, seen = 0, set()
    for payload in expected:
        seen.add((at % CAPACITY, (15 + len(payload)) // 8))
        at += span(at, len(payload))
    assert len(seen) == 128 * 32

    with Consumer.create(name, CAPACITY) as ring:
        source = SENDER.format(payloads=inspect.getsource(payloads))
        sender = start(source, name, batch, len(expected))
        got: list[bytes] = []
        while len(got) < len(expected):
            lives = sender.poll() is None
            one = None if batch else ring.pop(timeout=1)
            new = ring.pop_many(batch, timeout=1) if batch else [] if one is None else [one]
            assert new or lives
            got += new
            assert got[-1:] == expected[: len(got)][-1:]
        assert got == expected
        assert sender.communicate(timeout=30) == ("", "")
        assert ring.pop() is None


KILLED = """
import sys, time
from ringbuf import Producer
with Producer.attach(sys.argv[1]) as ring:
    ring.push(b"whole")
    with ring.reserve(100) as view:
        view[:] = b"?" * 100
        print("half-way", flush=True)
        time.sleep(600)
"""


def test_a_producer_killed_half_way_leaves_nothing_half_written(
    name: str,
    producer: Producer,
    consumer: Consumer,
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    producer.close()
    victim = start(KILLED, name)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "half-way\n"
    victim.kill()
    victim.wait()
    with Producer.attach(name) as successor:
        successor.push(b"after")
        assert consumer.pop_many(10) == [b"whole", b"after"]
