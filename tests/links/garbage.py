"""A site that sends garbage: frames that it has seen others send, spoilt, in its own name."""

from __future__ import annotations

import json
import random
import threading
from typing import Self

import msgspec
import zenoh

BOUNDS = (0, 1, -1, 0x7F, 0xFF, 0xFFFF, 1 << 31, (1 << 63) - 1, (1 << 64) - 1)


class Vandal:
    """A session beside links, with the token of a site of its own."""

    def __init__(self, space: str, name: str, to: int, seed: int) -> None:
        self.name, self.run = name, f"{random.Random(seed).getrandbits(64):016x}"
        self._chance = random.Random(seed)
        self._root = f"shmbus/1/{space}"
        config = zenoh.Config()
        values = {
            "connect/endpoints": [f"tcp/127.0.0.1:{to}"],
            "listen/endpoints": ["tcp/127.0.0.1:0"],
            "scouting/multicast/enabled": False,
        }
        for key, value in values.items():
            config.insert_json5(key, json.dumps(value))
        self._seen: dict[str, tuple[list[str], bytes, bytes]] = {}
        self._lock = threading.Lock()
        self.sent = 0
        self._session = zenoh.open(config)
        self._listening = self._session.declare_subscriber(f"{self._root}/to/**", self._overhear)

    def join(self) -> None:
        """Be a site that is up."""
        key = f"{self._root}/site/{self.name}/{self.run}"
        self._token = self._session.liveliness().declare_token(key)

    def _overhear(self, sample: zenoh.Sample) -> None:
        """One frame of each key is enough."""
        chunks = str(sample.key_expr).removeprefix(f"{self._root}/to/").split("/")
        head = b"" if sample.attachment is None else sample.attachment.to_bytes()
        with self._lock:
            if chunks[1] != self.name:
                self._seen["/".join(chunks[2:])] = chunks[2:], head, sample.payload.to_bytes()

    def hears_all(self) -> bool:
        """Whether it is connected."""
        return bool(self._session.info.links())

    def seen(self) -> set[str]:
        """The lanes that it knows frames of."""
        with self._lock:
            return {chunks[0] for chunks, *_ in self._seen.values()}

    def spoil(self, site: str, run: str, count: int) -> None:
        """Send so many frames to a run of this site."""
        chance = self._chance
        with self._lock:
            seen = list(self._seen.values())
        for _ in range(count):
            chunks, head, payload = chance.choice(seen)
            if chance.random() < 0.2:
                chunks = [*chunks[:-1], chance.choice(("", "@", "..", "x" * 300, chunks[0]))]
            if chance.random() < 0.2:
                chunks = chunks[: chance.randrange(len(chunks) + 1)]
            key = "/".join(filter(None, [self._root, "to", site, self.name, *chunks]))
            if chance.random() < 0.5:
                payload = self._bitten(payload)
            self._session.put(key, payload, attachment=self._beheaded(head, run))
            self.sent += 1

    def _beheaded(self, head: bytes, run: str) -> bytes:
        """A head that is like one of its own, or none at all."""
        chance = self._chance
        if chance.random() < 0.1:
            return self._bitten(head)
        try:
            fields = msgspec.msgpack.decode(head)
            fields[:2] = self.run, run
        except (msgspec.MsgspecError, TypeError, ValueError):
            return head
        if chance.random() < 0.8:
            fields = self._twisted(fields, 2)
        return msgspec.msgpack.encode(fields)

    def _twisted(self, value: object, first: int = 0) -> object:
        """With something in it replaced."""
        chance = self._chance
        if isinstance(value, list) and len(value) > first and chance.random() < 0.9:
            at = chance.randrange(first, len(value))
            return [*value[:at], self._twisted(value[at]), *value[at + 1 :]]
        if isinstance(value, bytes) and chance.random() < 0.8:
            return self._bitten(value)
        return chance.choice(
            (None, True, "", "x" * 100, "a..b", "$bus.x", b"\xc1", [], {}, 1.5, *BOUNDS)
        )

    def _bitten(self, data: bytes) -> bytes:
        """With bytes changed, missing or added."""
        chance, bitten = self._chance, bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(bitten) + 1)
            match chance.randrange(3):
                case 0:
                    bitten[at : at + 1] = bytes([chance.getrandbits(8)])
                case 1:
                    del bitten[at:]
                case 2:
                    bitten[at:at] = chance.randbytes(chance.randrange(20))
        return bytes(bitten)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
