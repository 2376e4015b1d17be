"""C programs beside these tests: compiled once a run however many workers and tests want them, and
run under a sanitizer."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CC = os.environ.get("CC", "cc").split()
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g1", "-pthread", f"-I{ROOT}"]
SANITIZERS = {
    "thread": ["-fsanitize=thread"],
    "address": ["-Og", "-fsanitize=address"],
    "undefined": ["-Og", "-fsanitize=undefined", "-fno-sanitize-recover=all"],
    "plain": ["-O2"],
}


class Ended(NamedTuple):
    """How a C program ended."""

    code: int
    printed: str
    complaint: str
    left: list[Path]  # in /dev/shm, of a program that was ended; removed since


def run(command: list[str], **environment: str) -> Ended:
    """Run a C program that may make a bus, until it ends."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as running:
        try:
            printed, complaint = running.communicate(timeout=280)
        finally:
            running.kill()
    left = list(Path("/dev/shm").glob(f"shmbus:{os.geteuid()}:native-{running.pid}:*"))
    for name in left:
        name.unlink()
    return Ended(running.returncode, printed, complaint, left)


Sources = Sequence[str | Sequence[str]]
"""Files beside this one. Those in a sequence of their own are compiled as one file, into which they
are included: the kernel's headers are what takes long."""


class Program(Protocol):
    """Compile sources, under a name, with flags."""

    def __call__(self, name: str, sources: Sources, flags: list[str]) -> Path: ...


Build = Callable[[str, str], Callable[..., None]]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "native"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def program(place: Path) -> Program:
    """Compiles, once a run however many workers want it."""
    if shutil.which(CC[0]) is None:
        pytest.skip("there is no C compiler")

    def path_of(name: str, source: str | Sequence[str]) -> Path:
        if isinstance(source, str):
            return HERE / source
        one = place / f"{name}-{source[0]}"
        one.write_text("".join(f'#include "{HERE / each}"\n' for each in source))
        return one

    def compile(name: str, sources: Sources, flags: list[str]) -> Path:
        made = place / name
        with open(place / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                paths = [path_of(name, source) for source in sources]
                done = subprocess.run(
                    [*CC, *FLAGS, *flags, *map(str, paths), "-o", f"{made}.new"],
                    capture_output=True,
                    text=True,
                )
                if "cannot find" in done.stderr and "san" in done.stderr:
                    pytest.skip(f"this compiler has no sanitizer for {name}")
                assert done.returncode == 0, done.stderr
                os.rename(f"{made}.new", made)
        return made

    return compile


@pytest.fixture
def build(program: Program) -> Build:
    """Compile a source beside this file under a sanitizer; what it returns runs the program, which
    must end well and say nothing on stderr."""

    def compile(source: str, sanitizer: str) -> Callable[..., None]:
        made = program(f"{source}-{sanitizer}", [source], SANITIZERS[sanitizer])
        # ThreadSanitizer's memory map does not go with randomised addresses.
        command = [*(["setarch", "-R"] if sanitizer == "thread" else []), str(made)]

        def run_made(*arguments: object) -> None:
            ended = run([*command, *map(str, arguments)], TSAN_OPTIONS="exitcode=66")
            assert (ended.code, ended.complaint, ended.left) == (0, "", [])

        return run_made

    return compile
