"""Importing shmbus where it cannot work: an ImportError that names the reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ringbuf
import shmbus
from shmbus.testing import run_python, start_python

SHM = Path("/dev/shm")


INTERPRETER = """
    import sys, warnings
    try:
        import _interpreters as interpreters
        new = lambda: interpreters.create("legacy")
        run = lambda i, code: (lambda e: e and e.formatted)(interpreters.exec(i, code))
    except ImportError:
        import _xxsubinterpreters as interpreters
        new = lambda: interpreters.create(isolated=False)
        def run(i, code):
            try:
                interpreters.run_string(i, code)
            except Exception as error:
                return str(error)
    warnings.simplefilter("ignore")
    if sys.argv[1] == "after":
        import shmbus
    printed = run(new(), "import warnings; warnings.simplefilter('ignore'); import shmbus")
    print("ImportError" in str(printed), "main interpreter" in str(printed))
    import shmbus
    with shmbus.serve(sys.argv[2]) as bus, bus.attach("me") as endpoint:
        endpoint.publish("x")
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_subinterpreter_is_refused_at_import_and_harms_nobody(bus_name: str, when: str) -> None:
    printed = run_python(INTERPRETER, when, bus_name, quiet=False).split()
    assert printed[0] == "True"
    if when == "before":
        assert printed[1] == "True"


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("pretend", "expected"),
    [("sys.platform = 'darwin'", "Linux only"), ("sys._is_gil_enabled = lambda: False", "GIL")],
)
def test_other_systems_and_a_python_without_gil_are_refused_at_import(
    pretend: str, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with start_python(f"import sys; {pretend}; import shmbus") as program:
        assert program.wait() == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert expected in last


@pytest.mark.smoke
@pytest.mark.parametrize("package", ["shmbus", "ringbuf"])
def test_sources_that_are_not_compiled_say_so_at_import_and_what_to_do(
    package: str, tmp_path: Path
) -> None:
    compiled = shutil.ignore_patterns("*.so", "__pycache__")
    for each in (ringbuf, shmbus):
        shutil.copytree(each.__path__[0], tmp_path / each.__name__, ignore=compiled)
    ended = subprocess.run(
        [sys.executable, "-S", "-c", f"import {package}"],  # -S: no editable installation helps
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path}")
    assert "not compiled" in last
    assert "in another directory" in last
    assert "pip install -e ." in last


def test_a_kernel_of_another_layout_than_the_python_modules_is_refused_at_import(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = """
        import sys, types
        kernel = types.ModuleType("k")
        kernel.layout_hash = lambda: 7
        sys.modules["shmbus.shared._kernel"] = kernel
        import shmbus
    """
    with start_python(code) as program:
        assert program.wait() == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("ImportError: shmbus was compiled for layout ")
    assert "install it again" in last


def test_who_only_attaches_imports_nothing_that_takes_long_and_is_not_needed_for_that() -> None:
    code = """
        import sys, shmbus
        late = {"asyncio", "configparser", "email", "importlib.metadata", "psutil", "zenoh"}
        print(*sorted(late & set(sys.modules)))
    """
    assert run_python(code).split() == []
