"""Lines of C and Cython are 120 characters long at most; ruff looks at those of Python."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LENGTH = 120
LONGER = {
    "shmbus/dispatcher/native/growth.h",
    "shmbus/dispatcher/native/revoke.h",
    "shmbus/endpoint/native/share.h",
}
"""Of these files some lines are."""


def test_lines_of_c_and_cython_are_not_too_long() -> None:
    files = [
        path
        for place in ("ringbuf", "shmbus", "tests", "stress")
        for path in (ROOT / place).rglob("*")
        if path.suffix in {".h", ".c", ".pyx", ".pxi", ".pxd"} and path.name != "_kernel.c"
    ]
    assert files
    assert [
        f"{path}:{number}"
        for path in files
        if str(path.relative_to(ROOT)) not in LONGER
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LENGTH
    ] == []
