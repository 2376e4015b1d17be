"""A copy of the checkout in which one file at a time is changed, with kernels of its own.

Kernels are compiled with little optimisation, each once for each state of what it includes: where a
change is undone, the kernel of before is copied back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .table import Change


class BuildFailed(Exception):
    """A kernel does not compile; the text is what the compiler said."""


class Kernel(NamedTuple):
    """An extension module, as pyproject.toml describes it."""

    name: str
    sources: tuple[str, ...]
    depends: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def module(self) -> str:
        """Where it is imported from."""
        return self.name.replace(".", "/") + str(sysconfig.get_config_var("EXT_SUFFIX"))

    @property
    def cython(self) -> tuple[str, ...]:
        """What the C source is made of."""
        parts = (*self.sources, *self.depends)
        return tuple(part for part in parts if part.endswith((".pyx", ".pxi", ".pxd")))


class Workshop:
    """The copy, in `place`, of the checkout in `root`; made, or brought up to date, by `open`."""

    def __init__(self, root: Path, place: Path) -> None:
        self._root, self._place = root, place
        self.copy = place / "checkout"
        self.python = place / "venv" / "bin" / "python"

    def open(self) -> None:
        """Copy what git knows or does not ignore, and compile what has changed. Raises
        `BuildFailed`."""
        self._make_venv()
        listed = _output(["git", "ls-files", "-co", "--exclude-standard"], self._root).splitlines()
        wanted = {file for file in listed if (self._root / file).is_file()}
        for file in wanted:
            source, copy = self._root / file, self.copy / file
            if not copy.exists() or copy.read_bytes() != source.read_bytes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)
        before = self._place / "files"
        if before.exists():
            for gone in set(before.read_text().splitlines()) - wanted:
                (self.copy / gone).unlink(missing_ok=True)
        before.write_text("\n".join(sorted(wanted)))
        self.build()

    @contextlib.contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """The copy with this change; `build` compiles it. Undone at the end."""
        path = self.copy / change.file
        text = path.read_text()
        path.write_text(change.applied(text))
        try:
            yield
        finally:
            path.write_text(text)
            self.build()

    def build(self) -> None:
        """Make the kernels those of the files. Raises `BuildFailed`."""
        for kernel in self._kernels():
            digest = self._digest((*kernel.sources, *kernel.depends), kernel.flags)
            made = self._place / "kernels" / f"{kernel.name}-{digest}.so"
            if not made.exists():
                self._compile(kernel, made)
            module = self.copy / kernel.module
            if not module.exists() or not os.path.samefile(module, made):
                module.unlink(missing_ok=True)
                os.link(made, module)

    def _compile(self, kernel: Kernel, made: Path) -> None:
        made.parent.mkdir(parents=True, exist_ok=True)
        source = made.parent / f"{kernel.name}-{self._digest(kernel.cython)}.c"
        if not source.exists():
            unfinished = source.with_suffix(".new.c")
            _output(["cython", "-3", kernel.sources[0], "-o", str(unfinished)], self.copy)
            unfinished.rename(source)
        config = sysconfig.get_config_vars()
        compiler = shlex.split(os.environ.get("CC") or config["CC"])
        include = sysconfig.get_path("include")
        flags = [*kernel.flags, "-O1", "-fPIC", "-shared", "-w", "-I.", f"-I{include}", "-DNDEBUG"]
        unfinished = made.with_suffix(".new.so")
        _output([*compiler, *flags, str(source), "-o", str(unfinished)], self.copy)
        unfinished.rename(made)

    def _kernels(self) -> list[Kernel]:
        settings = tomllib.loads((self.copy / "pyproject.toml").read_text())
        return [
            Kernel(
                name=each["name"],
                sources=tuple(each["sources"]),
                depends=tuple(each["depends"]),
                flags=tuple(each["extra-compile-args"]),
            )
            for each in settings["tool"]["setuptools"]["ext-modules"]
        ]

    def _digest(self, files: Sequence[str], more: Sequence[str] = ()) -> str:
        digest = hashlib.sha256(repr((sys.version, more)).encode())
        for file in files:
            digest.update(file.encode() + b"\0" + (self.copy / file).read_bytes() + b"\0")
        return digest.hexdigest()[:20]

    def _make_venv(self) -> None:
        """An environment that has what this one has, and finds shmbus in the copy."""
        if not self.python.exists():
            venv.create(self._place / "venv", with_pip=False)
        site = sysconfig.get_path("purelib", vars={"base": str(self._place / "venv")})
        ours = sysconfig.get_path("purelib")
        lines = [
            str(self.copy),
            str(self.copy / "tools"),
            f"import site; site.addsitedir({ours!r})",
        ]
        Path(site, "checkout.pth").write_text("\n".join(lines) + "\n")


def _output(command: list[str], directory: Path) -> str:
    found = shutil.which(command[0], path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    ran = subprocess.run(
        [found or command[0], *command[1:]], cwd=directory, capture_output=True, text=True
    )
    if ran.returncode:
        raise BuildFailed(f"{' '.join(command[:2])}: {ran.stdout[-500:]}{ran.stderr[-2000:]}")
    return ran.stdout
