"""The editor for a person: what is typed in the terminal is in the core, and conversely."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual")

import psutil
from textual.pilot import Pilot
from textual.widgets import Static
from xi_bridge import front_end
from xi_bridge.core import COMMAND
from xi_bridge.direct import Direct
from xi_bridge.editor import Editor, main
from xi_bridge.front_end import FrontEnd, open_view
from xi_bridge.host import Host
from xi_bridge.positions import Position
from xi_bridge.row import Row
from xi_bridge.sheet import Sheet

import shmbus
from shmbus.testing import TIMEOUT, run_async
from shmbus.testing.fixtures import AioAttach

Use = Callable[[Editor, Pilot[None]], Awaitable[None]]


def edit(path: Path, use: Use) -> None:
    """The editor with that file, in a core of its own."""

    async def run() -> None:
        async with Direct(str(path)) as front:
            editor = Editor(front, path.name)
            async with editor.run_test(size=(60, 8), notifications=True) as pilot:
                await use(editor, pilot)

    asyncio.run(run())


async def settle(editor: Editor, pilot: Pilot[None]) -> None:
    """Until the core has done what was typed, and it is shown."""
    await editor.front.flush()
    await pilot.pause()


@asynccontextmanager
async def hosted(
    attach: AioAttach, folder: Path
) -> AsyncIterator[tuple[Host, Callable[[], Coroutine[Any, Any, None]]]]:
    """A host with the stand-in core, and what stops it."""
    async with attach("xi") as ep:
        host = Host(ep, folder / "state", COMMAND)
        task = asyncio.create_task(host.run())

        async def stop() -> None:
            task.cancel()
            await asyncio.wait([task])
            await ep.close()

        try:
            yield host, stop
        finally:
            await stop()


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await pilot.pause(0.01)


def shown(editor: Editor) -> list[str]:
    """The lines on the screen, without their numbers."""
    sheet = editor.query_one(Sheet)
    return [sheet.render_line(y).text[6:].rstrip() for y in range(sheet.size.height)]


def status(editor: Editor) -> str:
    return str(editor.query_one("#status", Static).content)


@pytest.mark.smoke
def test_what_a_person_types_is_shown_saved_and_undone(tmp_path: Path) -> None:
    file = tmp_path / "hello.txt"
    file.write_text("world\n")

    async def use(editor: Editor, pilot: Pilot[None]) -> None:
        await pilot.press("H", "i", "enter", "ctrl+end")
        await settle(editor, pilot)
        assert shown(editor)[:3] == ["Hi", "world", ""]
        assert re.fullmatch(r"hello\.txt  3:1  modified  core up", status(editor))
        await pilot.press("ctrl+s")
        await settle(editor, pilot)
        assert file.read_text() == "Hi\nworld\n"
        assert "saved" in status(editor)
        await pilot.press("ctrl+z", "ctrl+z")
        await settle(editor, pilot)
        assert shown(editor)[:2] == ["world", ""]
        editor.tell_core("core down")
        assert "core down" in status(editor)

    edit(file, use)


def test_copy_cut_and_paste_go_through_the_core(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one two")

    async def use(editor: Editor, pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+shift+right", "ctrl+c", "ctrl+x", "ctrl+end", "ctrl+v", "ctrl+v")
        await settle(editor, pilot)
        assert shown(editor)[0] == " twooneone"

    edit(file, use)


def test_a_click_goes_to_the_character_under_it_and_the_caret_stays_in_sight(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    file.write_text("\tä漢x\n" + "line\n" * 50)

    async def use(editor: Editor, pilot: Pilot[None]) -> None:
        await pilot.click(Sheet, offset=(6 + 7, 0))
        await settle(editor, pilot)
        assert editor.query_one(Sheet).caret == (0, 6)
        await pilot.press("-", "ctrl+end")
        await settle(editor, pilot)
        assert file.read_text().count("line") == 50
        assert shown(editor)[:2] == ["line", "line"]
        await pilot.press("ctrl+home")
        await settle(editor, pilot)
        assert shown(editor)[0] == "    ä漢-x"

    edit(file, use)


def test_where_others_are_is_shown_beside_ones_own_caret(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one\ntwo\n")

    async def use(editor: Editor, pilot: Pilot[None]) -> None:
        editor.front.carets["indexer"] = [Position(1, 2)]
        editor.changed()
        assert "indexer at 2" in status(editor)
        strip = editor.query_one(Sheet).render_line(1)
        assert [s.text for s in strip if s.style and s.style.bgcolor] == ["o"]
        own = editor.query_one(Sheet).render_line(0)
        assert [s.text for s in own if s.style and s.style.reverse] == ["o"]

    edit(file, use)


def test_the_core_is_told_the_size_and_asks_how_wide_characters_are(tmp_path: Path) -> None:
    async def use(editor: Editor, pilot: Pilot[None]) -> None:
        await pilot.resize_terminal(40, 10)
        await settle(editor, pilot)
        assert isinstance(editor.front, Direct)
        front = editor.front
        async with asyncio.timeout(TIMEOUT):
            while "a character is 1 wide, of 34" not in front.stderr:
                await front.flush()

    edit(tmp_path / "file", use)


def test_a_save_that_fails_is_told_and_the_editor_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    async def use(editor: Editor, pilot: Pilot[None]) -> None:
        folder.rmdir()
        await pilot.press("a", "ctrl+s")
        await settle(editor, pilot)
        assert "modified" in status(editor)
        async with asyncio.timeout(TIMEOUT):
            while not editor.screen.query("Toast"):
                await pilot.pause()

    edit(folder / "file", use)


def test_on_a_bus_it_shares_the_view_with_other_front_ends(
    bus: shmbus.Bus, aio_attach: AioAttach, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("one\ntwo\n")

    @run_async
    async def main() -> None:
        async with aio_attach("xi") as serving, aio_attach("ann") as ann, aio_attach("bob") as bob:
            host = asyncio.create_task(Host(serving, tmp_path / "state", COMMAND).run())
            view = await open_view(ann, str(file))
            async with FrontEnd(ann, view) as front, FrontEnd(bob, view) as other:
                editor = Editor(front, file.name)
                async with editor.run_test(size=(60, 8)) as pilot:
                    await pilot.press("A", "down")
                    await settle(editor, pilot)
                    await other.click(2, 0)
                    other.type("three")
                    await front.until(
                        lambda: front.text == other.text == "Aone\ntwo\nthree", TIMEOUT
                    )
                    await pilot.pause()
                    assert shown(editor)[:3] == ["Aone", "two", "three"]
                    assert "bob" in status(editor)
                    assert editor.query_one(Sheet).caret == (1, 1)
                    # A selection to the left goes on to the left, though others typed meanwhile.
                    await pilot.press("right", "shift+left")
                    await settle(editor, pilot)
                    other.type("!")
                    await other.flush()
                    await pilot.press("shift+left", "T")
                    await front.until(lambda: front.text == "Aone\nTo\nthree!", TIMEOUT)
            host.cancel()
            await asyncio.wait([host])


@pytest.mark.parametrize("patience", [math.inf, 0.0])
def test_what_is_typed_without_a_host_is_shown_as_pending_or_lost_and_never_as_saved(
    patience: float, bus: shmbus.Bus, aio_attach: AioAttach, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("one\n")

    @run_async
    async def main() -> None:
        async with aio_attach("ann") as ann:
            async with hosted(aio_attach, tmp_path) as (_, stop):
                view = await open_view(ann, str(file))
                async with FrontEnd(ann, view, patience=patience) as front:
                    editor = Editor(front, file.name)
                    async with editor.run_test(size=(90, 8)) as pilot:
                        await stop()
                        assert "saved" in status(editor)
                        await pilot.press("t", "w", "enter")
                        told = "keys lost" if patience == 0.0 else "waiting for the host: tw⏎"
                        await until(pilot, lambda: told in status(editor))
                        assert "modified" in status(editor)
                        assert file.read_text() == "one\n"


def test_the_foot_says_whether_the_core_hangs_and_whether_there_is_a_host(
    bus: shmbus.Bus, aio_attach: AioAttach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_end, "LOOK", 0.3)

    @run_async
    async def main() -> None:
        async with aio_attach("ann") as ann, hosted(aio_attach, tmp_path) as (host, stop):
            view = await open_view(ann, None)
            async with FrontEnd(ann, view) as front:
                editor = Editor(front, "new")
                async with editor.run_test(size=(60, 8)) as pilot:
                    await until(pilot, lambda: "core up" in status(editor))
                    core = host.keeper.core
                    assert core is not None
                    os.kill(core.pid, signal.SIGSTOP)
                    await until(pilot, lambda: "core does not answer" in status(editor))
                    os.kill(core.pid, signal.SIGCONT)
                    await until(pilot, lambda: "core up" in status(editor))
                    await stop()
                    await until(pilot, lambda: "no host" in status(editor))


def test_a_refused_save_is_told_in_one_line_and_the_keys_are_on_the_screen(
    bus: shmbus.Bus, aio_attach: AioAttach, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    @run_async
    async def main() -> None:
        async with aio_attach("ann") as ann, hosted(aio_attach, tmp_path):
            view = await open_view(ann, str(folder / "file"))
            async with FrontEnd(ann, view) as front:
                editor = Editor(front, "file")
                async with editor.run_test(size=(80, 8), notifications=True) as pilot:
                    shown = [str(one.content) for one in editor.query(Static)]
                    assert shown[1].startswith("^S save")
                    assert shown[1].endswith("^Q quit")
                    folder.rmdir()
                    await pilot.press("a", "ctrl+s")
                    await until(pilot, lambda: len(editor._notifications) > 0)
                    (told,) = [one.message for one in editor._notifications]
                    assert "was not saved" in told
                    assert "\n" not in told
                    assert "raise" not in told


@pytest.mark.parametrize("alone", [False, True])
def test_a_file_that_another_program_has_changed_is_overwritten_only_when_asked_again(
    alone: bool, bus: shmbus.Bus, aio_attach: AioAttach, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("one\n")

    async def use(front: FrontEnd | Direct) -> None:
        editor = Editor(front, "file")
        async with editor.run_test(size=(80, 8), notifications=True) as pilot:
            await pilot.press("a", "ctrl+s")
            await until(pilot, lambda: file.read_text() == "aone\n")
            file.write_text("of another\n")
            await pilot.press("b", "ctrl+s")
            await until(pilot, lambda: len(editor._notifications) > 0)
            (told,) = [one.message for one in editor._notifications]
            assert "another program has changed it" in told
            assert file.read_text() == "of another\n"
            assert "modified" in status(editor)
            await pilot.press("ctrl+s")
            await until(pilot, lambda: file.read_text() == "abone\n")
            await pilot.press("c", "ctrl+s")
            await until(pilot, lambda: file.read_text() == "abcone\n")

    @run_async
    async def main() -> None:
        if alone:
            async with Direct(str(file)) as direct:
                await use(direct)
            return
        async with aio_attach("ann") as ann, hosted(aio_attach, tmp_path):
            async with FrontEnd(ann, await open_view(ann, str(file))) as front:
                await use(front)


@pytest.mark.parametrize(
    ("what", "arguments", "told"),
    [
        ("a folder", ["--alone", "{folder}"], "directory"),
        ("other bytes", ["--alone", "{folder}/bytes"], "utf-8"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(
    what: str,
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x80")
    given = [one.format(folder=tmp_path) for one in arguments]
    monkeypatch.setattr("sys.argv", ["editor", *given])
    with pytest.raises(SystemExit) as caught:
        main()
    said = str(caught.value.code)
    assert told in said.lower(), what
    left = [" ".join(one.cmdline()) for one in psutil.Process().children()]
    assert not [command for command in left if "xi_bridge" in command]
    assert "\n" not in said


def test_bytes_characters_and_cells_of_a_row_are_told_apart() -> None:
    row = Row.of("\tä漢x\x07\n")
    assert row.shown == "    ä漢x·"
    assert [row.cell(byte) for byte in (0, 1, 3, 6, 7)] == [0, 4, 5, 7, 8]
    assert [row.index(byte) for byte in (0, 1, 3, 6, 7)] == [0, 4, 5, 6, 7]
    assert [row.byte(cell) for cell in (0, 3, 4, 5, 6, 7, 99)] == [0, 0, 1, 3, 3, 6, 8]
