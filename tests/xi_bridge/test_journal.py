"""What is in a journal is there again after the death of who wrote it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from xi_bridge.journal import Base, Entry, InnerEdit, Journal
from xi_bridge.positions import Position, Range

CARET = Range(Position(1, 2), Position(1, 2))


def entry(n: int, author: str = "ann") -> Entry:
    return Entry(author, n, [InnerEdit("insert", {"chars": f"{n}\n"})])


def journal(tmp_path: Path) -> Journal:
    base = Base("a.py", "one\ntwo\n", author="bob", ranges={"bob": [CARET]}, done={"bob": 7})
    return Journal.create(tmp_path / "view-id-1" / "journal", base)


def test_base_and_edits_are_read_again(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.append(entry(1))
    written.append(entry(2))
    read = Journal.read(written.path)
    assert (read.base, read.entries) == (written.base, [entry(1), entry(2)])
    assert read.done == {"bob": 7, "ann": 2}
    written.close()
    read.close()


def test_a_line_that_was_torn_by_a_kill_was_never_accepted(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.append(entry(1))
    written.close()
    whole = written.path.read_bytes()
    with open(written.path, "ab") as file:
        file.write(b'{"from":"ann","n":2,"ed')
    read = Journal.read(written.path)
    read.append(entry(2))
    read.close()
    assert written.path.read_bytes().startswith(whole)
    again = Journal.read(written.path)
    assert again.entries == [entry(1), entry(2)]
    again.close()


def test_a_new_base_covers_what_was_done_by_then(tmp_path: Path) -> None:
    written = journal(tmp_path)
    for n in range(1, 4):
        written.append(entry(n))
    end = written.end
    written.append(entry(4))
    written.rebase(Base("a.py", "new"), end)
    written.rebase(Base("a.py", "new"), end)  # twice does no harm
    written.append(entry(5))
    read = Journal.read(written.path)
    assert read.base.text == "new"
    assert [one.n for one in read.entries] == [4, 5]
    written.close()
    read.close()


@pytest.mark.parametrize("full", [True, False])
def test_a_journal_that_cannot_be_written_anew_goes_on_as_it_was(
    tmp_path: Path, full: bool
) -> None:
    written = journal(tmp_path)
    written.append(entry(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    else:
        written.path.with_suffix(".new").mkdir()
    try:
        with pytest.raises(OSError):
            written.rebase(Base("a.py", "new" * 1000), 1)
        if not full:
            with pytest.raises(OSError):
                written.drop(written.entries[0])
        written.append(entry(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert written.entries == [entry(1), entry(2)]
    if not full:
        written.path.with_suffix(".new").rmdir()
    read = Journal.read(written.path)
    assert (read.base.text, read.entries) == ("one\ntwo\n", [entry(1), entry(2)])
    written.close()
    read.close()


def test_an_edit_that_is_dropped_is_not_done_again(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.append(entry(1))
    written.append(entry(2))
    written.drop(written.entries[0])
    written.close()
    read = Journal.read(written.path)
    assert read.entries == [Entry("ann", 1, []), entry(2)]
    read.close()
