"""The documentation is true: its programs, its commands and what they print.

A Python block on a page is a program, whole: whoever pastes it alone can run it. What it prints
stands behind `print` as a comment, where that is always the same. A block with a title is a file,
which a `console` block runs, or which a file of `toml` names. `console` is a terminal: its commands
are run, and must print what is shown (a number may be another number, `...` is anything). The last
command may go on running; a later block of the same terminal shows what it has printed since, or
what it does at `^C`. The bus is always called symphony there; here it has a name of its own.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
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
import shmbus.aio
import shmbus.host
import shmbus.options
from docs import payload_types, written
from shmbus import errors, events
from shmbus.shared import layout
from shmbus.testing import Attach, eventually

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
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
        title = re.search(r'title="([^"]*)"', match["info"])
        yield Block(
            match["language"],
            title[1] if title else "",
            textwrap.dedent(match["body"]),
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


def pages_with(*, programs: bool) -> list[object]:
    """Those that have programs to be pasted, or files and terminals; README for every save."""
    return [
        pytest.param(page, marks=pytest.mark.smoke, id="README.md") if page == README else page
        for page in PAGES
        if any(is_program(block) == programs and is_run(block) for block in blocks(page))
    ]


def is_run(block: Block) -> bool:
    return block.language in ("python", "console")


def is_program(block: Block) -> bool:
    return block.language == "python" and not block.title


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(programs=False), ids=page_id)
def test_the_terminals_on_a_page_show_what_happens(
    page: Path, bus_name: str, tmp_path: Path
) -> None:
    terminals: dict[str, Terminal] = {}
    try:
        for block in blocks(page):
            text = block.text.replace("symphony", bus_name)
            if block.language in ("python", "toml") and block.title:
                (tmp_path / block.title).write_text(text)
            elif block.language == "console":
                log = tmp_path / f".terminal-{len(terminals)}"
                terminals.setdefault(block.title, Terminal(tmp_path, log)).show(text)
    finally:
        for terminal in reversed(terminals.values()):
            terminal.end()


ONE_AFTER_ANOTHER = """
import json, sys, types

for page, line, text in json.load(sys.stdin):
    print("program at line", line)
    module = sys.modules["__main__"] = types.ModuleType("__main__")  # nothing of the one before
    exec(compile("\\n" * line + text, page, "exec"), module.__dict__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(programs=True), ids=page_id)
def test_each_program_on_a_page_runs_when_it_is_pasted_alone(
    page: Path, bus_name: str, tmp_path: Path
) -> None:
    # One process for all of a page: Python takes longer to start than most of them to run.
    programs = [block for block in blocks(page) if is_program(block)]
    given = [(str(page), block.line, block.text) for block in programs]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ONE_AFTER_ANOTHER],
        input=json.dumps(given).replace("symphony", bus_name),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for block in programs:
        printed = done.stdout.partition(f"program at line {block.line}\n")[2]
        printed = printed.partition("program at line ")[0]
        for shown in re.findall(r"^ *print\(.*\)  # (.+)$", block.text, re.MULTILINE):
            assert shown.replace("symphony", bus_name) in printed, (
                f"line {block.line}: {done.stdout}"
            )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_all_python_on_a_page_is_run(page: Path) -> None:
    text = page.read_text()
    fences = re.findall(r"^ *```(?:python|py|pycon)\b", text, re.MULTILINE)
    assert len(fences) == len([b for b in blocks(page) if b.language == "python"])
    assert "<!-- python" not in text  # what readers cannot see, they cannot paste
    run = [b.text for b in blocks(page) if b.language in ("console", "toml")]
    named = {word for text in run for word in re.split(r'[\s"]+', text)}
    for block in blocks(page):
        assert not block.title or block.title in named or block.language != "python", block.title


def headings(page: Path) -> set[str]:
    """The anchors of a page, as sites that show a checkout make them."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {written.anchor_of(title) for title in titles}


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", page.read_text()):
            file = (page.parent / target).resolve() if target else page
            assert file.exists(), f"{page_id(page)}: {target}"
            if anchor:
                assert anchor in headings(file), f"{page_id(page)}: {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_can_be_read_without_the_site_being_built(page: Path) -> None:
    read = re.sub(r"^<!-- site\n.*?^-->$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"^(:::|\{\{|--8<--)", read, re.MULTILINE)
    assert read.strip().count("\n") > 1


def test_readme_has_only_pictures_that_show_wherever_it_is_shown() -> None:
    # PyPI has none of the files, and removes what no address of http leads to.
    assert not re.search(r"!\[|<img|<svg|<picture", README.read_text())


def test_the_files_that_are_named_exist() -> None:
    for page in PAGES:
        named = r"\b(?:tests|stress|examples|tools|docs|shmbus|ringbuf)/[\w/.-]*\w"
        text = re.sub(r"https?://\S+", "", page.read_text())  # paths there are not ours
        for path in re.findall(named, text):
            assert (ROOT / path).exists() or (page.parent / path).exists(), (
                f"{page_id(page)}: {path}"
            )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_what_is_made_from_the_code_and_stands_in_a_page_is_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert written.rewritten(text) == text, "run: python docs/written.py"


def test_every_public_name_is_explained_on_a_page_of_the_checkout() -> None:
    tables = (ROOT / "docs/reference/api.md").read_text()
    for name, member in written.public():
        owner, _, attribute = name.rpartition(".")
        table = tables.partition(f"**{owner or 'shmbus'}**")[2].partition("\n**")[0]
        called = f"{attribute}()" if callable(member) else attribute
        row = rf"^\| `{re.escape(called)}` \| .+ \| \[.+\]\(\.\./.+\) \|$"
        assert re.search(row, table, re.MULTILINE), name


def test_each_payload_that_is_shown_comes_over_a_bus_as_is_shown(
    bus: shmbus.Bus, attach: Attach
) -> None:
    sent = {
        f"x.{number}": (payload_types.value(value), payload_types.value(kind))
        for number, (value, kind) in enumerate(payload_types.SENT)
    }
    sender, plain, typed = attach("sender"), attach("plain"), attach("typed")
    plain.subscribe("x.*")
    for type, (_, kind) in sent.items():
        typed.subscribe(type, payload_type=kind)
    for type, (value, kind) in sent.items():
        try:
            expected = payload_types.received(value)
        except errors.EncodeError:
            with pytest.raises(errors.EncodeError):
                sender.publish(type, value)
            continue
        sender.publish(type, value)
        for endpoint, shown in (
            (plain, expected),
            (typed, payload_types.received(value, kind)),
        ):
            message = endpoint.receive(60)
            assert message is not None
            assert (message.type, repr(message.payload)) == (type, repr(shown))


def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "module", [shmbus, shmbus.aio, shmbus.views, shmbus.host, shmbus.options, ringbuf]
)
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
    made = written.events()
    for type, event in events.EVENTS.items():
        part = made.partition(f"### {type}\n")[2].partition("###")[0]
        for field in msgspec.structs.fields(event):
            row = re.search(rf"^\| `{field.name}` \| `.+` \| .+ \|$", part, re.MULTILINE)
            assert row is not None, f"{type}: {field.name}"
    assert made.strip() in (ROOT / "docs/reference/api.md").read_text()


def test_every_error_and_every_command_is_in_the_documentation() -> None:
    made = written.errors()
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.BusError):
            assert f"**`{name}`**" in made
    pytest.importorskip("click")
    from shmbus_command.app import COMMANDS

    made = generated().cli()
    for command in COMMANDS:
        assert f"## shmbus {command}\n" in made
