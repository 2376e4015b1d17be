"""Works, until it is asked for what never ends."""

import os
import time

import shmbus
from shmbus import Message


def main() -> None:
    with shmbus.attach(name="hangs") as endpoint:
        endpoint.handle("extension.hangs.ping", lambda message: os.getpid())

        @endpoint.handle("extension.hangs.now")
        def hang(message: Message) -> None:
            while True:
                time.sleep(60)

        endpoint.run()
