"""The dispatcher's half of the kernel in C alone: every promise of the C files beside this one,
plain and under the sanitizers, on a bus without processes."""

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CC = os.environ.get("CC", "cc").split()
SOURCES = ["events.c", "requests.c", "endings.c", "hostile.c", "routing.c", "threads.c"]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-pthread", f"-I{ROOT}"]
VARIANTS = {
    "threads": ["-O1", "-fsanitize=thread"],
    "plain": ["-O2"],
    "sanitized": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
PROMISES = [
    pytest.param(source, promise, variant, id=f"{variant}-{promise}")
    for source in SOURCES
    for variant in VARIANTS
    if variant != "threads" or source == "threads.c"
    for promise in re.findall(r"^TEST\((\w+)\)", (HERE / source).read_text(), re.M)
]

pytestmark = pytest.mark.skipif(shutil.which(CC[0]) is None, reason="there is no C compiler")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Where compiled programs lie; all workers of a run share them."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "native"
    place.mkdir(exist_ok=True)
    return place


def build(place: Path, name: str, sources: list[str], flags: list[str]) -> Path:
    """Compile once a run; the program."""
    program = place / name
    with open(place / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            made = subprocess.run(
                [*CC, *WARNINGS, *flags, *(str(HERE / s) for s in sources), "-o", f"{program}.new"],
                capture_output=True,
                text=True,
            )
            if "cannot find" in made.stderr and "san" in made.stderr:
                pytest.skip(f"this compiler has no sanitizer for {name}")
            assert made.returncode == 0, made.stderr
            os.rename(f"{program}.new", program)
    return program


@pytest.mark.parametrize(("source", "promise", "variant"), PROMISES)
def test_promise(programs: Path, source: str, promise: str, variant: str) -> None:
    name = f"{source.removesuffix('.c')}-{variant}"
    program = build(programs, name, ["main.c", source], VARIANTS[variant])
    command = [str(program), promise]
    if variant == "threads":  # whose memory map does not go with randomised addresses
        command = ["setarch", "-R", *command]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        _, said = running.communicate(timeout=120)
    left = list(Path("/dev/shm").glob(f"shmbus:{os.geteuid()}:native-{running.pid}:*"))
    for name_left in left:  # of a program that a sanitizer ended
        name_left.unlink()
    assert (running.returncode, said) == (0, "")
    assert not left
