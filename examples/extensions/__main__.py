"""The demonstration: the host with all samples, and what each of them does to it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from shmbus.errors import EndpointDied, RequestTimeout
from shmbus.supervisor import Line

from . import found
from .host import MOST, Host
from .installed import make_known

PATIENCE = 30.0
FLOOD = "extension.floods.noise"


def quiet(line: Line) -> None:
    """What the broken one says would fill the screen."""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        make_known(Path(__file__).parent / "samples", Path(directory))
        extensions = found.installed()
        print("found:", ", ".join(each.name for each in extensions))
        with Host(f"symphony-{os.getpid()}", extensions, quiet) as host:
            show(host)


def show(host: Host) -> None:
    host.edit("to be or not to be")
    print("words: it counts", host.ask("words", "count", timeout=PATIENCE))

    before = host.ask("crashes", "ping", timeout=PATIENCE)
    try:
        host.ask("crashes", "now", timeout=PATIENCE)
    except EndpointDied:
        again = host.ask("crashes", "ping", timeout=PATIENCE)
        print("crashes: who asked was told; it runs again:", again != before)

    before = host.ask("hangs", "ping", timeout=PATIENCE)
    try:
        host.ask("hangs", "now", timeout=0.2)
    except RequestTimeout:
        again = host.ask("hangs", "ping", timeout=PATIENCE)
        print("hangs: who asked was told; it runs again:", again != before)

    came = host.ask("lies", "attempts", timeout=PATIENCE)
    print("lies: all was refused:", set(came.values()) <= {"Forbidden", "NameTaken"})
    print("floods: of what it says the host has the newest:", FLOOD in host.said["floods"])
    print("varies: of its many types the host keeps a few:", len(host.said["varies"]) <= MOST)
    print("words: it counts", host.ask("words", "count", timeout=PATIENCE))


if __name__ == "__main__":
    main()
