"""What tests look at: how an endpoint stands, and what a message says of itself."""

from __future__ import annotations

import shmbus
from shmbus import BusView, Message
from shmbus.views.facts import EndpointInfo


def info(view: shmbus.Bus | BusView, name: str) -> EndpointInfo:
    return next(each for each in view.endpoints() if each.name == name)


def seen(message: Message | None) -> tuple[object, int, bool, str]:
    assert message is not None
    return message.payload, message.attempt, message.redelivered, message.source
