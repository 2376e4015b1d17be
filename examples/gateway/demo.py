"""A bus with a program in Node and one in shell, which take part through `shmbus gateway`.

    python examples/gateway/demo.py

Needs the extra `tools`, node, bash and jq; no packages of theirs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import shmbus
from shmbus import errors

HERE = Path(__file__).resolve().parent


@contextlib.contextmanager
def running(*command: str | Path, env: Mapping[str, str]) -> Iterator[None]:
    """A process, for the time of the block."""
    with subprocess.Popen(command, env=env) as process:
        try:
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def gateway(path: Path, env: Mapping[str, str]) -> Iterator[None]:
    """A gateway that listens there."""
    command = ["shmbus", "gateway", "--socket", str(path)]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()  # it says so when it listens
        try:
            yield
        finally:
            process.terminate()


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        shmbus.serve(f"languages-{os.getpid()}") as bus,
        bus.attach("client") as client,
    ):
        path = Path(directory) / "bus.sock"
        scripts = Path(sys.executable).parent
        env = {**os.environ, "SHMBUS_BUS": bus.name, "PATH": f"{scripts}:{os.environ['PATH']}"}
        with contextlib.ExitStack() as processes:
            processes.enter_context(running(HERE / "shell" / "greeter.sh", env=env))
            processes.enter_context(gateway(path, env))
            processes.enter_context(running("node", HERE / "node" / "words.js", path, env=env))
            client.wait_for("words.count", timeout=30)
            client.wait_for("greet.*", timeout=30)

            client.subscribe("words.counted")
            count = client.request("words.count", "to be or not to be").payload
            print(f"node counts {count} words")
            event = client.receive(timeout=5)
            assert event is not None
            print(f"and tells everybody: {event.payload}")
            words = client.stream("words.each", "to be or not")
            print("one after the other:", ", ".join(word.payload for word in words))
            print(f"the shell says: {client.request('greet.french', 'Ada').payload}")
            for type, payload in (("words.count", 7), ("greet.latin", "Ada")):
                try:
                    client.request(type, payload)
                except errors.RemoteError as why:
                    print(f"{why.endpoint} raised {why.error}: {why.message}")


if __name__ == "__main__":
    main()
