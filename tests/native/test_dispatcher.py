"""The dispatcher's half of the kernel in C alone: every promise of the C files beside this one,
plain and under the sanitizers, on a bus without processes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from .conftest import Program

HERE = Path(__file__).resolve().parent
SOURCES = ["events.c", "requests.c", "endings.c", "hostile.c", "routing.c", "threads.c"]
VARIANTS = {
    "threads": ["-O1", "-fsanitize=thread"],
    "plain": ["-O2"],
    "sanitized": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
PROMISES = [
    pytest.param(
        source,
        promise,
        variant,
        id=f"{variant}-{promise}",
        marks=[pytest.mark.slow] * (variant != "plain"),
    )
    for source in SOURCES
    for variant in VARIANTS
    if variant != "threads" or source == "threads.c"
    for promise in re.findall(r"^TEST\((\w+)\)", (HERE / source).read_text(), re.M)
]


@pytest.mark.parametrize(("source", "promise", "variant"), PROMISES)
def test_promise(program: Program, source: str, promise: str, variant: str) -> None:
    name = f"{source.removesuffix('.c')}-{variant}"
    command = [str(program(name, ["main.c", source], VARIANTS[variant])), promise]
    if variant == "threads":  # whose memory map does not go with randomised addresses
        command = ["setarch", "-R", *command]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        _, said = running.communicate(timeout=120)
    left = list(Path("/dev/shm").glob(f"shmbus:{os.geteuid()}:native-{running.pid}:*"))
    for name_left in left:  # of a program that a sanitizer ended
        name_left.unlink()
    assert (running.returncode, said) == (0, "")
    assert not left
