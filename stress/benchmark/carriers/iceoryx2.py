"""iceoryx2: slices lent in place, and an event for each, at which its consumer wakes.

To poll would take a core for each consumer. Its files lie under a root and with a prefix of this
benchmark's own, which alone are removed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import iceoryx2
import numpy as np

from benchmark.claims import Bench
from benchmark.roles.frames import Send, Take, Use

from . import DEPTH

MOST = 6 << 20  # bytes of a frame


_look = iceoryx2.Duration.from_millis(50)


@contextmanager
def files(bench: Bench) -> Iterator[iceoryx2.config.Config]:
    prefix = f"{bench.bus()}_"
    config = iceoryx2.config.default()
    config.global_cfg.root_path = iceoryx2.Path.new(bench.subdirectory())
    config.global_cfg.prefix = iceoryx2.FileName.new(prefix)
    try:
        yield config
    finally:
        for left in Path("/dev/shm").glob(f"{prefix}*"):
            left.unlink(missing_ok=True)


def _node(config: iceoryx2.config.Config) -> iceoryx2.Node:
    iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
    return (
        iceoryx2.NodeBuilder.new()
        .config(config)
        .signal_handling_mode(iceoryx2.SignalHandlingMode.Disabled)
        .create(iceoryx2.ServiceType.Ipc)
    )


def _frames(node: iceoryx2.Node) -> Any:
    return (
        node.service_builder(iceoryx2.ServiceName.new("frames"))
        .publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        .enable_safe_overflow(False)  # else the oldest is overwritten
        .subscriber_max_buffer_size(DEPTH)
        .open_or_create()
    )


def _sent(node: iceoryx2.Node) -> Any:
    return node.service_builder(iceoryx2.ServiceName.new("sent")).event().open_or_create()


@contextmanager
def sending(config: iceoryx2.config.Config) -> Iterator[Send]:
    node = _node(config)
    publisher = (
        _frames(node)
        .publisher_builder()
        .initial_max_slice_len(MOST)
        .backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered)
        .create()
    )
    notifier = _sent(node).notifier_builder().create()

    def send(nbytes: int, write: Use) -> None:
        sample = publisher.loan_slice_uninit(nbytes)
        write(np.frombuffer(sample.payload().as_memory_view(), np.uint64))
        sample.assume_init().send()
        notifier.notify()

    yield send


@contextmanager
def taking(config: iceoryx2.config.Config) -> Iterator[Take]:
    node = _node(config)
    receive = _frames(node).subscriber_builder().create().receive
    listener = _sent(node).listener_builder().create()

    def take(read: Use) -> None:
        while (sample := receive()) is None:
            listener.timed_wait(_look)
        read(np.frombuffer(sample.payload().as_memory_view(), np.uint64))

    yield take
