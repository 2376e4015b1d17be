"""Programs in C, compiled once a run however many workers and tests want them."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CC = os.environ.get("CC", "cc").split()
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-pthread", f"-I{HERE.parent.parent}"]

Program = Callable[[str, list[str], list[str]], Path]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Program:
    """Compile sources beside this file, under a name, with flags."""
    if shutil.which(CC[0]) is None:
        pytest.skip("there is no C compiler")
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "native"
    place.mkdir(exist_ok=True)

    def compile(name: str, sources: list[str], flags: list[str]) -> Path:
        made = place / name
        with open(place / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                paths = [str(HERE / source) for source in sources]
                done = subprocess.run(
                    [*CC, *FLAGS, *flags, *paths, "-o", f"{made}.new"],
                    capture_output=True,
                    text=True,
                )
                if "cannot find" in done.stderr and "san" in done.stderr:
                    pytest.skip(f"this compiler has no sanitizer for {name}")
                assert done.returncode == 0, done.stderr
                os.rename(f"{made}.new", made)
        return made

    return compile
