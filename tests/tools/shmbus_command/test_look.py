"""ls, describe, route and health: buses observed from the shell."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import shmbus
from ringbuf import Segment
from shmbus import errors
from shmbus.shared import layout, names
from shmbus.testing import Attach, BusProcess, eventually, start_python
from tests.by_hand import BusByHand, camera_on, link_on

from .conftest import COMMAND, Ran

Command = Callable[..., Ran]


@pytest.fixture
def worker(bus: shmbus.Bus) -> Any:
    endpoint = bus.attach("indexer")
    endpoint.handle("index.query", lambda message: {"hits": []})
    endpoint.subscribe("buffer.*.changed", lambda message: None, group="tokenisers")
    endpoint.start()
    yield endpoint
    endpoint.close()


@pytest.mark.smoke
def test_ls_shows_buses_and_who_is_on_them(
    bus: shmbus.Bus, worker: shmbus.Endpoint, shmbus_command: Command
) -> None:
    ran = shmbus_command("ls")
    assert ran.code == 0
    assert f"{bus.name}  serving  process {os.getpid()}" in ran.out
    ran = shmbus_command("ls", bus.name)
    assert ran.lines[0].startswith(bus.name)
    assert ran.lines[2].split()[:3] == ["indexer", "idle", str(os.getpid())]
    ran = shmbus_command("ls", bus.name, "--json")
    (found,) = ran.json
    assert (found["name"], found["state"]) == (bus.name, "serving")
    (endpoint,) = found["endpoints"]
    assert endpoint["patterns"] == ["index.query", "buffer.*.changed"]
    assert endpoint["condition"] == "idle"


def test_ls_leaves_out_a_bus_that_ended_while_it_looked(
    bus_name: str, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shmbus.serve(bus_name):
        found = shmbus.buses()
    monkeypatch.setattr("shmbus_command.ls.buses", lambda: found)
    ran = shmbus_command("ls")
    assert ran.code == 0
    assert bus_name not in ran.out


def test_describe_says_everything_of_a_bus_or_an_endpoint(
    bus: shmbus.Bus, worker: shmbus.Endpoint, shmbus_command: Command
) -> None:
    worker.on_match("token.>", lambda receivers: None)
    worker.subscribe("line.*", print, group="books", key="line.{id}")
    ran = shmbus_command("describe", "-b", bus.name)
    assert "rings" in ran.out
    assert "index.query" in ran.out
    ran = shmbus_command("describe", "-b", bus.name, "indexer")
    assert "handles index.query" in ran.out
    assert "subscribes buffer.*.changed, group tokenisers" in ran.out
    assert "is told of receivers of token.>" in ran.out
    assert "subscribes line.*, group books, key line.{*}" in ran.out
    assert "owns the key of line.{*}" in shmbus_command("route", "-b", bus.name, "line.1").out
    ran = shmbus_command("describe", "-b", bus.name, "indexer", "--json")
    assert ran.json["name"] == "indexer"
    ran = shmbus_command("describe", "-b", bus.name, "nobody")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(
        f"shmbus: no endpoint 'nobody' on bus '{bus.name}'; attached: indexer"
    )


def test_route_says_who_would_get_a_message_and_why(
    bus: shmbus.Bus, worker: shmbus.Endpoint, shmbus_command: Command
) -> None:
    ran = shmbus_command("route", "-b", bus.name, "buffer.3.changed")
    assert ran.code == 0
    assert ran.lines[1].split()[:2] == ["yes", "indexer"]
    ran = shmbus_command("route", "-b", bus.name, "index.query", "--json")
    assert ran.json["receivers"][0]["chosen"] is True
    ran = shmbus_command("route", "-b", bus.name, "unheard.of")
    assert ran.code == 1
    assert f"no endpoint on bus {bus.name} subscribes to unheard.of" in ran.err


def test_health_of_a_healthy_bus(
    bus: shmbus.Bus, worker: shmbus.Endpoint, shmbus_command: Command
) -> None:
    def look(*arguments: str) -> Ran:
        """Once the bus is healthy: on a busy machine the first heartbeat may be late."""

        def healthy() -> Ran | None:
            ran = shmbus_command("health", *arguments)
            return ran if ran.code == 0 else None

        return eventually(healthy)

    assert look(bus.name, "--over", "0.01").lines[0] == f"{bus.name}: healthy"
    ran = look(bus.name, "--over", "0", "--json")
    assert (ran.json["healthy"], ran.json["bus"]) == (True, bus.name)


def test_health_tells_recent_latency_apart_from_that_since_the_beginning(
    bus: shmbus.Bus, worker: shmbus.Endpoint, shmbus_command: Command
) -> None:
    with bus.attach("client") as client:
        client.request("index.query", timeout=60)
    ran = shmbus_command("health", bus.name, "--over", "20ms")
    (recent,) = (line for line in ran.lines if "routing, last 20.0 ms" in line)
    (ever,) = (line for line in ran.lines if "routing, from the beginning" in line)
    assert recent.endswith("nothing")
    assert "p99" in ever


def test_who_died_is_shown_with_what_was_left_undone(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    code = """
        import shmbus, time
        endpoint = shmbus.attach(name="victim")
        print("ready")
        time.sleep(600)
    """
    with start_python(code, bus=bus.name) as victim:
        assert victim.line() == "ready"
        os.kill(victim.pid, signal.SIGKILL)  # reaped once the bus has seen how it ended
        eventually(lambda: bus.health().last_deaths)
        for command in (["health", bus.name], ["describe", "-b", bus.name]):
            ran = shmbus_command(*command)
            rows = [
                line.split() for line in ran.lines if line.split()[:1] in (["DIED"], ["victim"])
            ]
            assert rows[0][:3] == ["DIED", "PID", "HOW"]
            assert rows[1][:3] == ["victim", str(victim.pid), "killed"]
            assert rows[1][-3:] == ["0", "0", "0"]
            assert any(line.endswith("1 killed") for line in ran.lines)


@pytest.mark.parametrize("bus_grants", [{"plug": shmbus.Grant(publish=("made.*", "news"))}])
def test_what_an_endpoint_may_do_and_has_tried_is_shown(
    bus_process: BusProcess, attach: Attach, shmbus_command: Command
) -> None:
    plug = attach("plug")
    for type in ("secret", "other"):
        with pytest.raises(errors.Forbidden):
            plug.publish(type)
    eventually(lambda: plug.bus.endpoints()[0].forbidden == 2)
    (row,) = (line for line in shmbus_command("ls", bus_process.name).lines if "plug" in line)
    assert row.endswith("(2 forbidden)")
    said = {
        " ".join(line.split())
        for line in shmbus_command("describe", "plug", "-b", plug.bus.name).lines
    }
    assert {"may publish made.* news", "may handle nothing"} <= said
    assert "forbidden 2, last: publish other" in said
    health = shmbus_command("health", bus_process.name)
    assert any(line.split() == ["forbidden", "by", "grants", "2"] for line in health.lines)
    assert shmbus_command("ls", bus_process.name, "--json").json[0]["endpoints"][0]["grant"][
        "publish"
    ] == [
        "made.*",
        "news",
    ]


def test_endpoints_in_trouble_are_shown_first(bus: shmbus.Bus, shmbus_command: Command) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(message: shmbus.Message) -> None:
        begun.set()
        assert go_on.wait(60)

    with bus.attach("well") as well, bus.attach("hangs") as hangs:
        well.subscribe("a", lambda message: None)
        hangs.handle("job", work, limit=0.01)
        hangs.start()
        well.send("job")
        assert begun.wait(60)
        eventually(lambda: bus.find("job")[0].condition == "overdue")
        for command in ("ls", "health"):
            lines = shmbus_command(command, bus.name).lines
            names = [line.split()[0] for line in lines if line.split()[:1] in (["well"], ["hangs"])]
            assert names == ["hangs", "well"]
        go_on.set()


@pytest.mark.slow
def test_health_of_a_bus_whose_dispatcher_died(bus_process: Any, shmbus_command: Command) -> None:
    bus_process.kill()
    eventually(lambda: not shmbus.observe(bus_process.name).info().alive)
    ran = shmbus_command("health", bus_process.name, "--over", "0")
    assert ran.code == 1
    assert f"{bus_process.name}: unhealthy" in ran.out
    assert "is dead; start it again" in ran.out
    ran = shmbus_command("pub", "-b", bus_process.name, "a")
    assert ran.code == 3
    assert "its dispatcher is dead" in ran.err


@pytest.mark.parametrize("command", ["ls", "health", "describe", "route"])
def test_a_missing_bus_is_told_in_one_line(shmbus_command: Command, command: str) -> None:
    where = {"describe": ["-b"], "route": ["a", "-b"]}.get(command, [])
    ran = shmbus_command(command, *where, "no-such-bus")
    assert ran.code == 3
    assert "no bus 'no-such-bus' runs" in ran.err
    assert ran.err.count("\n") == 1


@pytest.fixture
def broken(tmp_path: Path) -> Any:
    """A file that stands where a bus of this name would."""
    name = f"cli-broken-{os.getpid()}"
    path = Path("/dev/shm") / names.names_of(name).bus_segment
    yield name, path
    path.unlink(missing_ok=True)


def test_ls_leaves_out_a_bus_whose_name_another_takes_while_it_looks(
    broken: tuple[str, Path], shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path = broken
    with shmbus.serve(name):
        found = shmbus.buses()
    monkeypatch.setattr("shmbus_command.ls.buses", lambda: found)
    with Segment.create(path.name, 4096, kind=layout.SegmentKind.BUS, layout=layout.LAYOUT ^ 1):
        ran = shmbus_command("ls")
    assert ran.code == 0
    assert name not in ran.out


def test_a_bus_that_is_being_made_is_not_there_yet(
    broken: tuple[str, Path], shmbus_command: Command
) -> None:
    name, path = broken
    path.touch(0o600)
    for size in (0, 4096):
        os.truncate(path, size)
        ran = shmbus_command("pub", "-b", name, "a", "--wait", "0.01")
        assert (ran.code, ran.err[:28]) == (3, f"shmbus: no bus {name!r}"[:28])
        assert name not in shmbus_command("ls").out


@pytest.mark.parametrize("command", ["health", "pub"])
def test_another_layout_is_told_with_both_versions(
    broken: tuple[str, Path], shmbus_command: Command, command: str
) -> None:
    name, path = broken
    kind = layout.SegmentKind.BUS
    segment = Segment.create(path.name, 4096, kind=kind, layout=layout.LAYOUT ^ 1)
    ran = shmbus_command(command, *(["-b", name, "a"] if command == "pub" else [name]))
    segment.close()
    assert ran.code == 3
    assert ran.err.count("\n") == 1
    assert "has layout" in ran.err
    assert "--replace" in ran.err
    assert name in shmbus_command("ls").out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_another_users_bus_is_told_as_that(
    broken: tuple[str, Path], shmbus_command: Command
) -> None:
    name, path = broken
    path = path.with_name(names.names_of(name, 12345).bus_segment)
    path.write_bytes(bytes(4096))
    os.chown(path, 12345, 12345)
    try:
        ran = shmbus_command("health", name)
    finally:
        path.unlink()
    assert ran.code == 1
    assert "belongs to user 12345" in ran.err
    assert ran.err.count("\n") == 1


def test_completion_is_there_for_each_shell(shmbus_command: Command) -> None:
    for shell in ("bash", "zsh", "fish"):
        ran = shmbus_command("completion", shell)
        assert ran.code == 0
        assert "_SHMBUS_COMPLETE" in ran.out


def test_buses_endpoints_and_types_are_completed(
    bus: shmbus.Bus,
    worker: shmbus.Endpoint,
    complete: Callable[..., str],
) -> None:
    assert "plain,health" in complete("he")
    assert bus.name in complete("health", bus.name[:3])
    assert "plain,indexer" in complete("describe", "-b", bus.name, "in")
    assert "plain,index.query" in complete("request", "-b", bus.name, "ind")


def test_top_shows_a_bus_once(
    bus: shmbus.Bus, worker: shmbus.Endpoint, shmbus_command: Command
) -> None:
    ran = shmbus_command("top", bus.name, "--once", "--interval", "0.05")
    assert ran.code == 0
    assert "indexer" in ran.out
    ran = shmbus_command("top", "no-such-bus", "--once")
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    ran = shmbus_command("top", "--interval", "x")
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_a_bus_is_named_by_argument_option_or_environment(
    bus: shmbus.Bus, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        ["ls"],
        ["health", "--over", "0"],
        ["top", "--once", "--interval", "0.05"],
        ["doctor"],
    ):
        by_argument = shmbus_command(*command, bus.name)
        by_option = shmbus_command(*command, "-b", bus.name)
        monkeypatch.setenv("SHMBUS_BUS", bus.name)
        by_environment = shmbus_command(*command)
        monkeypatch.setenv("SHMBUS_BUS", "no-such-bus")
        missing = shmbus_command(*command)
        assert (missing.code == 3 and "SHMBUS_BUS in the environment" in missing.err) or (
            command == ["doctor"]  # which looks for what such a bus has left
        )
        for named in (["-b", "no-such-bus"], ["no-such-bus"]):
            assert "SHMBUS_BUS" not in shmbus_command(*command, *named).err
        monkeypatch.setenv("SHMBUS_BUS", "o")  # which is in the name of each of these commands
        assert command == ["doctor"] or "SHMBUS_BUS in the" in shmbus_command(*command).err
        over_environment = shmbus_command(*command, "-b", bus.name)
        monkeypatch.delenv("SHMBUS_BUS")
        for ran in (by_argument, by_option, by_environment, over_environment):
            assert (ran.code in (0, 1), ran.err) == (True, "")
            assert command == ["doctor"] or bus.name in ran.out


@pytest.mark.parametrize("value", ["-1", "nan", "x"])
def test_a_time_that_is_none_is_told_in_one_line(shmbus_command: Command, value: str) -> None:
    ran = shmbus_command("pub", "a", "--wait", value)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert value in ran.err


def test_a_full_disk_is_told_in_one_line(bus: shmbus.Bus) -> None:
    with open("/dev/full", "w") as full:
        command = [*COMMAND, "ls", bus.name]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == (
        "shmbus: standard output: No space left on device; free some space there\n"
    )


def test_without_the_extra_it_is_told_how_to_install_it() -> None:
    for missing in ("click", "rich", "hdrh"):
        code = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['bench']\n"
        code += "from shmbus_command import main; main()"
        command = [sys.executable, "-P", "-c", code]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 1
        assert ran.stderr.endswith("pip install 'shmbus[tools]'\n")
        assert ran.stderr.count("\n") == 1


def test_help_and_version_are_there(shmbus_command: Command) -> None:
    ran = shmbus_command("--help")
    assert ran.code == 0
    assert "Exit codes" in ran.out
    assert shmbus_command("--version").out.startswith("shmbus, version")


@pytest.mark.bus(prefetch=1, block_timeout=60, stall_after=60)
def test_what_waits_until_a_worker_is_free_is_shown_by_every_command(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(message: shmbus.Message) -> None:
        begun.set()
        assert go_on.wait(60)

    with bus.attach("busy") as busy, bus.attach("sender") as sender:
        busy.subscribe("job", work, group="workers")
        busy.start()
        sender.publish("job")
        assert begun.wait(60)
        for _ in range(3):
            sender.publish("job")
        eventually(lambda: [b.waiting for b in bus.backlogs()] == [3])
        for command in (["ls", bus.name], ["describe", "-b", bus.name], ["health", bus.name]):
            (line,) = (x for x in shmbus_command(*command).lines if "group workers" in x)
            assert line.split()[:3] == ["group", "workers", "3"]
            assert line.split()[-1] == "busy"
        (found,) = shmbus_command("ls", bus.name, "--json").json
        (backlog,) = found["backlogs"]
        assert (backlog["group"], backlog["waiting"]) == ("workers", 3)
        ran = shmbus_command("describe", "-b", bus.name, "busy")
        assert "in the backlog of group workers  3, the oldest for" in ran.out
        ran = shmbus_command("route", "-b", bus.name, "job")
        assert ran.code == 0
        assert "if free first" in ran.out
        assert "not free: 1 of at most 1 untouched and in hand" in ran.out
        ran = shmbus_command("top", bus.name, "--once", "--interval", "0.05")
        assert "backlog of group workers: 3 waiting, the oldest for" in ran.out
        go_on.set()
        eventually(lambda: all(not b.waiting for b in bus.backlogs()))
        assert "BACKLOG" not in shmbus_command("ls", bus.name).out


# Large payloads ---------------------------------------------------------------------------------


def test_who_holds_how_much_of_whose_pool_is_told_by_each_command(shmbus_command: Command) -> None:
    with ExitStack() as stack:
        bus = BusByHand(stack, f"look-{secrets.token_hex(4)}")
        camera, tracker = camera_on(bus), bus.endpoint(1, "tracker")
        tracker.hold(camera, 2 << 20, 1 << 20)
        tracker.up["loans"], tracker.up["copied"] = 8, 5
        camera.up["pool_need"] = 1
        for command in (["ls", bus.name], ["health", bus.name], ["describe", "-b", bus.name]):
            ran = shmbus_command(*command)
            (row,) = (line for line in ran.lines if "(2: 3 MiB)" in line and "!" not in line)
            assert row.split()[:3] == ["camera", "6", "MiB"]
            assert row.endswith("4, now  tracker (2: 3 MiB)")
            pools = shmbus_command(*command, "--json").json
            pools = pools[0]["pools"] if command[0] == "ls" else pools["pools"]
            assert pools[0]["holders"] == [{"endpoint": "tracker", "count": 2, "bytes": 3 << 20}]
        ran = shmbus_command("describe", "-b", bus.name, "tracker")
        assert "camera (2: 3 MiB); 8 payloads at most, 5 copied" in ran.out
        ran = shmbus_command("describe", "-b", bus.name, "camera")
        assert "6 MiB in use, 12 MiB taken of 64 MiB; waited for 4 times, waits for" in ran.out
        ran = shmbus_command("mem", bus.name)
        assert next(line for line in ran.lines if "camera" in line).endswith("12 MiB, 9%")


def test_who_has_not_taken_what_is_told_though_nobody_waits(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with bus.attach("camera") as camera, bus.attach("display") as display:
        display.subscribe("frame")
        camera.publish("frame", bytes(300_000))
        for command in (
            ["ls", bus.name],
            ["health", bus.name, "--over", "0.01"],
            ["describe", "-b", bus.name],
            ["describe", "-b", bus.name, "camera"],
        ):
            ran = shmbus_command(*command)
            assert "not taken by display (1: 293 KiB)" in ran.out


@pytest.fixture
def joined(bus_name: str) -> Iterator[str]:
    """The name of a bus that a link joins to others."""
    with ExitStack() as stack:
        bus = BusByHand(stack, bus_name)
        link_on(bus)
        bus.endpoint(1, "camera")
        yield bus_name


@pytest.mark.smoke
def test_ls_shows_other_sites_and_who_is_there(joined: str, shmbus_command: Command) -> None:
    ran = shmbus_command("ls", joined)
    here, there = ran.out.split("  @link joins this bus to space lan, as site berlin")
    assert "camera " in here
    assert "@paris" not in here
    rows = [line.split() for line in there.splitlines()]
    assert ["camera@paris", "7", "pc7", "shoot", "light.>"] in rows
    assert ["calc@rome", "8", "-", "calc.add", "light.>"] in rows
    sites = {row[0]: row for row in rows if len(row) > 8}
    assert sites["paris"][5:7] == ["20.0", "ms"]
    assert "+-200.0 µs" in there
    assert sites["oslo"][2] == "down"
    assert "nothing is heard of it" in there
    (found,) = shmbus_command("ls", joined, "--json").json
    assert [e["site"] for e in found["endpoints"]] == [None, None, "paris", "rome"]
    assert [(s["name"], s["state"]) for s in found["sites"]] == [
        ("berlin", "here"),
        ("oslo", "down"),
        ("paris", "up"),
        ("rome", "up"),
    ]


def test_describe_says_what_is_known_of_an_endpoint_elsewhere(
    joined: str, shmbus_command: Command
) -> None:
    ran = shmbus_command("describe", "-b", joined, "camera@paris")
    assert ran.lines[0] == "camera@paris"
    for fact in ("7 on pc7", "up, 20.0 ms there and back, space lan", "handles shoot"):
        assert fact in ran.out
    assert "subscribes light.>, group lights" in ran.out
    assert "calc.add" in shmbus_command("describe", "-b", joined, "calc@rome").out
    assert "slot, generation" in shmbus_command("describe", "-b", joined, "camera").out
    ran = shmbus_command("describe", "-b", joined)
    assert "ENDPOINT ELSEWHERE" in ran.out
    assert "Adds." in ran.out


def test_route_says_which_site_gets_a_request(joined: str, shmbus_command: Command) -> None:
    ran = shmbus_command("route", "-b", joined, "calc.add")
    assert "calc@rome" in ran.out
    assert "the only site, over @link" in ran.out
    ran = shmbus_command("route", "-b", joined, "light.on", "--json")
    chosen = [(r["endpoint"], r["site"]) for r in ran.json["receivers"] if r["chosen"]]
    assert chosen == [("calc@rome", "rome"), ("camera@paris", "paris")]


def test_health_shows_the_sites(joined: str, shmbus_command: Command) -> None:
    ran = shmbus_command("health", joined, "--over", "1ms")
    assert "oslo" in ran.out
    assert "camera@paris" not in ran.out
    found = shmbus_command("health", joined, "--over", "1ms", "--json").json
    assert [s["name"] for s in found["sites"]] == ["berlin", "oslo", "paris", "rome"]
