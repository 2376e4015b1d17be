"""shmtop: what a person sees of a bus in a terminal, and what a script gets."""

from __future__ import annotations

import asyncio
import html
import os
import re
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec
import pytest

import shmbus
from shmbus.endpoint._kernel import Encoded, Origin
from shmbus.endpoint.attach import attach_as
from shmbus.endpoint.payloads import MSGPACK
from shmbus.shared import layout
from shmbus.shared.methods import MethodInfo, encode
from shmbus.shared.sites import SiteNote
from shmbus.testing import start_python
from shmbus.views.facts import Process
from shmbus.views.usage import Processes
from tests.by_hand import BusByHand, EndpointByHand, camera_on, entry, link_on, note

pytest.importorskip("textual")

from click.testing import CliRunner
from shmtop import columns, figures, keys
from shmtop.app import ShmTop
from shmtop.command import shmtop
from shmtop.pages.attached import AttachedPage
from shmtop.pages.table import EndpointTable
from shmtop.pages.tail import tail_line
from shmtop.rows import HELD, Severities
from shmtop.sampler import Sampler
from shmtop.states import SEVERITY, STATES
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

Use = Callable[[ShmTop, Pilot[None]], Awaitable[None]]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def bus(stack: ExitStack) -> BusByHand:
    return populated(BusByHand(stack, f"top-{secrets.token_hex(4)}"))


def populated(bus: BusByHand) -> BusByHand:
    bus.endpoint(0, "indexer").interests(
        entry(1, "index.query", role=layout.InterestRole.HANDLE), entry(2, "source.*.tokens")
    )
    for slot, name in ((1, "worker-1"), (2, "worker-2")):
        bus.endpoint(slot, name).interests(entry(1, "source.file", group="workers"))
    bus.endpoint(3, "log").interests(entry(1, ">", flags=layout.InterestFlag.DROP_NEWEST))
    return bus


def fill(endpoint: EndpointByHand, depth: int) -> None:
    endpoint.down["incoming"][0]["head"] = endpoint.up["incoming"][0]["tail"] + depth


CELL = 12.2  # the width of a character in a screenshot


def text_of(app: ShmTop) -> str:
    """What is on the screen, line by line."""
    lines: dict[float, str] = defaultdict(str)
    pattern = r'<text class="[^"]*-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>'
    parts = [(float(y), float(x), t) for x, y, t in re.findall(pattern, app.export_screenshot())]
    for y, x, text in sorted(parts):
        lines[y] = lines[y].ljust(round(x / CELL)) + html.unescape(text).replace("\xa0", " ")
    return "\n".join(lines.values())


def drive(
    bus: BusByHand | str, use: Use, width: int = 80, height: int = 24, interval: float = 0.2
) -> None:
    async def run() -> None:
        sampler = Sampler(bus if isinstance(bus, str) else bus.name)
        app = ShmTop(sampler, interval=interval)
        async with app.run_test(size=(width, height)) as pilot:
            await pilot.pause()
            await use(app, pilot)
        if app.attached is not None:
            app.attached.join()
        sampler.close()

    asyncio.run(run())


def type_in(app: ShmTop, text: str) -> None:
    """Type into the page's field at once: each key that a pilot presses waits for an idle CPU."""
    app.screen.query_one(Input).value = text


async def until(
    app: ShmTop, pilot: Pilot[None], what: str | Callable[[str], object], *, there: bool = True
) -> str:
    """Wait until this text, or what this function finds, is on the screen, or is not."""
    end = time.monotonic() + 20
    found = what if callable(what) else lambda seen: what in seen
    while bool(found(seen := text_of(app))) != there:
        assert time.monotonic() < end, f"{what!r} {'missing' if there else 'still'} in:\n{seen}"
        await pilot.pause(0.02)
    return seen


SNAPSHOTS = Path(__file__).parent / "snapshots"


async def until_snapshot(app: ShmTop, pilot: Pilot[None], name: str, bus: BusByHand) -> None:
    """Wait for what stands in tests/snapshots. To take it anew, look at it, and commit:
    UPDATE_SNAPSHOTS=1."""
    file = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(comparable(text_of(app), bus))
    expected = file.read_text()
    with suppress(AssertionError):
        await until(app, pilot, lambda seen: comparable(seen, bus) == expected)
    assert comparable(text_of(app), bus) == expected


