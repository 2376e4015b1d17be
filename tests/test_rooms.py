"""Imports and includes run one way, from the outside in; CONTRIBUTING's map has the same rules."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The rooms, and what each may import of ours. A file belongs to the room with the longest name that
# its own begins with.
PUBLIC = {
    "shmbus",
    "shmbus.errors",
    "shmbus.events",
    "shmbus.host",
    "shmbus.options",
    "shmbus.streams",
    "shmbus.supervisor",
    "shmbus.views",
}
"""What programs may import of the package: these modules, nothing below them."""

BASE = {"ringbuf", "shmbus.errors", "shmbus.limits", "shmbus.settings"}
SIDES = {
    "shmbus.shared",
    "shmbus.services",
    "shmbus.views",
    "shmbus.endpoint",
    "shmbus.dispatcher",
}
ROOMS = {
    "ringbuf": set(),
    "shmbus.limits": set(),
    "shmbus.errors": {"ringbuf", "shmbus.limits"},
    "shmbus.settings": {"ringbuf", "shmbus.errors", "shmbus.limits"},
    "shmbus.shared": BASE,
    "shmbus.services": {"shmbus.errors", "shmbus.limits", "shmbus.shared"},
    "shmbus.queues": BASE | {"shmbus.shared"},
    "shmbus.views": BASE | {"shmbus.shared", "shmbus.queues"},
    "shmbus.endpoint": BASE | {"shmbus.shared", "shmbus.services", "shmbus.views"},
    "shmbus.dispatcher": BASE | {"shmbus.shared"},
    "shmbus.bus": BASE | SIDES,
    "shmbus.host": BASE | SIDES | {"shmbus.bus"},
    "shmbus.supervisor": BASE | SIDES | {"shmbus.bus", "shmbus.events"},
    "shmbus.executor": BASE | SIDES | {"shmbus.bus"},
    "shmbus.aio": BASE | {"shmbus.shared", "shmbus.services", "shmbus.views", "shmbus.endpoint"},
    "shmbus.links": BASE
    | {"shmbus.shared", "shmbus.services", "shmbus.views", "shmbus.endpoint", "shmbus.aio"}
    | {"shmbus.events", "shmbus.options"},
    "shmbus.testing": BASE | SIDES | {"shmbus.bus", "shmbus.host", "shmbus.aio"},
    "shmbus.options": BASE,
    "shmbus.streams": set(),
    "shmbus.__main__": BASE
    | SIDES
    | {"shmbus.bus", "shmbus.host", "shmbus.options", "shmbus.streams"},
    "shmbus.events": {"shmbus.shared"},
    "shmbus.fields": set(),
    "shmbus": BASE
    | SIDES
    | {"shmbus.bus", "shmbus.events", "shmbus.executor", "shmbus.fields"}
    | {"shmbus.links", "shmbus.queues", "shmbus.supervisor"},
    "shmbus.joblib": {"shmbus.executor"},
    "shmbus_console": PUBLIC,
    "shmtop": PUBLIC | {"shmbus_console"},
    "shmbus_command": PUBLIC
    | {"shmbus.aio", "shmbus.executor", "shmbus.links", "shmbus_console", "shmtop"},
}
PLACES = {"ringbuf": ".", "shmbus": "."}  # of a top-level package; of all others: tools
PACKAGES = {room.partition(".")[0] for room in ROOMS}


class Use(NamedTuple):
    """One import or include: of `module`, and of `name` from it unless that is None."""

    line: int
    module: str
    name: str | None = None


# Reading files ----------------------------------------------------------------------------------


def sources(root: Path) -> Iterator[Path]:
    """Every file of the rooms that can import or include."""
    for package in sorted(PACKAGES):
        for path in sorted((root / PLACES.get(package, "tools") / package).rglob("*.*")):
            made = path.suffix == ".c" and path.with_suffix(".pyx").exists()
            if path.suffix in USES and not made:
                yield path


def module_of(path: Path, root: Path) -> str:
    """The module that a file is, or that a header lies in: `shmbus.shared.native.layout`."""
    parts = path.relative_to(root).with_suffix("").parts
    if parts[0] == "tools":
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_uses(text: str, package: str) -> Iterator[Use]:
    """Of Python, wherever in it the import stands."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Use(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = absolute("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield Use(node.lineno, module, alias.name)


