"""The commands that join buses: what they check, and what they refuse. What links do, see
tests/links."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from shmbus_command.link import pinging
from shmbus_command.link.pinging import measured, summary
from shmbus_command.link.status import table

import shmbus
from shmbus import errors
from shmbus.links import LinkStatus, PeerStatus

from .conftest import Ran

Command = Callable[..., Ran]

FILE = """
site = "berlin"
space = "lan"
connect = ["tcp/127.0.0.1:7447"]
export = ["sensor.>"]
import = ["job.>"]
[[rename]]
local = "sensor"
space = "berlin.sensor"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "link.toml"
    path.write_text(text)
    return path


def test_a_check_says_what_would_leave_and_come_in(shmbus_command: Command, tmp_path: Path) -> None:
    ran = shmbus_command("link", "a", "-c", write(tmp_path, FILE), "--check")
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.lines]
    assert lines[0] == "bus a as site berlin of space lan"
    assert lines[-4:] == [
        "towards any site",
        "leaves sensor.>",
        "comes in job.>",
        "is renamed sensor here, berlin.sensor there",
    ]


def test_a_check_for_scripts_is_a_document_without_passwords(
    shmbus_command: Command, tmp_path: Path
) -> None:
    text = FILE + '[sites.paris]\nexport = []\n[auth]\nuser = "berlin"\npassword = "sesame"\n'
    ran = shmbus_command("link", "a", "-c", write(tmp_path, text), "--check", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert "sesame" not in ran.out
    told = json.loads(ran.out)
    assert (told["bus"], told["site"], told["detection"]) == ("a", "berlin", 2.0)
    to_any, to_paris = told["towards"]
    rename = [{"local": "sensor", "space": "berlin.sensor"}]
    assert to_any == {"site": None, "export": ["sensor.>"], "import": ["job.>"], "rename": rename}
    assert (to_paris["site"], to_paris["export"], to_paris["import"]) == ("paris", [], ["job.>"])
    assert told["problems"] == []


def test_options_override_the_file_and_suffice_without_one(
    shmbus_command: Command, tmp_path: Path
) -> None:
    options = ["--connect", "tcp/127.0.0.1:1", "--export", "a.>", "--export", "b", "--space", "x"]
    options += ["--import", ">", "--rename", "a=c", "--detection", "500ms", "--buffer", "1MiB"]
    options += ["--delivery", "confirmed", "--groups", "local", "--congestion", "block"]
    given = (["--site", "berlin", *options], ["-c", write(tmp_path, FILE), *options])
    alone, with_file = (shmbus_command("link", "a", *each, "--check") for each in given)
    assert alone.code == with_file.code == 0
    assert alone.out == with_file.out
    lines = {" ".join(line.split()) for line in alone.lines}
    assert {"leaves a.> b", "comes in >", "is renamed a here, c there"} <= lines
    assert {"delivery commands and group messages are kept until they are confirmed"} <= lines


def test_a_check_names_what_could_not_work(shmbus_command: Command, tmp_path: Path) -> None:
    options = ["--tls-ca", "/no/ca.pem", "--tls-certificate", "/no/c.pem", "--tls-key", "/no/k.pem"]
    options += ["--listen", "tls/0.0.0.0:0", "--rename", "nothing=x", "--export", "a"]
    ran = shmbus_command("link", "a", "--site", "berlin", *options, "--check")
    assert ran.code == 1
    assert ran.err.count("there is no file /no/") == 3
    assert "[[rename]] local = 'nothing': nothing that crosses begins so" in ran.err


def test_a_link_through_which_nothing_would_cross_is_told_of(shmbus_command: Command) -> None:
    ran = shmbus_command("link", "a", "--site", "b", "--connect", "tcp/127.0.0.1:1", "--check")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "nothing would leave and nothing come in: give export or import" in ran.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--listen", "tcp/0.0.0.0:1"], "insecure = true"),
        (["--listen", "tls/0.0.0.0:1"], "[tls]"),
        (["--listen", "7447"], "tls/192.0.2.7:7447"),
        (["--scout", "--site", "no!"], "site"),
        (["--scout", "--export", "a..b"], "export"),
        (["--scout", "--rename", "a"], "--rename sensor=berlin.sensor"),
        (["--scout", "--buffer", "large"], "16MiB"),
        ([], "would meet nobody"),
    ],
)
def test_what_was_typed_wrong_is_explained_in_a_line(
    shmbus_command: Command, options: list[str], told: str
) -> None:
    ran = shmbus_command("link", "a", *options, "--check")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert told in ran.err


def test_a_bus_without_a_link_has_no_status_and_no_way_to_sites(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    for arguments in (["link", bus.name, "--status"], ["ping", "paris", bus.name, "-n", "1"]):
        ran = shmbus_command(*arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert f"start a link with shmbus link {bus.name}" in ran.err


STATUS = LinkStatus(
    bus="a",
    space="lan",
    site="berlin",
    endpoint="@link",
    run="0" * 16,
    listening=("tcp/127.0.0.1:7447",),
    detection=2.0,
    peers=(
        PeerStatus(site="paris", run="1" * 16, up=True, round_trip=0.0003, sent=7, received=8),
        PeerStatus(site="rome", run="2" * 16, up=False),
    ),
    unreached={"tcp/127.0.0.1:1": "connection refused"},
    refused={"oslo": "2"},
    garbage=3,
)


def test_the_status_is_a_table_of_sites() -> None:
    head, heads, paris, rome, oslo, unreached, dropped = map(click.unstyle, table(STATUS))
    assert head == "bus a is site berlin of space lan, listening at tcp/127.0.0.1:7447"
    assert heads.split()[:2] == ["SITE", "STATE"]
    assert paris.split()[:4] == ["paris", "up", "300.0", "µs"]
    assert rome.split()[:2] == ["rome", "joining"]
    assert "speaks version 2 of the protocol" in oslo
    assert unreached == "  tcp/127.0.0.1:1 is not reached: connection refused"
    assert dropped == "  dropped: 3 frames that no link sends"


def test_a_site_that_goes_meanwhile_is_pinged_on(
    bus: shmbus.Bus, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = errors.NoSuchSite(space="lan", site="paris", there=())
    answers = iter((0.001, gone, 0.002))

    def pinged(*_: object) -> float:
        answer = next(answers)
        if isinstance(answer, float):
            return answer
        raise answer

    monkeypatch.setattr(pinging, "pinged", pinged)
    ran = shmbus_command("ping", "paris", bus.name, "-n", "3", "--interval", "1ms")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines == [
        "paris: 1: 1.0 ms",
        "paris: 2: no answer",
        "paris: 3: 2.0 ms",
        "3 sent, 2 came back, 33% lost; min/avg/max 1.0 ms/1.5 ms/2.0 ms",
    ]


def test_pings_are_summed_up() -> None:
    found = measured("paris", 4, [0.001, 0.003])
    assert (found.received, found.least, found.mean, found.most) == (2, 0.001, 0.002, 0.003)
    assert summary(found) == "4 sent, 2 came back, 50% lost; min/avg/max 1.0 ms/2.0 ms/3.0 ms"
    assert summary(measured("paris", 2, [])) == "2 sent, 0 came back, 100% lost"