def comparable(seen: str, bus: BusByHand) -> str:
    """With what differs from run to run made equal."""
    seen = seen.replace(bus.name, "symphony".ljust(len(bus.name)))
    seen = re.sub(r"[▁▂▃▄▅▆▇█]+$", "~", seen, flags=re.MULTILINE)
    seen = re.sub(r"(up|attached) [\d.]+ [mµ]?s", r"\1 1.0 s", seen)
    return "\n".join(line.rstrip() for line in seen.splitlines()) + "\n"


@pytest.fixture
def staged(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> BusByHand:
    """A bus that looks the same at each run."""
    process = Process(cpu=12.0, memory=64 << 20)
    monkeypatch.setattr(Processes, "look", lambda self, pids, leaders: dict.fromkeys(pids, process))
    for module in ("registry", "discovery"):
        monkeypatch.setattr(f"shmbus.views.{module}.process_alive", lambda *process: True)
    return populated(BusByHand(stack, f"staged-{secrets.token_hex(3)}", pid=4242))


def test_the_bus_looks_as_it_did(staged: BusByHand) -> None:
    staged.rows[1]["health"] = layout.Fitness.STALLED
    staged.rows[3]["health"] = layout.Fitness.SLOW
    fill(staged.endpoint(5, "pipe"), 3900)
    fill(staged.endpoint(6, "half"), 2048)
    staged.head["routed"], staged.head["latency_max_ns"] = 1000, 90_000
    staged.head["latency"][80:90] = 100

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "pipe")
        app.pause()
        await until(app, pilot, "PAUSED")
        await until_snapshot(app, pilot, "bus-80x24", staged)

    drive(staged, use)


def test_an_endpoint_s_page_looks_as_it_did(staged: BusByHand) -> None:
    worker = staged.endpoint(7, "a-worker")
    worker.interests(
        entry(1, "job.>", group="team"),
        entry(2, "index.query", role=layout.InterestRole.HANDLE),
        entry(3, "log.*", flags=layout.InterestFlag.DROP_NEWEST),
    )
    worker.up["sent_events"], worker.up["received_requests"], worker.down["lost"] = 12, 3456, 7
    fill(worker, 3072)

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "a-worker")
        await pilot.press("enter")
        await until(app, pilot, "log.*")
        await until_snapshot(app, pilot, "endpoint-80x40", staged)

    drive(staged, use, height=40)


def test_an_endpoint_s_page_tells_what_it_offers(staged: BusByHand) -> None:
    integer = {"type": "integer"}
    add = MethodInfo(
        service="calc",
        name="add",
        interface="Calculator",
        arguments={"type": "object", "properties": {"a": integer}, "required": ["a"]},
        result=integer,
    )
    staged.endpoint(7, "a-worker").interests(
        entry(1, "calc.add", role=layout.InterestRole.HANDLE, description=encode(add)),
        entry(2, "calc.old", role=layout.InterestRole.HANDLE, description=b"of another version"),
    )

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "a-worker")
        await pilot.press("enter")
        seen = await until(app, pilot, "calc.old")
        assert "offers     calc.add(a: integer) -> integer" in seen
        assert "handles    calc.old" in seen

    drive(staged, use, height=40)


def test_the_routes_page_looks_as_it_did(staged: BusByHand) -> None:
    staged.rows[2]["health"] = layout.Fitness.STALLED

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await pilot.press("r")
        type_in(app, "source.file")
        await until(app, pilot, "not fit: stalled or slow")
        await until_snapshot(app, pilot, "routes-100x20", staged)

    drive(staged, use, width=100, height=20)


