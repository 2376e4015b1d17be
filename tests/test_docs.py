"""The documentation is true: its programs, its commands and what they print.

On each page, a Python block with a title is a file; the others are one script, block after block. A
`console` block is a terminal: its commands are run, and must print what is shown (a number may be
another number, `...` is anything). The last command may go on running; a later block of the same
terminal shows what it has printed since, or what it does at `^C`. A comment `<!-- python ... -->`
holds what the script needs and readers do not. The bus is always called symphony there; here it has
a name of its own.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import msgspec
import pytest

import ringbuf
import shmbus.host
import shmbus.options
from shmbus import errors, events
from shmbus.shared import layout
from shmbus.testing import eventually

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$"
    r"|<!-- (?P<hidden>python|console)\n(?P<hidden_body>.*?)^(?P=indent)-->$)",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    language: str
    title: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    source = page.read_text()
    for match in _BLOCK.finditer(source):
        body = match["body"] if match["language"] else match["hidden_body"]
        title = re.search(r'title="([^"]*)"', match["info"] or "")
        yield Block(
            match["language"] or match["hidden"],
            title[1] if title else "",
            textwrap.dedent(body),
            source.count("\n", 0, match.start()) + 1,
        )


class Terminal:
    """Commands, one after the other, and what they print."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory, self.log = directory, log
        self.command = ""
        self.shown = ""
        self.process: subprocess.Popen[bytes] | None = None

    def show(self, text: str) -> None:
        """Do and see what a block shows."""
        parts = re.split(r"^(\$ .*|\^C)\n", text.replace("\\\n", ""), flags=re.MULTILINE)
        for action, shown in zip(["", *parts[1::2]], parts[::2], strict=True):
            if action == "^C":
                self._interrupt()
            elif action:
                self._finish()
                self._start(action[2:])
            self.shown += shown
            if action or shown:
                self._await_shown()

    def _start(self, command: str) -> None:
        self.command, self.shown = command, ""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                process_group=0,
                env=os.environ | {"PATH": path, "COLUMNS": "100", "PYTHONUNBUFFERED": "1"},
            )

    def _await_shown(self) -> None:
        process = self.process
        assert process is not None, "a terminal begins with a command"
        pattern = re.escape(self.shown.strip())
        pattern = re.sub(r"(\\[ \n])+", r"\\s+", pattern)
        pattern = re.sub(r"\d+", r"\\d+", pattern).replace(r"\.\.\.", ".*")

        def matches() -> bool:
            return re.fullmatch(pattern, self.log.read_text().strip(), re.DOTALL) is not None

        def settled() -> bool:
            return process.poll() is not None or (self.shown != "" and matches())

        try:
            eventually(settled, f"$ {self.command}")
        finally:
            printed = self.log.read_text()
            assert matches(), f"$ {self.command}\n{printed}\n--- is not ---\n{self.shown}"

    def _interrupt(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def _finish(self) -> None:
        if self.process is not None:
            assert self.process.wait(60) == 0, self.log.read_text()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(60)
            finally:
                if self.process.returncode is None:
                    os.killpg(self.process.pid, signal.SIGKILL)
                    self.process.wait()


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


README, *OTHERS = PAGES


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(README, marks=pytest.mark.smoke), *OTHERS], ids=page_id
)
def test_the_page_says_what_happens(page: Path, bus_name: str, tmp_path: Path) -> None:
    terminals: dict[str, Terminal] = {}
    script: dict[int, str] = {}
    try:
        for block in blocks(page):
            text = block.text.replace("symphony", bus_name)
            if block.language == "python" and block.title:
                (tmp_path / block.title).write_text(text)
            elif block.language == "python":
                script |= dict(enumerate(text.splitlines(), block.line))
            elif block.language == "console":
                log = tmp_path / f".terminal-{len(terminals)}"
                terminals.setdefault(block.title, Terminal(tmp_path, log)).show(text)
    finally:
        for terminal in reversed(terminals.values()):
            terminal.end()
    if script:
        lines = [script.get(number, "") for number in range(max(script) + 1)]
        file = tmp_path / "the_page.py"  # its line numbers are those of the page
        file.write_text("\n".join(lines))
        done = subprocess.run(
            [sys.executable, "-W", "error", str(file)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_all_python_on_a_page_is_run(page: Path) -> None:
    fences = re.findall(r"^ *```(?:python|py|pycon)\b", page.read_text(), re.MULTILINE)
    visible = [b for b in blocks(page) if b.language == "python"]
    assert len(fences) <= len(visible)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page_id(page)}: {target}"


def test_the_files_that_are_named_exist() -> None:
    for page in PAGES:
        named = r"\b(?:tests|stress|examples|tools|docs|shmbus|ringbuf)/[\w/.-]*\w"
        for path in re.findall(named, page.read_text()):
            assert (ROOT / path).exists() or (page.parent / path).exists(), (
                f"{page_id(page)}: {path}"
            )


def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("module", [shmbus, shmbus.views, shmbus.host, shmbus.options, ringbuf])
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    text = "".join(page.read_text() for page in PAGES)
    documented = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    for name in module.__all__:
        offered = getattr(module, name)
        error = inspect.isclass(offered) and issubclass(offered, Exception)
        if not error and not inspect.ismodule(offered):  # those have pages of their own
            assert {f"{module.__name__}.{name}", f"shmbus.{name}"} & documented, name


def test_every_structure_in_shared_memory_is_in_the_documentation() -> None:
    made = generated().layout()
    for name, structure in layout.STRUCTURES.items():
        assert f"### {name}\n" in made
        assert structure.fields is not None
        for field, (kind, offset, *_) in structure.fields.items():
            assert f"| {offset} | {kind.itemsize} | `{field}` |" in made, f"{name}.{field}"


def test_every_field_of_every_event_is_in_the_documentation() -> None:
    made = generated().events()
    for type, event in events.EVENTS.items():
        part = made.partition(f"### {type}\n")[2].partition("###")[0]
        for field in msgspec.structs.fields(event):
            row = re.search(rf"^\| `{field.name}` \| `.+` \| .+ \|$", part, re.MULTILINE)
            assert row is not None, f"{type}: {field.name}"
    assert "{{ events }}" in (ROOT / "docs/reference/api.md").read_text()


def test_every_error_and_every_command_is_in_the_documentation() -> None:
    made = generated().errors()
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.BusError):
            assert f"**`{name}`**" in made
    pytest.importorskip("click")
    from shmbus_command.app import COMMANDS

    made = generated().cli()
    for command in COMMANDS:
        assert f"## shmbus {command}\n" in made
