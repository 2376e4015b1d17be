"""Where the lines go that processes print."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from shmbus_command.up.file import Output
from shmbus_command.up.printed import ToFiles, ToTerminal, WhileRead

from shmbus.supervisor import Line


def said(name: str, text: str) -> Line:
    return Line(name=name, number=1, time=0.0, text=text)


class Screen(io.TextIOWrapper):
    """A file in place of a terminal, or of a pipe."""

    def __init__(self, path: Path, *, terminal: bool = False) -> None:
        super().__init__(io.BufferedWriter(io.FileIO(path, "w")), encoding="utf-8")
        self._path, self._terminal = path, terminal

    def isatty(self) -> bool:
        return self._terminal

    def shows(self) -> str:
        return self._path.read_text()


@pytest.mark.smoke
def test_each_line_has_the_name_of_its_process_before_it_in_a_colour_of_its_own(
    tmp_path: Path,
) -> None:
    with Screen(tmp_path / "screen", terminal=True) as terminal:
        printed = ToTerminal(["web", "indexer"], terminal)
        printed(said("indexer", "reads"))
        printed(said("web", "listens"))
        first, second = terminal.shows().splitlines()
    assert first == "\x1b[33mindexer |\x1b[0m reads"
    assert second == "\x1b[36mweb     |\x1b[0m listens"


def test_without_a_terminal_there_is_no_colour(tmp_path: Path) -> None:
    with Screen(tmp_path / "screen") as stream:
        ToTerminal(["web", "indexer"], stream)(said("web", "listens"))
        assert stream.shows() == "web     | listens\n"


def test_a_line_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    with Screen(tmp_path / "screen") as stream:
        ToTerminal(["web"], stream)(said("web", "a\tb\x1b[2J\rc"))
        assert stream.shows() == "web | a       b\\x1b[2J\\rc\n"


def test_where_nobody_reads_them_lines_are_dropped(tmp_path: Path) -> None:
    stream = Screen(tmp_path / "screen")
    printed = WhileRead(ToTerminal(["web"], stream))
    stream.close()
    printed(said("web", "listens"))


def test_each_process_has_a_file_and_the_oldest_lines_go_first(tmp_path: Path) -> None:
    printed = ToFiles(Output(directory=str(tmp_path / "logs"), size=20, count=2))
    for number in range(10):
        printed(said("web", f"line {number}"))  # 7 bytes: two in a file
    printed(said("indexer", "a line that is longer than a whole file"))
    found = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert found == {
        "web.log": "line 8\nline 9\n",
        "web.log.1": "line 6\nline 7\n",
        "web.log.2": "line 4\nline 5\n",
        "indexer.log": "a line that is longer than a whole file\n",
    }


def test_with_a_count_of_0_a_full_file_begins_anew(tmp_path: Path) -> None:
    printed = ToFiles(Output(directory=str(tmp_path), size=10, count=0))
    for number in range(3):
        printed(said("web", f"line {number}"))
    assert [path.name for path in tmp_path.iterdir()] == ["web.log"]
    assert (tmp_path / "web.log").read_text() == "line 2\n"


def test_what_was_kept_before_a_start_stays(tmp_path: Path) -> None:
    for line in ("before", "after"):
        ToFiles(Output(directory=str(tmp_path)))(said("web", line))
    assert (tmp_path / "web.log").read_text() == "before\nafter\n"


def test_what_cannot_be_kept_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    printed = ToFiles(Output(directory=str(tmp_path)))
    (tmp_path / "web.log").mkdir()
    for _ in range(3):
        printed(said("web", "lost"))
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith("shmbus up: what web prints is not kept: ")
