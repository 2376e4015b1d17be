"""What the processes of these tests do before they are killed."""

from __future__ import annotations

import threading
from typing import Any

import shmbus
from shmbus import Message

NEVER = threading.Event()


def echo(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("echo", lambda message: message.payload)
    endpoint.run()


def take_and_hang(
    endpoint: shmbus.Endpoint, pattern: str, group: str | None, threads: int = 1
) -> None:
    """Takes one message in each thread, publishes that, and never finishes."""

    def hang(message: Message) -> None:
        endpoint.publish("begun", message.payload)
        NEVER.wait()

    if group:
        endpoint.subscribe(pattern, hang, group=group)
    else:
        endpoint.handle(pattern, hang)
    endpoint.run(threads=threads)


def seen(message: Message) -> tuple[Any, int, bool]:
    """What differs between a message that was handed on and one that was not."""
    return message.payload, message.attempt, message.redelivered
