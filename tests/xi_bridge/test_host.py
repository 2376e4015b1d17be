"""Whatever a core does, requests on the bus end, and say what was wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from xi_bridge.errors import OutOfOrder
from xi_bridge.front_end import FrontEnd, open_view
from xi_bridge.host import STAND_IN, Host
from xi_bridge.journal import Base, InnerEdit, Journal
from xi_bridge.messages import Edit
from xi_bridge.view import AUTHORS

import shmbus
import shmbus.aio
from shmbus.testing import TIMEOUT, run_async
from shmbus.testing.fixtures import AioAttach, Attach

FAKE = [sys.executable, str(Path(__file__).with_name("fake_core.py"))]


class Stage:
    """A host with the fake core, and an endpoint that hears what it tells."""

    def __init__(self, ep: shmbus.aio.Endpoint, state: Path) -> None:
        self.ep, self.state = ep, state
        self.heard: list[tuple[str, Any]] = []

    async def hear(self, type: str) -> Any:
        """The payload of the next event of that type."""
        while True:
            message = await self.ep.receive(TIMEOUT)
            assert message is not None, f"no {type} came, but {self.heard}"
            self.heard.append((message.type, message.payload))
            if message.type == type:
                return message.payload


@pytest.fixture
def stage(
    bus: shmbus.Bus, aio_attach: AioAttach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., contextlib.AbstractAsyncContextManager[Stage]]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "examples"))

    monkeypatch.setenv("ENOUGH", str(tmp_path / "state" / "enough"))

    @contextlib.asynccontextmanager
    async def stage(
        *, patience: float = TIMEOUT, core: Sequence[str] = FAKE
    ) -> AsyncIterator[Stage]:
        async with aio_attach("xi") as host, aio_attach("ann") as ep:
            await ep.subscribe("xi.core.*")
            await ep.subscribe("xi.alert")
            await ep.subscribe("xi.*.edit_dropped")
            task = asyncio.create_task(
                Host(host, tmp_path / "state", core, patience=patience).run()
            )
            try:
                await ep.wait_for("xi.new_view", timeout=TIMEOUT)
                yield Stage(ep, tmp_path / "state")
            finally:
                task.cancel()
                await asyncio.wait([task])

    return stage


MakeStage = Callable[..., contextlib.AbstractAsyncContextManager[Stage]]


@pytest.mark.smoke
def test_what_a_core_refuses_is_an_error_with_its_code_and_what_it_said(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.type("kept")
                with pytest.raises(shmbus.RemoteError, match="what is a cut") as caught:
                    await ann.do("cut")
                assert caught.value.error == "xi_bridge.errors.CoreRefused"
                assert "-32601" in caught.value.message
                ann.type(" too")
                await ann.until(lambda: ann.text == "kept too", TIMEOUT)


def test_a_view_that_does_not_exist_is_an_error(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            with pytest.raises(shmbus.RemoteError, match="there is no view 'view-id-9'"):
                await on.ep.request("xi.save", {"view_id": "view-id-9"})


def test_a_file_that_was_not_written_is_an_error_with_what_the_core_told(
    stage: MakeStage, tmp_path: Path
) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                (tmp_path / "a.txt").write_text("before")
                with pytest.raises(shmbus.RemoteError, match="the disk is full"):
                    await ann.save(str(tmp_path / "a.txt"))
                ann.type("after")
                await ann.save(str(tmp_path / "a.txt"))
                assert (tmp_path / "a.txt").read_text() == "after"


def test_a_host_that_was_killed_as_it_opened_a_file_leaves_no_empty_view(
    stage: MakeStage, tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("text")
    begun = Base(str(file), "", opened=False)
    Journal.create(tmp_path / "state" / "view-id-1" / "journal", begun).close()

    @run_async
    async def main() -> None:
        async with stage() as on:
            async with FrontEnd(on.ep, await open_view(on.ep, str(file))) as ann:
                assert ann.text == "text"


async def kill_core(on: Stage) -> None:
    """As an outsider does."""
    up = await on.hear("xi.core.up")
    os.kill(up["pid"], signal.SIGKILL)
    await on.hear("xi.core.down")
    await on.hear("xi.core.up")


def test_a_view_that_no_core_can_open_takes_no_edits_and_no_other_view_gets_them(
    stage: MakeStage, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "b.txt").write_text("b\n")

    @run_async
    async def main() -> None:
        async with stage(core=STAND_IN) as on:
            a, b = [await open_view(on.ep, str(tmp_path / name)) for name in ("a.txt", "b.txt")]
            async with FrontEnd(on.ep, a) as ann, FrontEnd(on.ep, b) as bob:
                ann.type("1")
                await ann.do("undo")
                await ann.do("redo")
                blocked = on.state / a / "copy" / "a.txt"
                blocked.mkdir(parents=True)  # as a full disk does
                await kill_core(on)
                ann.type("2")
                bob.type("3")
                await bob.until(lambda: bob.text == "3b\n", TIMEOUT)
                with pytest.raises(shmbus.RemoteError, match="is in no core"):
                    await on.ep.request("xi.save", {"view_id": a})
                blocked.rmdir()
                await ann.until(lambda: ann.text == "12a\n", TIMEOUT)
                assert bob.text == "3b\n"


def test_a_view_that_was_closed_is_told_and_its_name_never_comes_again(
    stage: MakeStage, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")

    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, str(tmp_path / "a.txt"))
            async with FrontEnd(on.ep, view) as ann, FrontEnd(on.ep, view) as bob:
                await on.ep.request("xi.close_view", {"view_id": view})
                assert not (on.state / view).exists()
                for one in (ann, bob):
                    with pytest.raises(shmbus.RemoteError, match="there is no view"):
                        await one.until(lambda: False, TIMEOUT)
                other = await open_view(on.ep, str(tmp_path / "b.txt"))
                ann.type("x")
                with pytest.raises(shmbus.RemoteError, match="there is no view"):
                    await ann.flush()
                contents = await on.ep.request("xi.debug_get_contents", {"view_id": other})
                assert contents.payload == "b"


def test_a_journal_that_cannot_be_read_is_left_alone_and_told(
    stage: MakeStage, tmp_path: Path
) -> None:
    for name in ("view-id-1", "notes"):
        (tmp_path / "state" / name).mkdir(parents=True)
        (tmp_path / "state" / name / "journal").write_bytes(b"damaged\n")

    @run_async
    async def main() -> None:
        async with stage() as on:
            alert = await on.hear("xi.alert")
            assert "cannot be read, and is left alone" in alert["msg"]
            await open_view(on.ep, None)
            for name in ("view-id-1", "notes"):
                assert (on.state / name / "journal").read_bytes() == b"damaged\n"


@pytest.mark.parametrize("name", ["journal", "journal.new"])
def test_a_file_may_have_the_name_of_a_journal(stage: MakeStage, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a")

    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, str(tmp_path / name))
            async with FrontEnd(on.ep, view) as ann:
                journal = Journal.read(on.state / view / "journal")
                journal.rebase(Base(str(tmp_path / name), "ab", pristine=False), 0)
                journal.close()
        async with stage() as on, FrontEnd(on.ep, view) as ann:
            assert ann.text == "ab"
            ann.type("c")
            await ann.flush()
            journal = Journal.read(on.state / view / "journal")
            assert [len(entry.edits) for entry in journal.entries] == [2]  # a caret, and the key
            journal.close()


def test_what_is_typed_after_an_edit_that_was_given_up_is_typed(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage(core=STAND_IN) as on:
            view = await open_view(on.ep, None)
            up = await on.hear("xi.core.up")
            async with FrontEnd(on.ep, view) as ann:
                ann.type("a")
                await ann.until(lambda: ann.text == "a", TIMEOUT)
                os.kill(up["pid"], signal.SIGSTOP)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await ann.do("undo")
                os.kill(up["pid"], signal.SIGCONT)
                await ann.until(lambda: ann.text == "", TIMEOUT)  # it was under way
                ann.type("b")
                await ann.flush()
                await ann.until(lambda: ann.text == "b", TIMEOUT)


def test_a_front_end_is_told_where_its_number_was_taken_by_another_edit(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                edits = [InnerEdit("insert", {"chars": "a"})]
                await on.ep.request(f"xi.{view}.edit", Edit(ann.author, 1, edits))
                ann.type("b")
                with pytest.raises(OutOfOrder, match=r"number 1 .* another edit"):
                    await ann.flush()
                ann.type("c")
                await ann.until(lambda: ann.text == "ac", TIMEOUT)


def test_an_undo_that_cannot_be_written_down_is_refused_and_was_not_done(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage(core=STAND_IN) as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.type("a")
                await ann.flush()
                blocked = on.state / view / "journal.new"
                blocked.mkdir()
                with pytest.raises(shmbus.RemoteError, match=r"journal\.new"):
                    await ann.do("undo")
                ann.type("b")
                await ann.flush()
                blocked.rmdir()
                await ann.until(lambda: ann.text == "ab", TIMEOUT)
                await on.hear("xi.core.down")
                await kill_core(on)
                ann.type("c")
                await ann.until(lambda: ann.text == "abc", TIMEOUT)


def test_a_front_end_that_was_idle_while_many_others_typed_goes_on_when_it_has_clicked(
    stage: MakeStage, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a\nb\n")

    @run_async
    async def main() -> None:
        async with stage(core=STAND_IN) as on:
            view = await open_view(on.ep, str(tmp_path / "a.txt"))
            async with FrontEnd(on.ep, view) as ann:
                ann.type("1")
                await ann.flush()
                for n in range(AUTHORS):
                    edits = [InnerEdit("insert", {"chars": "."})]
                    await on.ep.request(f"xi.{view}.edit", Edit(f"other-{n}", 1, edits))
                ann.type("2")
                with pytest.raises(shmbus.RemoteError, match=r"place .* forgotten"):
                    await ann.flush()
                await ann.click(1, 0)
                ann.type("2")
                await ann.until(lambda: ann.text == "." * AUTHORS + "1a\n2b\n", TIMEOUT)


@pytest.mark.bus(pool_bytes=4 << 20)
def test_lines_that_are_no_messages_are_told_and_nothing_else_happens(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.press("insert", {"chars": "garbage"})
                ann.type("x")
                told = [await on.hear("xi.core.malformed") for _ in range(4)]
                assert [one["count"] for one in told] == [1, 2, 3, 4]
                no_json, _, no_type, too_large = told
                assert no_json["line"] == "this is no JSON"
                assert no_type["line"] == "xi.no type of the bus's"
                assert too_large["line"] == "xi.alert"
                assert "carries at most" in too_large["reason"]
                await ann.until(lambda: ann.text == "x", TIMEOUT)


def fill(attach: Attach) -> shmbus.Endpoint:
    """A subscriber without a mailbox, that takes nothing."""
    idle = attach("idle", settings=shmbus.Settings(in_bytes=4096))
    idle.subscribe("xi.*.update")
    return idle


@pytest.mark.bus(block_timeout=600, stall_after=600)
def test_a_subscriber_that_takes_nothing_holds_up_no_answer(
    stage: MakeStage, attach: Attach
) -> None:
    @run_async
    async def main() -> None:
        idle = fill(attach)
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                for _ in range(100):
                    ann.type("x")
                    await ann.flush()
                assert ann.retries == 0
                assert len(ann.text) < 100  # the updates wait
                idle.close()
                await ann.until(lambda: ann.text == 100 * "x", TIMEOUT)


@pytest.mark.bus(block_timeout=0.05)
def test_a_subscriber_that_takes_nothing_loses_updates_and_the_others_get_them(
    stage: MakeStage, attach: Attach, bus: shmbus.Bus
) -> None:
    @run_async
    async def main() -> None:
        fill(attach)
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.type(50 * "x")
                for _ in range(100):
                    ann.type("x")
                    await ann.flush()
                await ann.until(lambda: ann.text == 150 * "x", TIMEOUT)
        (idle,) = [one for one in bus.endpoints() if one.name == "idle"]
        assert idle.lost_by.slow > 0


def test_a_message_that_makes_no_sense_is_told_and_those_behind_it_are_taken(
    stage: MakeStage,
) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.press("insert", {"chars": "strange"})
                ann.type("x")
                told = [await on.hear("xi.core.malformed") for _ in range(3)]
                assert "TypeError" in told[0]["reason"]
                assert "scroll_to" in told[0]["line"]
                await ann.until(lambda: ann.text == "x", TIMEOUT)
                (on.state / "odd").write_text("odd")
                with pytest.raises(shmbus.RemoteError, match=r"'odd'. is the name of no view"):
                    await open_view(on.ep, str(on.state / "odd"))
                assert "xi.core.down" not in [type for type, _ in on.heard]


def test_an_edit_that_kills_each_core_is_left_out_and_told(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.type("a")
                await ann.flush()
                ann.press("insert", {"chars": "die"})
                await ann.flush()
                ann.type("b")
                await ann.flush()
                down = await on.hear("xi.core.down")
                assert (down["exit"], down["stderr"]) == (3, "out of paint")
                dropped = await on.hear(f"xi.{view}.edit_dropped")
                assert dropped["edits"][0]["params"] == {"chars": "die"}
                ann.type("c")
                await ann.until(lambda: ann.text == "abc", TIMEOUT)


@pytest.mark.slow
def test_a_core_that_is_slow_is_left_to_work_and_gets_no_more_than_it_can_do(
    stage: MakeStage,
) -> None:
    @run_async
    async def main() -> None:
        async with stage(patience=1.0) as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                for _ in range(150):  # longer than its patience, but each is short
                    ann.press("insert", {"chars": "slow"})
                await ann.until(lambda: ann.text == "s" * 150, TIMEOUT)
                await kill_core(on)
                await ann.until(lambda: ann.fetched > 1 and ann.text == "s" * 150, TIMEOUT)
                assert [type for type, _ in on.heard].count("xi.core.down") == 1


def test_whoever_kills_cores_costs_no_edit(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.press("insert", {"chars": "be killed"})
                await ann.flush()
                for _ in range(3):
                    down = await on.hear("xi.core.down")
                    assert "was killed by SIGKILL" in down["reason"]
                (on.state / "enough").touch()
                await ann.until(lambda: ann.text == "be killed", TIMEOUT)


@pytest.mark.slow
def test_a_core_that_hangs_is_killed_and_the_next_one_has_its_views(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage(patience=1.0) as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.type("kept")
                await ann.flush()
                ann.press("insert", {"chars": "hang"})
                await ann.flush()
                for _ in range(2):  # the second one hangs at the same edit
                    down = await on.hear("xi.core.down")
                    assert "it hung: no answer to 'get_config' within 1 s" in down["reason"]
                await ann.until(lambda: ann.fetched > 1 and ann.text == "kept", TIMEOUT)


def test_an_update_that_does_not_fit_ends_the_core_not_the_view(stage: MakeStage) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            async with FrontEnd(on.ep, view) as ann:
                ann.press("insert", {"chars": "nonsense"})
                down = await on.hear("xi.core.down")
                assert "its update does not fit" in down["reason"]


@pytest.mark.parametrize("answers", [True, False])
def test_what_the_core_asks_a_front_end_answers_or_it_gets_the_reason(
    stage: MakeStage, answers: bool
) -> None:
    @run_async
    async def main() -> None:
        async with stage() as on:
            view = await open_view(on.ep, None)
            if answers:
                on.ep.handle("xi.measure_width", lambda message: [[8.0]])
                on.ep.start()
            async with FrontEnd(on.ep, view) as ann:
                ann.press("insert", {"chars": "measure"})
                expected = "[[8.0]]" if answers else "NoRoute"
                await ann.until(lambda: ann.text == expected, TIMEOUT)
