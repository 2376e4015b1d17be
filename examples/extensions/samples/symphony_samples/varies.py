"""Publishes as fast as it can, without end, each message with a type of its own."""

import itertools

import shmbus


def main() -> None:
    with shmbus.attach(name="varies") as endpoint:
        for number in itertools.count():
            endpoint.publish(f"extension.varies.n{number}", number)