@pytest.mark.smoke
def test_the_bus_is_shown_in_80_by_24_with_its_keys(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        seen = await until(app, pilot, "worker-2")
        assert seen.splitlines()[3].startswith("ENDPOINT")  # no line is wasted
        assert app.screen.query_one(EndpointTable).size.height == 20
        for word in (bus.name, "healthy", "ENDPOINT", "LOST", "indexer", "Sort", "Filter", "Tail"):
            assert word in seen
        assert all(len(line.rstrip()) <= 80 for line in seen.splitlines())

    drive(bus, use)


def test_the_headline_leaves_out_what_does_not_fit(stack: ExitStack) -> None:
    bus = populated(BusByHand(stack, f"a-longer-name-{secrets.token_hex(4)}"))

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        seen = (await until(app, pilot, "4/8 endpoints")).splitlines()[0]
        assert "heartbeat" not in seen
        await pilot.resize_terminal(100, 24)
        await until(app, pilot, "heartbeat")

    drive(bus, use)


def test_states_show_in_their_words_and_the_verdict_names_them(
    bus: BusByHand, stack: ExitStack
) -> None:
    bus.rows[0]["health"] = layout.Fitness.STALLED
    bus.rows[1]["health"] = layout.Fitness.SLOW
    bus.rows[2]["state"] = layout.RowState.DYING
    fill(bus.endpoint(5, "pipe"), 3900)

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "unhealthy")
        for row in (
            "indexer     stalled",
            "worker-1    slow",
            "worker-2    dead",
            "pipe        full",
        ):
            await until(app, pilot, row)
        bus.rows[0]["health"] = bus.rows[1]["health"] = layout.Fitness.FIT
        bus.rows[2]["state"] = layout.RowState.LIVE
        await until(app, pilot, "● healthy")

    drive(bus, use)


def test_what_is_late_and_who_died_is_shown(bus: BusByHand) -> None:
    death = bus.head["last_deaths"][0]
    death["nth"], death["generation"], death["pid"] = 1, 7, 4321
    death["reason"], death["wall_ns"] = layout.Reason.KILLED, time.time_ns()
    death["in_hand"], death["untouched"], death["pending"] = 2, 3, 4
    death["name"] = b"the-late"
    bus.head["deaths"][layout.Reason.KILLED] = 1
    picky = bus.endpoint(5, "picky")
    picky.down["lost"] = picky.down["lost_by"][layout.Loss.TOO_LARGE] = 6

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        seen = await until(app, pilot, "◆ degraded")
        assert "deaths 1" in seen
        assert "endpoint picky" in seen
        await pilot.press("d")
        seen = await until(app, pilot, "the-late")
        assert "since the bus was made: 1 killed" in seen
        assert "2 in hand, 3 waiting, 4 requests under way" in seen

    drive(bus, use, width=100)
    arguments = [bus.name, "--once", "--interval", "0.05"]
    result = CliRunner().invoke(shmtop, arguments, env={"COLUMNS": "120"})
    assert result.exit_code == 1
    assert "the-late (process 4321) killed with 2 in hand" in result.output


def test_endpoints_come_and_go_while_one_looks(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        bus.endpoint(6, "late")
        await until(app, pilot, "late")
        bus.rows[6]["state"] = layout.RowState.FREE
        await until(app, pilot, "late", there=False)

    drive(bus, use)


def test_the_table_sorts_by_any_column(bus: BusByHand) -> None:
    bus.endpoint(4, "pipe").down["lost"] = 7

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        def first(seen: str) -> str:
            lines = seen.splitlines()
            at = next(i for i, line in enumerate(lines) if line.startswith("ENDPOINT"))
            return lines[at + 1].split()[0]

        assert first(await until(app, pilot, "pipe")) == "indexer"
        await pilot.press("s")
        await until(app, pilot, "PID▲")
        while "LOST▼" not in text_of(app):
            await pilot.press("s")
        await until(app, pilot, lambda seen: first(seen) == "pipe")
        await pilot.press("S", "s")
        await until(app, pilot, "LOST▼")
        await pilot.press("v")
        await until(app, pilot, "LOST▲")
        await until(app, pilot, lambda seen: first(seen) != "pipe")

    drive(bus, use)


def test_the_table_is_filtered_by_words_of_name_state_or_pattern(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "indexer")
        await pilot.press("slash")
        type_in(app, "source.file")
        await until(app, pilot, "indexer", there=False)
        await until(app, pilot, "worker-1")
        await pilot.press("enter", "escape")
        await until(app, pilot, "indexer")

    drive(bus, use)


def at_once(app: ShmTop, keys: str) -> None:
    """Press all these keys, before any of them has done anything."""
    for key in keys:
        name = {"/": "slash", "?": "question_mark", "\n": "enter"}.get(key, key)
        app.post_message(events.Key(name, key if key.isprintable() else None))


@pytest.mark.parametrize("opening", ["/", "r", "t"])
def test_what_is_typed_fast_goes_to_the_prompt_that_was_opened(
    bus: BusByHand, opening: str
) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "indexer")
        at_once(app, opening + "svrdtq.w")
        await until(app, pilot, "svrdtq.w")
        assert app.screen.query_one(Input).value == "svrdtq.w"

    drive(bus, use)


