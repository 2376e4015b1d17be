"""How every command ends: exit codes, failures as JSON, and streams that take or give nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
import pytest
from shmbus_command.app import COMMANDS
from shmbus_command.app import shmbus as shmbus_group
from shmbus_console.output import to_json
from shmbus_console.run import run

import shmbus
from shmbus import __main__ as alone
from shmbus import streams
from shmbus.testing import eventually

from .conftest import COMMAND, Ran

Command = Callable[..., Ran]

ON_A_BUS = {
    "call": ["-b", "BUS", "a"],
    "describe": ["-b", "BUS"],
    "gateway": ["-b", "BUS"],
    "get": ["-b", "BUS", "a"],
    "health": ["BUS"],
    "link": ["BUS", "--listen", "tcp/127.0.0.1:0"],
    "logs": ["-b", "BUS"],
    "ls": ["BUS"],
    "pub": ["-b", "BUS", "a"],
    "reload": ["-b", "BUS"],
    "reply": ["-b", "BUS", "a"],
    "request": ["-b", "BUS", "a"],
    "restart": ["-b", "BUS", "a"],
    "route": ["-b", "BUS", "a"],
    "send": ["-b", "BUS", "a"],
    "sub": ["-b", "BUS"],
    "tap": ["-b", "BUS"],
    "top": ["BUS"],
    "mem": ["BUS"],
    "ping": ["paris", "BUS"],
    "types": ["-b", "BUS"],
    "wait": ["-b", "BUS", "a", "--timeout", "0"],
    "worker": ["BUS", "a"],
}
"""How each command that needs a running bus is given one."""

OTHERS = {"bench", "completion", "demo", "doctor", "resend", "serve", "up"}


def test_every_command_is_in_one_of_the_tables() -> None:
    assert set(ON_A_BUS) | OTHERS == set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_option_that_there_is_not_ends_any_command_with_2(
    shmbus_command: Command, command: str
) -> None:
    ran = shmbus_command(command, "--nonsense", "--nonsense")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("command", sorted(ON_A_BUS))
def test_a_missing_bus_ends_any_command_with_3_and_a_name_that_is_none_with_2(
    shmbus_command: Command, command: str
) -> None:
    for bus, code in (("no-such-bus", 3), ("a:b", 2)):
        ran = shmbus_command(command, *(bus if a == "BUS" else a for a in ON_A_BUS[command]))
        assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
        assert f"'{bus}'" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "a:b"],
        ["serve", "x", "--in-bytes", "5"],
        ["up"],
        ["up", "/nowhere.toml"],
        ["serve", "x", "--stall-after", "0"],
        ["doctor", "a:b"],
        ["completion", "ksh"],
        ["demo", "/nowhere"],
        ["bench", "--seconds", "0"],
        ["describe", "nobody"],
        ["route", "a..b"],
        ["tap", "a..b"],
        ["sub", "a.>.b"],
        ["sub", "a", "--group", "no!"],
        ["pub", "$bus.lost"],
        ["send", "*"],
        ["request", ""],
        ["call", "a.b", "c=1"],
        ["call", "a.*"],
        ["reply", "a b"],
        ["pub", os.fsdecode(b"\xff.a")],
        ["ls", "--bus", os.fsdecode(b"\xff")],
        ["nonsense"],
    ],
)
def test_what_was_typed_wrong_ends_with_2(
    bus: shmbus.Bus,
    shmbus_command: Command,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.setenv("SHMBUS_BUS", bus.name)
    ran = shmbus_command(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("arguments", [["a:b"], ["x", "--in-bytes=5"], ["x", "--stall-after=0"]])
def test_without_extras_what_was_typed_wrong_ends_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert alone.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


# Failures as JSON -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "name", "fact"),
    [
        (["ls", "no-such-bus"], 3, "NoSuchBus", ("bus", "no-such-bus")),
        (["request", "nobody.there", "1"], 1, "NoRoute", ("type", "nobody.there")),
        (["request", "deaf", "--timeout", "200ms"], 4, "RequestTimeout", ("endpoint", "deaf")),
        (["request", "fails"], 1, "RemoteError", ("message", "not today")),
        (["send", "nobody.there"], 1, "NoRoute", ("type", "nobody.there")),
        (["pub", "a..b"], 2, "InvalidType", ("type", "a..b")),
        (["pub", "\udcff"], 2, "InvalidType", ("type", "\udcff")),
        (["pub", "a", "{oops"], 2, "UsageError", None),
        (["health", "--over", "soon"], 2, "UsageError", None),
        (["describe", "nobody"], 2, "NoSuchEndpoint", ("endpoint", "nobody")),
    ],
)
def test_with_json_a_failure_is_a_document_on_standard_output(
    bus: shmbus.Bus,
    shmbus_command: Command,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    name: str,
    fact: tuple[str, str] | None,
) -> None:
    monkeypatch.setenv("SHMBUS_BUS", bus.name)

    def fail(message: shmbus.Message) -> None:
        raise ValueError("not today")

    with bus.attach("deaf") as deaf, bus.attach("server") as server:
        deaf.handle("deaf", lambda message: None)
        server.handle("fails", fail)
        server.start()
        ran = shmbus_command(*arguments, "--json")
    error = json.loads(ran.lines[-1])["error"]
    assert (ran.code, error["exit_code"], error["class"], ran.err) == (code, code, name, "")
    assert error["message"]
    assert fact is None or fact in error["facts"].items()


def test_with_json_the_replies_before_a_failure_are_printed(
    bus: shmbus.Bus,
    shmbus_command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"4\n0\n2\n")))
    with bus.attach("server") as server:
        server.handle("half", lambda message: 8 / message.payload)
        server.start()
        ran = shmbus_command("request", "-b", bus.name, "half", "-", "--json")
    first, last = map(msgspec.json.decode, ran.lines)
    assert (ran.code, first["payload"], last["error"]["class"]) == (1, 2.0, "RemoteError")
    assert last["error"]["facts"]["error"] == "ZeroDivisionError"


def test_what_a_handler_raised_is_told_in_its_own_words(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    words = "give bus.route() a timeout=5, or Settings(spin=False)"

    def fail(message: shmbus.Message) -> None:
        raise ValueError(words)

    with bus.attach("server") as server:
        server.handle("fails", fail)
        server.start()
        ran = shmbus_command("request", "-b", bus.name, "fails")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert f"raised ValueError: {words}. Fix it there" in ran.err


def test_a_failure_of_another_command_that_has_an_option_of_that_name_is_a_line(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    ran = shmbus_command("reply", "-b", "no-such-bus", "a", "--", "jq", "--json")
    assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)


@pytest.mark.parametrize("value", [{b"k": 1}, {(1, 2): {3.5: None}}, {"a": [{(): {1}}]}])
def test_what_json_cannot_express_is_printed_as_text(value: Any) -> None:
    assert msgspec.json.decode(to_json(value))


# Streams ----------------------------------------------------------------------------------------


@contextmanager
def closed() -> Iterator[None]:
    """Standard output is closed, as with `>&-`."""
    process: Any = sys
    kept, process.stdout = process.stdout, None
    try:
        yield
    finally:
        if process.stdout is not None:
            os.close(process.stdout.fileno())
        process.stdout = kept


@contextmanager
def full() -> Iterator[None]:
    """Standard output is /dev/full."""
    process: Any = sys
    kept = process.stdout, process.__stdout__
    with open("/dev/full", "w") as file:
        process.stdout = process.__stdout__ = file
        try:
            yield
        finally:
            process.stdout, process.__stdout__ = kept


Ends = Callable[..., tuple[int, str]]


@pytest.fixture
def ends(capfd: pytest.CaptureFixture[str], shmbus_command: Command) -> Ends:
    """Run a command with such a standard output: its exit code and what it told."""

    def run_there(output: Callable[[], Any], *arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        with output():
            code = run(shmbus_group, "shmbus", list(arguments))
        return code, capfd.readouterr().err

    return run_there


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"top"}))  # which hands --help on
def test_help_of_any_command_says_that_standard_output_is_closed(ends: Ends, command: str) -> None:
    code, told = ends(closed, command, "--help")
    assert (code, told) == (1, "shmbus: standard output: Bad file descriptor\n")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_full_disk_below_standard_output_is_told_in_one_line(
    bus: shmbus.Bus, ends: Ends, flags: list[str]
) -> None:
    for command in ("ls", "health", "describe"):
        code, told = ends(full, command, "--bus", bus.name, *flags)
        assert code == 1
        assert told == "shmbus: standard output: No space left on device; free some space there\n"


def test_with_json_a_failure_that_standard_output_does_not_take_is_a_line(ends: Ends) -> None:
    code, told = ends(full, "ls", "no-such-bus", "--json")
    assert code == 3
    assert told.startswith("shmbus: no bus 'no-such-bus' runs")


def test_who_prints_nothing_needs_no_standard_output(bus: shmbus.Bus, ends: Ends) -> None:
    assert ends(closed, "pub", "-b", bus.name, "a", "1") == (0, "")


def test_a_closed_standard_input_is_told(
    bus: shmbus.Bus, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in ("json", "text", "bytes", "msgpack"):
        monkeypatch.setattr(sys, "stdin", None)
        ran = shmbus_command("pub", "-b", bus.name, "a", "-", "--as", form)
        sys.stdin.close()
        assert (ran.code, ran.err) == (1, "shmbus: standard input: Bad file descriptor\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_locale_cannot_express_is_printed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    taken = io.BytesIO()
    streams.prepare()
    stream = io.TextIOWrapper(taken, encoding, errors="shmbus.plain")
    stream.write("5 µs \u2192 \udcff")
    stream.flush()
    micro = {"ascii": b"u", "latin-1": b"\xb5", "utf-8": b"\xc2\xb5"}[encoding]
    arrow = "\u2192".encode() if encoding == "utf-8" else b"\\u2192"
    assert taken.getvalue() == b"5 " + micro + b"s " + arrow + b" \\udcff"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [[*COMMAND, "serve"], [sys.executable, "-P", "-m", "shmbus"]], ids=["serve", "alone"]
)
def test_a_bus_is_served_with_all_streams_closed(bus_name: str, command: list[str]) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    with subprocess.Popen([*shell, *command, bus_name], env={**os.environ, **locale}) as process:
        with shmbus.attach(bus_name, timeout=60) as guest:
            opened = {os.readlink(f"/proc/{process.pid}/fd/{n}") for n in (0, 1, 2)}
            assert opened == {os.devnull}
            guest.publish("a")
        process.terminate()
        assert process.wait(60) == 0


def test_every_help_fits_a_locale_without_unicode() -> None:
    context = click.Context(shmbus_group, info_name="shmbus")
    for name in COMMANDS:
        command = shmbus_group.get_command(context, name)
        assert command is not None
        assert command.get_help(click.Context(command, info_name=name)).isascii()


@pytest.mark.parametrize(
    ("command", "module"),
    [("sub", "receiving"), ("tap", "tapping"), ("types", "flowing"), ("reply", "replying")],
)
def test_ctrl_c_ends_what_goes_on_with_0_from_the_moment_it_has_attached(
    bus: shmbus.Bus,
    shmbus_command: Command,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    module: str,
) -> None:
    def interrupt(who: str, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"shmbus_command.{module}.note", interrupt)
    ran = shmbus_command(command, *(["a"] if command == "reply" else []), "-b", bus.name)
    assert (ran.code, ran.out) == (0, "")
    eventually(lambda: bus.endpoints() == [])