def cython_uses(text: str, package: str) -> Iterator[Use]:
    """Of Cython: imports, cimports, what C declares, and files pasted in."""
    blank = lambda found: "\n" * found[0].count("\n")  # noqa: E731
    text = re.sub(r'"""(?s:.*?)"""|#.*', blank, text)
    text = re.sub(r"\([^()]*\)", lambda found: re.sub(r"\s", " ", found[0]), text)  # in one line
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*from\s+([.\w]+)\s+c?import\s+(.+)", line):
            for name in found[2].strip("() ").split(","):
                if name.strip():
                    yield Use(number, absolute(found[1], package), name.split()[0])
        elif found := re.match(r"\s*c?import\s+(.+)", line):
            for name in found[1].split(","):
                yield Use(number, name.split()[0])
        elif found := re.match(r"\s*(?:cdef\s+extern\s+from|include)\s+[\"']([^<\"']+)", line):
            yield from included(number, found[1], package)


def c_uses(text: str, package: str) -> Iterator[Use]:
    """Of C."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r'\s*#\s*include\s*"(.+)"', line):
            yield from included(number, found[1], package)


def included(line: int, file: str, package: str) -> Iterator[Use]:
    """An included file is named from the root of the tree, or from where the one lies that includes
    it; Python's own header is in no room."""
    if file == "Python.h":
        return
    if file.partition("/")[0] not in PACKAGES:
        file = os.path.normpath(f"{package.replace('.', '/')}/{file}")
    yield Use(line, os.path.splitext(file)[0].replace("/", "."))


def absolute(module: str, package: str) -> str:
    """What a relative import means in that package."""
    name = module.lstrip(".")
    up = len(module) - len(name)
    if not up:
        return name
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - up + 1], *([name] if name else [])])


USES = {
    ".py": python_uses,
    ".pyi": python_uses,
    ".pyx": cython_uses,
    ".pxd": cython_uses,
    ".pxi": cython_uses,
    ".h": c_uses,
    ".c": c_uses,
}


