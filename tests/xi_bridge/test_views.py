"""Several front-ends of one view, on the stand-in core."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest
from xi_bridge.follower import DEPTH
from xi_bridge.front_end import FrontEnd, open_view
from xi_bridge.host import Host
from xi_bridge.journal import InnerEdit
from xi_bridge.messages import Edit

import shmbus
import shmbus.aio
from shmbus.testing import TIMEOUT, kill, run_async
from shmbus.testing.fixtures import AioAttach, StartWorker

from .roles import extension

Both = AbstractAsyncContextManager[tuple[FrontEnd, FrontEnd]]


@pytest.fixture
def both(bus: shmbus.Bus, aio_attach: AioAttach, tmp_path: Path) -> Both:
    """Two front-ends that hold the same file, which has three lines."""
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\nthree\n")

    @asynccontextmanager
    async def both() -> AsyncIterator[tuple[FrontEnd, FrontEnd]]:
        async with aio_attach("xi") as host, aio_attach("ann") as one, aio_attach("bob") as other:
            task = asyncio.create_task(Host(host, tmp_path / "state").run())
            try:
                await one.wait_for("xi.new_view", timeout=TIMEOUT)
                view = await open_view(one, str(file))
                assert await open_view(other, str(file)) == view
                async with FrontEnd(one, view) as ann, FrontEnd(other, view) as bob:
                    yield ann, bob
            finally:
                task.cancel()
                await asyncio.wait([task])

    return both()


def core() -> int:
    """The pid of the host's core."""
    (core,) = [one for one in psutil.Process().children() if "core" in one.cmdline()[-1]]
    return int(core.pid)


Running = tuple[AsyncExitStack, asyncio.Task[None]]


async def start(attach: AioAttach, folder: Path) -> Running:
    stack = AsyncExitStack()
    ep = await stack.enter_async_context(attach("xi"))
    return stack, asyncio.create_task(Host(ep, folder / "state").run())


async def stop(host: Running) -> None:
    stack, task = host
    task.cancel()
    await asyncio.wait([task])
    await stack.aclose()


async def alike(ann: FrontEnd, bob: FrontEnd, text: str) -> None:
    await ann.flush()
    await bob.flush()
    for one in (ann, bob):
        await one.until(lambda one=one: one.text == text, TIMEOUT)  # type: ignore[misc]


@pytest.mark.smoke
def test_each_types_at_a_caret_of_its_own_whatever_the_others_do(both: Both) -> None:
    @run_async
    async def main() -> None:
        async with both as (ann, bob):
            await ann.click(0, 3)
            await bob.click(1, 3)
            for key in "ab\ncd":
                ann.type(key)
                bob.type(key.upper())
                await ann.flush()
            await alike(ann, bob, "oneab\ncd\ntwoAB\nCD\nthree\n")


def test_a_click_means_the_place_that_was_seen(both: Both) -> None:
    @run_async
    async def main() -> None:
        async with both as (ann, bob):
            seen = bob.seq
            ann.type("zero\n")
            await ann.flush()
            to = {"select": {"granularity": "point", "multi": False}}
            click = InnerEdit("gesture", {"line": 1, "col": 3, "ty": to})
            edits = [click, InnerEdit("insert", {"chars": "!"})]
            edit = Edit("carol", 1, edits, seq=seen, run=bob.run)
            await bob.ep.request(f"xi.{bob.view}.edit", edit)
            again = await bob.ep.request(f"xi.{bob.view}.edit", edit)  # it is the same one
            assert again.payload["again"]
            await alike(ann, bob, "zero\none\ntwo!\nthree\n")
            other = Edit("carol", 2, edits, seq=seen, run="of another host")
            with pytest.raises(shmbus.RemoteError, match="does not know the state"):
                await bob.ep.request(f"xi.{bob.view}.edit", other)
            with pytest.raises(shmbus.RemoteError, match=f"sent edit 4 of {bob.view} after 1"):
                await bob.ep.request(f"xi.{bob.view}.edit", Edit("carol", 4, edits))


