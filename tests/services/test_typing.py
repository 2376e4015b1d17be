"""mypy checks who calls a service as it checks who calls the object itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from shmbus.testing import run_python

WRONG = """
from abc import ABC, abstractmethod
from typing import Protocol
import shmbus
import shmbus.aio

class Calculator:
    def __init__(self, start: int) -> None: ...
    def add(self, a: int, b: int = 1) -> int:
        return a + b

class Adds(Protocol):
    def add(self, a: int) -> int: ...

class Base(ABC):
    @abstractmethod
    def name(self) -> str: ...

def call(ep: shmbus.Endpoint) -> None:
    calculator = ep.client(Calculator, "calc", timeout=1.0)
    right: int = calculator.add(1, b=2)
    calculator.add("1")  # wrong: arg-type
    calculator.add()  # wrong: call-arg
    calculator.sub(1)  # wrong: attr-defined
    text: str = calculator.add(1)  # wrong: assignment
    adds = ep.client(Adds, "calc")
    adds.add(1)
    adds.add(1, 2)  # wrong: call-arg
    base = ep.client(Base, "calc")
    base.name().upper()
    base.name() + 1  # wrong: operator
    ep.offer(Calculator(1), "calc").close()

class Later(Protocol):
    async def add(self, a: int) -> int: ...

async def call_later(ep: shmbus.aio.Endpoint) -> None:
    later = ep.client(Later, "calc")
    right: int = await later.add(1)
    wrong: int = later.add(1)  # wrong: assignment
    await later.add("1")  # wrong: arg-type
    async with ep.offer(Calculator(1), "calc"):
        pass
"""


@pytest.mark.slow
def test_mypy_finds_what_is_wrong_with_a_caller_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "caller.py"
    program.write_text(WRONG)
    found = run_python(
        "import sys; from mypy import api; print(api.run(sys.argv[1:])[0])",
        str(program),
        "--strict",
        "--follow-imports=silent",
        "--no-error-summary",
        f"--cache-dir={tmp_path}",
        f"--python-executable={sys.executable}",
    )
    seen = {
        (int(line), code) for line, code in re.findall(r"caller\.py:(\d+): error:.*\[(.+)\]", found)
    }
    wanted = {
        (number, line.partition("# wrong: ")[2])
        for number, line in enumerate(WRONG.splitlines(), 1)
        if "# wrong" in line
    }
    assert seen == wanted, found
