"""Works, until it is asked for what crashes it."""

import os

import shmbus
from shmbus import Message


def main() -> None:
    with shmbus.attach(name="crashes") as endpoint:
        endpoint.handle("extension.crashes.ping", lambda message: os.getpid())

        @endpoint.handle("extension.crashes.now")
        def crash(message: Message) -> None:
            os.abort()

        endpoint.run()