def test_what_ends_a_prompt_counts_after_what_was_typed_before(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "indexer")
        at_once(app, "/worker-1\ns")
        await until(app, pilot, "indexer", there=False)
        await until(app, pilot, "PID▲")
        assert app.screen.query_one(Input).value == "worker-1"
        at_once(app, "/q\nq")
        await until(app, pilot, lambda seen: app.return_code == 0)

    drive(bus, use)


def test_what_is_wrong_comes_first_and_a_key_goes_from_the_worst_to_the_next(
    bus: BusByHand,
) -> None:
    bus.rows[1]["health"] = layout.Fitness.SLOW
    bus.rows[3]["health"] = layout.Fitness.STALLED
    picky = bus.endpoint(5, "picky")

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        def names(seen: str) -> list[str]:
            lines = seen.splitlines()
            at = next(i for i, line in enumerate(lines) if line.startswith("ENDPOINT"))
            return [line.split()[0] for line in lines[at + 1 : at + 5]]

        wanted = ["log", "worker-1", "indexer", "picky"]
        await until(app, pilot, lambda seen: names(seen) == wanted)
        table = app.screen.query_one(EndpointTable)
        await pilot.press("end")
        for name in ("log", "worker-1", "log"):
            await pilot.press("w")
            assert table.selected is not None
            assert table.selected.info.name == name
        picky.down["lost_by"][layout.Loss.TOO_LARGE] = 3
        await until(app, pilot, "picky       losing")
        assert names(text_of(app)) == ["log", "worker-1", "picky", "indexer"]

    drive(bus, use)


def test_a_row_keeps_its_place_for_a_while_after_its_trouble() -> None:
    severities = Severities()
    key = 0, 1
    assert severities.note(0.0, {key: "full"}) == {key: SEVERITY["full"]}
    assert severities.note(1.0, {key: "stalled"}) == {key: SEVERITY["stalled"]}
    assert severities.note(2.0, {key: "full"}) == {key: SEVERITY["stalled"]}
    assert severities.note(1.0 + HELD, {key: "idle"}) == {key: SEVERITY["full"]}
    assert severities.note(2.0 + HELD, {key: "idle"}) == {}


def test_the_age_of_the_oldest_and_the_time_of_a_handler_stand_in_80_columns(
    bus: BusByHand,
) -> None:
    busy = bus.endpoint(4, "busy")
    busy.up["in_hand"] = 2
    busy.up["in_hand_since_ns"] = time.monotonic_ns() - 130 * 10**9

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        seen = await until(app, pilot, "2m")
        (row,) = (line for line in seen.splitlines() if line.startswith("busy"))
        assert re.search(r"busy +busy .* 2m\d\d ", row)
        assert "OLDEST" in seen
        assert "HANDLER" in seen

    drive(bus, use)


def test_the_time_of_the_only_handler_begins_with_its_message(bus: BusByHand) -> None:
    for slot, (name, receivers) in enumerate({"alone": 1, "several": 2}.items(), 4):
        up = bus.endpoint(slot, name).up
        up["in_hand"], up["receivers"] = 1, receivers
        up["in_hand_since_ns"] = time.monotonic_ns() - 130 * 10**9
        up["progress_ns"] = time.monotonic_ns() - 70 * 10**9

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        seen = await until(app, pilot, "several")
        times = {line.split()[0]: line for line in seen.splitlines() if " busy " in line}
        assert re.search(r" 1m\d\d ", times["alone"])
        assert re.search(r" 2m\d\d ", times["several"])

    drive(bus, use)


@pytest.mark.parametrize("page", ["enter", "r", "d", "p", "t", "question_mark"])
def test_every_page_begins_with_the_state_of_the_bus(bus: BusByHand, page: str) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "indexer")
        await pilot.press(page)
        await until(app, pilot, "ENDPOINT  ", there=False)
        await until(app, pilot, lambda seen: "● healthy  0/s" in seen.splitlines()[0])
        bus.head["identity"]["start_time"] += 1
        await until(app, pilot, lambda seen: "▲ dead" in seen.splitlines()[0])

    drive(bus, use)


