"""What tests look at: how an endpoint stands, what a message says of itself; and a shortage."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

import shmbus
from shmbus import BusView, Message
from shmbus.views.facts import EndpointInfo


def info(view: shmbus.Bus | BusView, name: str) -> EndpointInfo:
    return next(each for each in view.endpoints() if each.name == name)


def seen(message: Message | None) -> tuple[object, int, bool, str]:
    assert message is not None
    return message.payload, message.attempt, message.redelivered, message.source


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """This process may open no more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
