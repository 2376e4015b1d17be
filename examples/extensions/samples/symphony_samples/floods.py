"""Publishes as fast as it can, without end."""

import itertools

import shmbus


def main() -> None:
    with shmbus.attach(name="floods") as endpoint:
        for number in itertools.count():
            endpoint.publish("extension.floods.noise", [number, "x" * 1000])
