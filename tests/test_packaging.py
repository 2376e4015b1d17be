"""What is installed is what is in the tree, built the ordinary way."""

import re
import tomllib
from pathlib import Path

import pytest

from shmbus.shared import _kernel

ROOT = Path(__file__).resolve().parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


ROOMS = ("shmbus/shared", "shmbus/endpoint", "shmbus/dispatcher")

TOOLS = ("shmbus_command", "shmbus_console", "shmtop")


def natives(room: str, *below: str) -> set[str]:
    """The headers of these rooms, what they offer Cython, and the parts of the first kernel."""
    patterns = [(each, pattern) for each in (room, *below) for pattern in ("native/*.h", "*.pxd")]
    return {
        path.relative_to(ROOT).as_posix()
        for each, pattern in [*patterns, (room, "kernel/*.pxi")]
        for path in (ROOT / each).glob(pattern)
    }


@pytest.mark.smoke
def test_every_extension_is_rebuilt_when_a_header_it_may_use_changes() -> None:
    depends = {ext["name"]: set(ext["depends"]) for ext in SETUPTOOLS["ext-modules"]}
    assert depends["ringbuf._kernel"] == natives("ringbuf")
    for room in ROOMS:
        needed = natives(room, "ringbuf", "shmbus/shared")
        assert depends[f"{room.replace('/', '.')}._kernel"] == needed


def test_every_package_of_the_tree_is_installed() -> None:
    found = {
        init.parent.relative_to(ROOT).as_posix().replace("/", ".").removeprefix("tools.")
        for top in ("ringbuf", "shmbus", *(f"tools/{tool}" for tool in TOOLS))
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert found == set(SETUPTOOLS["packages"])


def test_the_installed_kernel_is_no_test_variant() -> None:
    assert _kernel.build_info()["variant"] == ""


def test_nothing_that_we_ship_unpickles_or_evaluates() -> None:
    shipped = [
        path
        for top in ("ringbuf", "shmbus", "tools")
        for path in (ROOT / top).rglob("*.p*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pxi") and "build" not in path.parts
    ]
    assert len(shipped) > 50
    for path in shipped:
        source = path.read_text()
        assert not re.search(r"\b(import|from) (c?[pP]ickle|marshal|shelve)\b", source), path
        assert not re.search(r"allow_pickle|\b(eval|exec)\(", source), path