def test_the_help_explains_every_key_column_and_state(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        seen = await until(app, pilot, "Keys, columns and states")
        for words in (*(key.shown for key in keys.BUS), *columns.BY_TITLE, *STATES):
            assert words in seen
        await pilot.press("escape")
        await until(app, pilot, "ENDPOINT  ")

    drive(bus, use, width=120, height=100)


def test_deaths_losses_and_events_have_a_page_and_events_come_live() -> None:
    name = f"live-{secrets.token_hex(4)}"
    small = shmbus.Settings(in_bytes=4096)
    hasty = shmbus.Settings(block_timeout=0.05, stall_after=60)
    with shmbus.serve(name, settings=hasty) as bus, bus.attach("writer") as writer:
        with bus.attach("picky", settings=small) as picky:
            picky.subscribe("big")
            for _ in range(10):
                writer.publish("big", b"x" * 800)

            async def use(app: ShmTop, pilot: Pilot[None]) -> None:
                await until(app, pilot, "picky")
                await pilot.press("d")
                await until(app, pilot, "to see the bus's events")
                seen = await until(app, pilot, "LOST AT")
                assert re.search(r"picky +\d+ +\d+ +slow .* big +writer", seen)
                with bus.attach("late"):
                    await until(app, pilot, "endpoint.up       late (process")
                await until(app, pilot, "endpoint.down     late (process")
                await pilot.press("ctrl+l")
                await until(app, pilot, "late", there=False)
                await pilot.press("escape")
                await until(app, pilot, "ENDPOINT  ")

            drive(name, use, width=120, height=40)


def test_an_empty_table_says_why_and_what_to_do(stack: ExitStack) -> None:
    bus = BusByHand(stack, f"empty-{secrets.token_hex(4)}")
    nobody = f"no endpoint is attached; a process attaches by shmbus.attach('{bus.name}')"

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, nobody)
        populated(bus)
        await until(app, pilot, "indexer")
        await until(app, pilot, "nobody", there=False)
        await pilot.press("slash")
        type_in(app, "[nothing] like it")
        await until(app, pilot, "no endpoint matches '[nothing] like it'; press escape to see all")
        await pilot.press("escape")
        await until(app, pilot, "indexer")
        await until(app, pilot, "no endpoint", there=False)

    once = CliRunner().invoke(shmtop, [bus.name, "--once", "--interval", "0.05"])
    assert nobody in once.output
    drive(bus, use)


def test_an_endpoint_has_a_page_of_its_own_and_it_lives(bus: BusByHand) -> None:
    worker = bus.endpoint(7, "a-caller")
    pending = worker.pending()
    pending[0]["state"] = layout.PendingState.WAITING
    pending[0]["deadline_ns"] = time.monotonic_ns() + 60 * 10**9
    worker.interests(entry(1, "job.>", group="team"))
    camera = camera_on(bus, 6)
    worker.hold(camera, 3 << 20)
    worker.up["copied"] = 2

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "a-caller")
        await pilot.press("enter")
        for text in ("Requests under way: 1 of 16", "group team", "none chosen yet"):
            seen = await until(app, pilot, text)
        assert (
            "large payloads of others: holds camera (1: 3 MiB), 0 at most, copies made of 2" in seen
        )
        fill(worker, 2048)
        await until(app, pilot, "50%")
        bus.rows[7]["state"] = layout.RowState.FREE
        await until(app, pilot, "a-caller  gone")
        await pilot.press("escape")
        await until(app, pilot, "ENDPOINT")

    drive(bus, use, height=40)


