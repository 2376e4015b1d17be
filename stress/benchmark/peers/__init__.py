"""Those that the bus is compared with: each file here does the least that its peer allows, the way
the peer's own documentation shows it, with what a fair-minded user of it would choose."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import import_module, metadata, util

from .row import Row


@dataclass(frozen=True)
class Peer:
    """Where it comes from. Its file is imported only where its package is."""

    name: str
    file: str
    package: str | None = None
    """Its name on PyPI."""
    imported: str | None = None
    server: str | None = None
    """The program, named as Debian's package of it is."""

    def absent(self) -> str | None:
        """What is missing here and how to get it, or ``None``."""
        if self.imported and util.find_spec(self.imported) is None:
            return f"pip install {self.package} (or '.[peers]')"
        if self.server and shutil.which(self.server) is None:
            return f"apt install {self.server}"
        return None

    def version(self) -> str:
        return metadata.version(self.package) if self.package else ""

    def rows(self) -> list[Row]:
        rows: list[Row] = import_module(f"{__name__}.{self.file}").ROWS
        return rows


PEERS = (
    Peer("shmbus", "shmbus", "shmbus"),
    Peer("multiprocessing", "multiprocessing"),
    Peer("pyzmq", "pyzmq", "pyzmq", "zmq"),
    Peer("redis", "redis", "redis", "redis", "redis-server"),
    Peer("nats", "nats", "nats-py", "nats", "nats-server"),
    Peer("zenoh", "zenoh", "eclipse-zenoh", "zenoh"),
    Peer("iceoryx2", "iceoryx2", "iceoryx2", "iceoryx2"),
    Peer("faster-fifo", "faster_fifo", "faster-fifo", "faster_fifo"),
    Peer(
        "cloudtoid-interprocess",
        "cloudtoid_interprocess",
        "cloudtoid-interprocess",
        "cloudtoid_interprocess",
    ),
)
