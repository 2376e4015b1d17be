"""Counts the words of the buffer."""

import shmbus
from shmbus import Message


def main() -> None:
    with shmbus.attach(name="words") as endpoint:

        @endpoint.handle("extension.words.count")
        def count(message: Message) -> int:
            return len(endpoint.request("buffer.read").payload.split())

        endpoint.subscribe(
            "buffer.changed",
            lambda message: endpoint.publish("extension.words.counted", count(message)),
        )
        endpoint.run(threads=2)