def test_the_routes_page_answers_who_gets_a_type_and_why(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await pilot.press("r")
        type_in(app, "source.file")
        seen = await until(app, pilot, "member of workers")
        assert re.search(r"published, it goes to log, worker-[12]", seen)
        assert "(NoRoute)" in seen
        type_in(app, "source.file..x")
        await until(app, pilot, "is not a message type")

    drive(bus, use, width=100)


def test_the_pools_page_tells_who_holds_how_much_of_whose(bus: BusByHand) -> None:
    camera, tracker = camera_on(bus, 6), bus.endpoint(7, "tracker")
    tracker.hold(camera, 2 << 20, 1 << 20)
    bus.head["pools_granted"], bus.head["pool_total_bytes"] = 12 << 20, 1 << 30

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        seen = await until(app, pilot, "HOLDS")
        assert re.search(r"camera .* 6\.0M +0 ", seen)
        assert re.search(r"tracker .* 0 +3\.0M ", seen)
        await pilot.press("p")
        seen = await until(app, pilot, "12M granted of 1.0G")
        assert re.search(r"camera +█· *.* 6\.0M +64M +12M +2 +4\b", seen)
        assert re.search(r"tracker +holds +3\.0M +2\b", seen)
        camera.up["pool_need"] = 1
        await until(app, pilot, " 4, now")

    drive(bus, use, width=200)


def test_who_has_what_of_a_pool_fits_a_narrow_terminal(bus: BusByHand) -> None:
    camera, tracker = camera_on(bus, 6), bus.endpoint(7, "tracker-of-all-that-moves-1")
    tracker.hold(camera, 2 << 20, 1 << 20)
    camera.up["pool_need"] = 1

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await pilot.press("p")
        seen = await until(app, pilot, "4, now")
        assert re.search(r"tracker-of-all-that-moves-1 +holds +3\.0M +2\b", seen)

    drive(bus, use, width=80)


def test_an_endpoints_page_says_who_has_what_of_its_pool(bus_name: str) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "camera")
        await pilot.press("g", "enter")
        seen = " ".join((await until(app, pilot, "not taken by display")).split())
        assert "held by display (1: 293 KiB)" in seen
        assert "values that are kept (293 KiB)" in seen

    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("camera") as camera,
        bus.attach("display") as display,
    ):
        display.subscribe("frame")
        camera.publish("frame", bytes(300_000), retain=True)
        held = display.receive(60)
        camera.publish("frame", bytes(300_000))
        drive(bus_name, use, width=120)
        assert held is not None


def test_a_dead_dispatcher_is_said_and_everything_else_still_shown(
    bus: BusByHand,
) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "healthy")
        bus.head["identity"]["start_time"] += 1
        await until(app, pilot, "▲ dead")
        assert "worker-1" in await until(app, pilot, "start it again")

    drive(bus, use)


def test_a_bus_that_ended_and_is_served_anew_is_followed(bus: BusByHand, stack: ExitStack) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        bus.head["state"] = layout.BusState.ENDED
        bus.head["identity"]["start_time"] += 1
        bus.segment.unlink()
        await until(app, pilot, "ended")
        BusByHand(stack, bus.name).endpoint(0, "newcomer", generation=9)
        await until(app, pilot, "newcomer")

    drive(bus, use)


def test_it_pauses_and_resizes(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        await until(app, pilot, "PAUSED")
        await pilot.resize_terminal(140, 30)
        await until(app, pilot, "PROGRESS")
        await pilot.resize_terminal(40, 10)
        await until(app, pilot, "PROGRESS", there=False)
        await pilot.press("space")
        await until(app, pilot, "PAUSED", there=False)

    drive(bus, use)


@pytest.mark.slow
def test_256_endpoints_scroll(stack: ExitStack) -> None:
    bus = BusByHand(stack, f"large-{secrets.token_hex(4)}", slots=256)
    for slot in range(256):
        bus.endpoint(slot, f"e{slot:03}")

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "e000")
        await pilot.press("ctrl+end")
        await until(app, pilot, "e255")
        await pilot.press("enter")
        await until(app, pilot, "slot 255")

    drive(bus, use, interval=0.5)