# Judging them -----------------------------------------------------------------------------------


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None where it is not ours."""
    inside = [room for room in ROOMS if f"{module}.".startswith(f"{room}.")]
    return max(inside, key=len, default=None)


def submodules(root: Path) -> set[str]:
    """The modules that `from package import module` gives: not those whose name the `__init__` of
    the package gives to something else, as in `from .observe import observe`."""
    modules = {module_of(path, root) for path in sources(root)} | ROOMS.keys()
    for path in sources(root):
        if path.name == "__init__.py":
            package = module_of(path, root)
            for use in python_uses(path.read_text(), package):
                if use.module != package:
                    modules.discard(f"{package}.{use.name}")
    return modules


def offences(root: Path) -> list[str]:
    """Each import and include that breaks a rule: where it stands, and why not."""
    found = []
    modules = submodules(root)
    for path in sources(root):
        module = module_of(path, root)
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        for use in USES[path.suffix](path.read_text(), package):
            if reason := objection(module, use, modules):
                found.append(f"{path.relative_to(root)}:{use.line}: {reason}")
    return found


def objection(module: str, use: Use, modules: set[str]) -> str | None:
    """Why a module may not import that; None where it may."""
    target = f"{use.module}.{use.name}"
    if use.name is None or target not in modules:  # not a submodule: a name that it defines
        target = use.module
        if module != target and f"{module}.".startswith(f"{target}."):
            return f"takes a name from the __init__ of its own package {target}"
    room, home = room_of(target), room_of(module)
    assert home is not None
    if room is None or room == home:
        return None
    if room not in ROOMS[home]:
        return f"{home} must not import {room} ({target})"
    visible = ROOMS[home]
    if visible >= PUBLIC and target.partition(".")[0] == "shmbus" and target not in visible:
        return f"{home} sees a bus through {', '.join(sorted(PUBLIC))} alone, not {target}"
    return None


# The tests --------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_imports_and_includes_run_one_way() -> None:
    assert offences(ROOT) == []


def test_the_map_says_the_same() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)` \|[^|]+\| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M
    )
    assert [room for room, _ in rows] == list(ROOMS)
    above: set[str] = set()
    for room, allowed in rows:
        named = set(re.findall(r"`([\w.]+)`", allowed))
        assert (above - named if allowed.startswith("all of the above") else named) == ROOMS[room]
        above.add(room)


def test_every_file_has_a_room() -> None:
    rooms = {room_of(module_of(path, ROOT)) for path in sources(ROOT)}
    assert rooms == set(ROOMS)
    packages = {path.parent.name for path in (ROOT / "tools").glob("*/__init__.py")}
    assert packages | {"ringbuf", "shmbus"} == PACKAGES


def test_no_two_rooms_import_each_other() -> None:
    for room, allowed in ROOMS.items():
        for other in allowed & ROOMS.keys():
            assert room not in ROOMS[other]


OFFENDERS = {
    "ringbuf/ring.py": "import shmbus.errors",
    "ringbuf/native/ring.h": '#include "shmbus/shared/native/layout.h"',
    "ringbuf/_kernel.pyx": 'cdef extern from "shmbus/shared/native/layout.h":\n    pass',
    "shmbus/errors/sending.py": "def f():\n    from shmbus.settings import Settings",
    "shmbus/settings.py": "from shmbus.shared import names",
    "shmbus/shared/names.py": "if TYPE_CHECKING:\n    from shmbus.views.facts import Ring",
    "shmbus/shared/native/layout.h": '  #  include "shmbus/endpoint/native/wait.h"',
    "shmbus/views/facts.py": "import os, shmbus.endpoint.attach as attach",
    "shmbus/views/registry.py": "from ..bus import Bus",
    "shmbus/views/doctor.py": "from shmbus import Settings",
    "shmbus/endpoint/attach.py": "from shmbus.dispatcher import control",
    "shmbus/endpoint/futures.py": "import shmbus",
    "shmbus/endpoint/_kernel.pyi": "from shmbus.dispatcher.control import Dispatcher",
    "shmbus/endpoint/_kernel.pxd": "from shmbus.dispatcher._kernel cimport (\n    a,\n    b,\n)",
    "shmbus/endpoint/receive.pxi": 'include "../dispatcher/forward.pxi"',
    "shmbus/endpoint/native/wait.h": '#include "shmbus/dispatcher/native/port.h"',
    "shmbus/dispatcher/control.py": "from shmbus.views.discovery import buses",
    "shmbus/dispatcher/_kernel.pyx": "cimport shmbus.endpoint._kernel",
    "shmbus/dispatcher/native/port.c": '#include "shmbus/endpoint/native/wait.h"',
    "shmbus/bus.py": "from . import serve",
    "shmbus/host.py": "from .testing import eventually",
    "tools/shmbus_console/text.py": "from shmtop import app",
    "tools/shmbus_command/demo/play.py": "from shmbus.shared import names",
    "tools/shmbus_command/ls.py": "from shmbus.views.facts import BusInfo",
    "tools/shmtop/app.py": "from shmbus import bus",
    "tools/shmtop/cells.py": "from ringbuf import Segment",
}
INNOCENTS = {
    "ringbuf/__init__.py": "from .ring import Ring",
    "shmbus/__init__.py": "from . import errors\nfrom .endpoint.attach import attach",
    "shmbus/endpoint/endpoint.py": "from shmbus import errors\nfrom . import futures",
    "shmbus/endpoint/futures.py": "",
    "shmbus/endpoint/_kernel.pyx": '"""\nfrom shmbus import this\n"""\nimport shmbus.errors',
    "shmbus/endpoint/runners.py": "from shmbus.shared import names",
    "shmbus/shared/names.py": "from ringbuf import Segment",
    "shmbus/shared/native/layout.h": '#include <stdint.h>\n#include "ringbuf/native/ring.h"',
    "shmbus/testing/fixtures.py": "from shmbus.bus import serve",
    "tools/shmtop/app.py": "from shmbus import errors, observe\nfrom shmbus.views import Ring",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in path.relative_to(root).parents:
            if path.suffix != ".h" and package.name not in ("", "tools"):
                (root / package / "__init__.py").touch()
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize("file", OFFENDERS)
def test_whoever_breaks_the_rule_is_found(tmp_path: Path, file: str) -> None:
    root = tree(tmp_path, INNOCENTS | {file: OFFENDERS[file]})
    (offence,) = set(offences(root))
    assert offence.startswith(f"{file}:")


def test_who_keeps_it_is_left_alone(tmp_path: Path) -> None:
    assert offences(tree(tmp_path, INNOCENTS)) == []
