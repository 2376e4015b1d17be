"""C programs beside these tests, compiled and run under a sanitizer."""

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

Build = Callable[[str, str], Callable[..., None]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile a source beside this file under a sanitizer; what it returns runs the program, which
    must end well and say nothing on stderr."""
    if shutil.which(CC[0]) is None:
        pytest.skip("there is no C compiler")

    def compile(source: str, sanitizer: str) -> Callable[..., None]:
        program = tmp_path / sanitizer
        flags = [*WARNINGS, *SANITIZERS[sanitizer], f"-I{ROOT}"]
        made = subprocess.run(
            [*CC, *flags, str(HERE / source), "-o", str(program)], capture_output=True, text=True
        )
        if "cannot find" in made.stderr and "san" in made.stderr:
            pytest.skip(f"this compiler has no {sanitizer} sanitizer")
        assert made.returncode == 0, made.stderr
        # ThreadSanitizer's memory map does not go with randomised addresses.
        command = [*(["setarch", "-R"] if sanitizer == "thread" else []), str(program)]

        def run(*arguments: object) -> None:
            done = subprocess.run(
                [*command, *map(str, arguments)],
                capture_output=True,
                text=True,
                timeout=120,
                env={**os.environ, "TSAN_OPTIONS": "exitcode=66"},
            )
            assert (done.returncode, done.stderr) == (0, "")

        return run

    return compile