def test_once_prints_a_table_and_tells_unhealthy_by_its_exit_code(bus: BusByHand) -> None:
    arguments = [bus.name, "--once", "--interval", "0.05"]
    result = CliRunner().invoke(shmtop, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert all(len(line) <= 80 for line in result.output.splitlines())
    for word in (bus.name, "healthy", "ENDPOINT", "worker-2", "p50 -  p99 -"):
        assert word in result.output
    bus.rows[0]["health"] = layout.Fitness.SLOW
    result = CliRunner().invoke(shmtop, arguments)
    assert result.exit_code == 1
    assert "endpoint indexer" in result.output


def test_json_is_one_document_with_all_that_is_known(bus: BusByHand) -> None:
    result = CliRunner().invoke(shmtop, [bus.name, "--json", "--interval", "0.05"])
    document = msgspec.json.decode(result.stdout)
    assert document["health"]["healthy"] is True
    assert [e["name"] for e in document["endpoints"]] == ["indexer", "worker-1", "worker-2", "log"]
    first = document["endpoints"][0]
    assert first["patterns"] == ["index.query", "source.*.tokens"]
    assert set(first["rates"]) == {"received", "sent", "lost"}
    assert document["bus"]["pid"] == os.getpid()
    assert document["pools"] == document["health"]["pools"] == []


def test_without_the_extra_one_line_says_how_to_install_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    hide = "import sys; sys.modules['textual'] = None; import shmtop; shmtop.main()"
    with start_python(hide) as program:
        assert program.wait() == 1
    assert capfd.readouterr().err == (
        "shmtop: the command needs the extra `tools`: pip install 'shmbus[tools]'\n"
    )


@pytest.mark.slow
def test_a_real_bus_under_load_is_shown_and_what_passes_tailed() -> None:
    name = f"live-{secrets.token_hex(4)}"
    stop = threading.Event()
    with shmbus.serve(name) as bus, bus.attach("writer") as writer, bus.attach("reader") as reader:
        reader.subscribe("job.*", lambda message: None)
        reader.start()

        def write() -> None:
            number = 0
            while not stop.wait(0.001):
                writer.publish("job.add", {"number": (number := number + 1)})

        async def use(app: ShmTop, pilot: Pilot[None]) -> None:
            await until(app, pilot, "reader")
            await until(app, pilot, " 0/s  p50", there=False)
            await until(app, pilot, "● healthy")
            await pilot.press("t")
            seen = await until(app, pilot, "lossy observer of >")
            assert f"shmtop-{os.getpid()}" in seen
            await until(app, pilot, 'event   job.add writer -> reader {"number":')
            type_in(app, "nothing.*")
            await pilot.press("enter")
            await until(app, pilot, "lossy observer of nothing.*")
            while "job.add" in text_of(app):  # what had been taken before may come yet
                await pilot.press("ctrl+l")
            await pilot.press("escape")
            await until(app, pilot, "ENDPOINT")
            await until(app, pilot, "shmtop-", there=False)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            drive(name, use)
        finally:
            stop.set()
            thread.join()


def test_the_tail_shows_every_kind_and_goes_on_when_the_bus_is_served_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"live-{secrets.token_hex(4)}"
    came: list[str] = []
    show = AttachedPage.on_attached_page_came

    def note(page: AttachedPage, message: AttachedPage.Came) -> None:
        show(page, message)
        came.extend(line.plain for line in message.lines)

    monkeypatch.setattr(AttachedPage, "on_attached_page_came", note)

    async def talk(bus: shmbus.Bus, number: int, app: ShmTop, pilot: Pilot[None]) -> None:
        await until(app, pilot, "lossy observer of >")
        with bus.attach("s") as server, bus.attach("c") as client:
            server.handle("div", lambda message: 1 / message.payload)
            server.start()
            client.wait_for("div")
            client.publish("nobody.wants", "this")
            assert client.request("div", number).payload == 1 / number
            with pytest.raises(shmbus.errors.RemoteError):
                client.request("div", 0)
        for line in (
            'event   nobody.wants c -> - nobody "this"',
            f"request div c -> s {number}",
            f"reply   div s -> c {1 / number}",
            "error   div s -> c ZeroDivisionError: division by zero",
        ):
            await until(app, pilot, line)

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await pilot.press("t")
        await talk(first, 4, app, pilot)
        with first.attach("writer") as writer:
            await pilot.press("space")
            await until(app, pilot, "PAUSED")
            writer.publish("while.paused")
            await until(app, pilot, lambda seen: "while.paused" in " ".join(came))
            await pilot.press("space")
            writer.publish("while.not")
            assert "while.paused" not in await until(app, pilot, "while.not")
        first.close()
        await until(app, pilot, "Start it")
        with shmbus.serve(name) as successor:
            await talk(successor, 8, app, pilot)

    with shmbus.serve(name) as first:
        drive(name, use, width=100)


def test_an_endpoint_s_page_shows_how_long_messages_have_waited_for_it() -> None:
    name = f"live-{secrets.token_hex(4)}"
    with shmbus.serve(name) as bus, bus.attach("a-reader") as reader, bus.attach("w") as writer:
        reader.subscribe("job.*")
        reader.tap("log.>")

        async def use(app: ShmTop, pilot: Pilot[None]) -> None:
            await until(app, pilot, "a-reader")
            await pilot.press("enter")
            await until(app, pilot, "taps       log.>")
            seen = await until(app, pilot, "nothing waits")
            assert "of the whole bus, not of this endpoint" in seen
            for number in range(7):
                writer.publish("job.add", number)
            seen = await until(app, pilot, "nothing waits", there=False)
            waiting = seen[seen.index("Waiting for this endpoint") : seen.index("Routing latency")]
            octaves = re.findall(r"from +[\d.]+ [mµ]?s \S* +(\d+)\n", waiting)
            assert 1 <= sum(map(int, octaves)) <= 7  # a look may come between two of them
            assert re.search(r"p50 [\d.]+ [mµ]?s  p99", waiting)

        drive(name, use, height=44)


@pytest.mark.slow
def test_the_tail_says_why_it_cannot_attach(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        await pilot.press("t")
        await until(app, pilot, "it did not answer within")

    drive(bus, use)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (0.25, "0.2"),
        (999, "999"),
        (1000, "1.0k"),
        (34567, "35k"),
        (5.6e6, "5.6M"),
    ],
)
def test_numbers_take_at_most_four_characters(value: float, shown: str) -> None:
    assert figures.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (512, "512"), (1536, "1.5K"), (65536, "64K"), (128 << 20, "128M")],
)
def test_sizes_are_short(value: int, shown: str) -> None:
    assert figures.size(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (12e-6, "12 µs"),
        (0.0034, "3.4 ms"),
        (5.6, "5.6 s"),
        (428, "7m08"),
        (12000, "3h20"),
    ],
)
def test_times_show_the_digits_that_matter(seconds: float | None, shown: str) -> None:
    assert figures.duration(seconds) == shown


