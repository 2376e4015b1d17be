"""A file copied through the bus: its owner sends it in parts of a megabyte, and others write them.

The parts are the reply to one request, at the pace of who takes them. They are views of the file,
copied once, into memory that the receiver reads in place.

    python examples/copy_file.py [SOURCE TARGET]
"""

import hashlib
import mmap
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import shmbus
from shmbus import Message

PART = 1 << 20


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def owner(bus: str) -> None:
    with shmbus.attach(bus, name="owner") as endpoint:

        def read(message: Message[str]) -> Iterator[memoryview]:
            if not os.path.getsize(message.payload):
                return  # nothing to map
            with (
                open(message.payload, "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as view,
            ):
                for start in range(0, len(view), PART):
                    with view[start : start + PART] as part:
                        yield part

        endpoint.handle("file.read", read)
        endpoint.handle("file.checksum", lambda message: checksum(Path(message.payload)))
        endpoint.handle("stop", lambda message: endpoint.close())
        endpoint.run()


def copy(bus: shmbus.Bus, source: Path, target: Path) -> None:
    with bus.attach("copier") as copier, target.open("wb") as file:
        copier.wait_for("file.read", timeout=30)
        with copier.stream("file.read", str(source), part_type=memoryview) as parts:
            sizes = [file.write(part.payload) for part in parts]
        file.flush()
        print(f"{sum(sizes):,} bytes in {len(sizes)} parts")
        same = copier.request("file.checksum", str(source), timeout=60).payload == checksum(target)
        print("the checksums are", "equal" if same else "different")
        copier.send("stop")


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"copy-{os.getpid()}") as bus, tempfile.TemporaryDirectory() as directory:
        if len(sys.argv) == 3:
            source, target = map(Path, sys.argv[1:])
        else:
            source, target = Path(directory, "source"), Path(directory, "target")
            source.write_bytes(os.urandom(PART) * 16 + b"and a bit")
        process = spawn.Process(target=owner, args=(bus.name,))
        process.start()
        copy(bus, source.resolve(), target)
        process.join()


if __name__ == "__main__":
    main()
