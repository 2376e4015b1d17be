"""The kernel's ring and bell in C alone, under the sanitizers."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CC = os.environ.get("CC", "cc").split()
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-pthread"]
SANITIZERS = {
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address"],
    "undefined": ["-fsanitize=undefined", "-fno-sanitize-recover=all"],
    "plain": ["-O2"],
}

pytestmark = pytest.mark.skipif(shutil.which(CC[0]) is None, reason="there is no C compiler")

Build = Callable[[str, str], list[str]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile a source beside this file under a sanitizer; the command that runs it."""

    def compile(source: str, sanitizer: str) -> list[str]:
        program = tmp_path / sanitizer
        flags = [*WARNINGS, *SANITIZERS[sanitizer], f"-I{ROOT}"]
        made = subprocess.run(
            [*CC, *flags, str(HERE / source), "-o", str(program)], capture_output=True, text=True
        )
        if "cannot find" in made.stderr and "san" in made.stderr:
            pytest.skip(f"this compiler has no {sanitizer} sanitizer")
        assert made.returncode == 0, made.stderr
        # ThreadSanitizer's memory map does not go with randomised addresses.
        return [*(["setarch", "-R"] if sanitizer == "thread" else []), str(program)]

    return compile


def check(command: list[str], *arguments: object) -> str:
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TSAN_OPTIONS": "exitcode=66"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_nothing_is_lost_torn_or_slept_through_between_two_threads(
    build: Build, sanitizer: str
) -> None:
    command = build("ring_stress.c", sanitizer)
    for seed in (1, 2):
        check(command, 60_000, seed)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "undefined"])
def test_garbage_never_leads_outside_the_ring(build: Build, sanitizer: str) -> None:
    check(build("ring_fuzz.c", sanitizer), 100_000, 1)