@pytest.mark.parametrize("fill", [0.0, 0.001, 0.3, 0.5, 0.99, 1.0, 7.0])
def test_a_bar_fills_its_width_and_shows_the_least(fill: float) -> None:
    drawn = "".join(text for text, _ in figures.bar(fill, 8))
    assert len(drawn) == 8
    assert (drawn[0] == "·") == (fill == 0)


@pytest.mark.smoke
def test_other_sites_and_who_is_there_are_shown(bus: BusByHand) -> None:
    link_on(bus, slot=4)

    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        seen = await until(app, pilot, "calc@rome")
        assert "sites  oslo down  rome 3.1 ms" in seen
        assert "2 elsewhere" in seen
        assert "l Links" in seen
        assert re.search(r"came…@paris remote +7 +-", seen)
        await pilot.press("l")
        seen = await until(app, pilot, "as berlin")
        assert re.search(r"oslo +down", seen)
        assert "! oslo: nothing is heard of it" in seen
        assert re.search(r"paris +up +20 ms +0 +0 +0 +2 +1", seen)
        await pilot.press("escape")
        await until(app, pilot, "ENDPOINT")
        await pilot.press("end", "enter")
        seen = await until(app, pilot, "process 8 on another machine")
        assert "over @link: up, 3.1 ms there and back" in seen
        assert "calc.add" in seen

    drive(bus, use)


def test_without_links_nothing_is_said_of_sites(bus: BusByHand) -> None:
    async def use(app: ShmTop, pilot: Pilot[None]) -> None:
        seen = await until(app, pilot, "worker-1")
        assert "sites" not in seen
        assert "Links" not in seen

    drive(bus, use)


def test_what_crosses_in_a_second_is_averaged_over_some(bus: BusByHand) -> None:
    link = link_on(bus, slot=4)
    with closing(Sampler(bus.name)) as sampler:
        (before,) = (row.info for row in sampler.sample().sites if row.info.name == "rome")
        rome = SiteNote(site="rome", space="lan", run=before.run, state="up", since=1.0, sent=1000)
        link.interests(note(12, rome))
        (after,) = (row for row in sampler.sample().sites if row.info.name == "rome")
    assert after.rates.sent > 0
    assert after.rates.received == 0


def test_in_the_tail_what_comes_from_another_site_has_its_time_with_how_well_that_is_known(
    bus_name: str,
) -> None:
    with shmbus.serve(bus_name) as real, real.attach("tap") as tap:
        tap.tap("frame")
        with attach_as("@link", real.name, timeout=60) as link:
            sent = time.monotonic_ns() - 20_000_000
            origin = Origin("camera", "paris", sent, 200_000, sent, 0)
            link.publish("frame", Encoded(MSGPACK, msgspec.msgpack.encode("x"), origin))
        message = tap.receive(60)
        assert message is not None
        line = tail_line(message).plain
    assert re.search(r"frame camera@paris -> - in [0-9.]+ ms \+-0.2 nobody", line), line
