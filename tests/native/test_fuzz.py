"""What the fuzzers have found so far, replayed under sanitizers; `.ci/run fuzz` looks for more."""

import subprocess
from pathlib import Path

import pytest

from .conftest import Program

FUZZ = Path(__file__).resolve().parent.parent / "fuzz"
TARGETS = sorted(path.name for path in (FUZZ / "corpus").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_does_no_harm(program: Program, target: str) -> None:
    flags = ["-Og", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    replay = program(f"fuzz-{target}", [f"../fuzz/{target}.c", "../fuzz/replay.c"], flags)
    corpus = sorted((FUZZ / "corpus" / target).iterdir())
    assert len(corpus) > 10
    done = subprocess.run([replay, *corpus], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.split() == [str(path) for path in corpus]