@pytest.mark.slow
def test_what_was_cut_is_in_the_answer_again_also_after_the_core_s_and_the_host_s_death(
    both: Both, aio_attach: AioAttach, tmp_path: Path
) -> None:
    @run_async
    async def main() -> None:
        async with both as (ann, bob):
            ann.press("move_down_and_modify_selection")
            assert await ann.do("cut") == "one\n"
            cut = Edit(ann.author, 2, [InnerEdit("cut")])
            bob.type("b")
            await alike(ann, bob, "btwo\nthree\n")
            kill(core())
            again = await ann.ep.request(f"xi.{ann.view}.edit", cut)
            assert (again.payload["again"], again.payload["result"]) == (True, "one\n")
        async with aio_attach("xi") as ep:  # another host, with the journals of the first
            host = asyncio.create_task(Host(ep, tmp_path / "state").run())
            try:
                async with aio_attach("ann") as front:
                    await front.wait_for(f"xi.{ann.view}.edit", timeout=TIMEOUT)
                    again = await front.request(f"xi.{ann.view}.edit", cut, timeout=TIMEOUT)
                    assert again.payload["result"] == "one\n"
                    later = Edit(ann.author, 3, [InnerEdit("insert", {"chars": "x"})])
                    await front.request(f"xi.{ann.view}.edit", later)
                    again = await front.request(f"xi.{ann.view}.edit", cut)
                    assert again.payload["result"] is None  # nobody asks for that any more
            finally:
                host.cancel()
                await asyncio.wait([host])


@pytest.mark.slow
def test_what_was_undone_is_undone_also_after_the_core_s_death(both: Both) -> None:
    @run_async
    async def main() -> None:
        async with both as (ann, bob):
            ann.type("x")
            ann.press("undo")
            await alike(ann, bob, "one\ntwo\nthree\n")
            kill(core())
            bob.type("y")
            await alike(ann, bob, "yone\ntwo\nthree\n")
            bob.press("undo")
            bob.press("redo")
            await alike(ann, bob, "yone\ntwo\nthree\n")
            kill(core())
            await ann.until(lambda: ann.fetched > 2, TIMEOUT)
            await ann.click(1, 0)
            ann.type("z")
            await alike(ann, bob, "yone\nztwo\nthree\n")


def test_each_view_has_its_own_text_also_after_the_core_s_death(both: Both) -> None:
    @run_async
    async def main() -> None:
        async with both as (ann, bob):
            other = await open_view(bob.ep, None)
            async with FrontEnd(bob.ep, other) as carol:
                ann.type("a")
                carol.type("c")
                await alike(ann, bob, "aone\ntwo\nthree\n")
                await carol.until(lambda: carol.text == "c", TIMEOUT)
                kill(core())
                ann.type("b")
                carol.type("d")
                await alike(ann, bob, "abone\ntwo\nthree\n")
                await carol.until(lambda: carol.text == "cd", TIMEOUT)


def test_a_caret_goes_with_its_front_end_and_is_not_back_with_another_host(
    bus: shmbus.Bus, aio_attach: AioAttach, tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\n")

    @run_async
    async def main() -> None:
        async with aio_attach("ann") as one, aio_attach("bob") as other:
            host = await start(aio_attach, tmp_path)
            view = await open_view(one, str(file))
            async with FrontEnd(one, view) as ann:
                async with FrontEnd(other, view) as bob:
                    bob.type("b")
                    ann.type("a")
                    await bob.flush()
                    await ann.until(lambda: {ann.author, bob.author} <= {*ann.carets}, TIMEOUT)
                await other.close()
                await ann.until(lambda: [*ann.carets] == [ann.author], TIMEOUT)
                run = ann.run
                await stop(host)
                host = await start(aio_attach, tmp_path)
                await ann.until(lambda: ann.run != run, TIMEOUT)
                await ann.until(lambda: [*ann.carets] == [ann.author], TIMEOUT)
            await stop(host)


@pytest.mark.slow
def test_a_view_that_is_stopped_holds_up_nobody_and_has_the_lines_later(
    both: Both, worker: StartWorker
) -> None:
    @run_async
    async def main() -> None:
        async with both as (ann, bob):
            slow = worker(extension, ann.view, name="slow")
            await ann.ep.wait_for("text.slow", timeout=TIMEOUT)
            slow.pause()
            for _ in range(2 * DEPTH):
                ann.type("x")
                await ann.flush()
            typed = "x" * 2 * DEPTH + "one\ntwo\nthree\n"
            await alike(ann, bob, typed)
            slow.resume()
            while (await bob.ep.request("text.slow", timeout=TIMEOUT)).payload != typed:
                await asyncio.sleep(0.01)
