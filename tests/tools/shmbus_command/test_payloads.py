"""Payloads on a command line: MessagePack, words that are replaced, and what is printed of them."""

from __future__ import annotations

import datetime
import io
import random
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from shmbus_command.concatenated import Values

import shmbus

from .conftest import Ran

Command = Callable[..., Ran]


@pytest.fixture
def seen(bus: shmbus.Bus) -> Iterator[shmbus.Endpoint]:
    """An endpoint that gets everything."""
    with bus.attach("seen") as endpoint:
        endpoint.subscribe(">")
        yield endpoint


@pytest.fixture
def pub(bus: shmbus.Bus, shmbus_command: Command) -> Command:
    """Publish, and expect that it succeeds unless the exit code is given."""

    def pub(*arguments: object, code: int = 0) -> Ran:
        ran = shmbus_command("pub", "-b", bus.name, *arguments)
        assert (ran.code, ran.err.count("\n")) == (code, 1 if code else 0)
        return ran

    return pub


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Let standard input be these bytes."""
    return lambda content: monkeypatch.setattr(
        sys,
        "stdin",
        io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))),
    )


def got(seen: shmbus.Endpoint, count: int) -> list[Any]:
    return [message.payload for message in seen.receive_many(count, 60)]


# MessagePack ------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, 0, -1, 127, 128, -33, 1 << 40, -(1 << 40), 1.5, "", "x" * 31, "x" * 300,
    "x" * 70_000, b"", b"\xff" * 300, b"y" * 70_000, [], [1] * 15, [[]] * 300, [0] * 70_000, {},
    {"a": {"b": [1, {}]}}, {n: n for n in range(300)}, dict.fromkeys(range(66000), 0),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), msgspec.msgpack.Ext(5, b"x"),
    msgspec.msgpack.Ext(5, b"x" * 7), msgspec.msgpack.Ext(5, b"x" * 300),
    msgspec.msgpack.Ext(5, b"x" * 70_000),
]  # fmt: skip


def test_values_of_every_form_are_cut_apart_wherever_the_pieces_end() -> None:
    encoded = list(map(msgspec.msgpack.encode, VALUES))
    encoded += [b"\xca\0\0\0\0", b"\xd4\5x", b"\xd5\5xx", b"\xd6\5xxxx", b"\xd7\5" + b"x" * 8]
    encoded += [b"\xd8\5" + b"x" * 16, b"\xd0\x80", b"\xd1\x80\0", b"\xd2\x80\0\0\0"]
    found: list[bytes] = []
    stream, values, chance = b"".join(encoded), Values(), random.Random(7)
    while stream:
        size = chance.choice([1, 2, 3, 50, 5000, 100_000])
        found += values.feed(stream[:size])
        stream = stream[size:]
    assert found == encoded
    assert values.rest == 0


def test_each_value_of_the_standard_input_is_a_message_of_its_own(
    pub: Command, seen: shmbus.Endpoint, piped: Callable[[bytes], None]
) -> None:
    piped(msgspec.msgpack.encode({"n": 1}) + msgspec.msgpack.encode(b"x") + b"\xc0")
    pub("a", "-", "--as", "msgpack")
    assert got(seen, 3) == [{"n": 1}, b"x", None]


def test_messagepack_from_a_file_is_passed_on_byte_for_byte(
    pub: Command, seen: shmbus.Endpoint, tmp_path: Path
) -> None:
    content = b"\xdc\x00\x02\x01\xd9\x01x"  # longer than it would have to be
    (tmp_path / "value").write_bytes(content)
    pub("a", f"@{tmp_path}/value", "--as", "msgpack")
    message = seen.receive(60)
    assert message is not None
    assert (message.payload, message.size) == ([1, "x"], len(content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x01\x92\x01", "ends within value 2, 2 bytes after it began"),
        (b"\x01\xc1", "value 2 of the standard input is not MessagePack"),
        (b"\xa1\xff", "value 1 of the standard input is not one value of MessagePack"),
    ],
)
def test_what_is_not_messagepack_is_told_with_where_it_is(
    pub: Command, piped: Callable[[bytes], None], content: bytes, expected: str
) -> None:
    piped(content)
    assert expected in pub("a", "-", "--as", "msgpack", code=2).err


def test_several_values_where_one_is_expected_are_told_how_to_be_sent(
    pub: Command, tmp_path: Path
) -> None:
    (tmp_path / "two").write_bytes(b"\x01\x02")
    ran = pub("a", f"@{tmp_path}/two", "--as", "msgpack", code=2)
    assert "or - for several" in ran.err


def test_json_over_several_lines_is_told_how_to_be_sent(
    pub: Command, piped: Callable[[bytes], None]
) -> None:
    piped(b'1\n{\n "a": 1}\n')
    ran = pub("a", "-", code=2)
    assert "line 2 of the standard input is not JSON" in ran.err
    assert "jq -c" in ran.err


# Words that are replaced ------------------------------------------------------------------------


def test_words_are_replaced_in_each_message_before_it_is_read_as_json(
    pub: Command, seen: shmbus.Endpoint
) -> None:
    payload = '{"n": {{count}}, "at": "{{ time }}", "id": "{{uuid}}"}'
    before = datetime.datetime.now(datetime.UTC)
    pub("a", payload, "--count", 3)
    found = got(seen, 3)
    assert [f["n"] for f in found] == [1, 2, 3]
    assert len({uuid.UUID(f["id"]) for f in found}) == 3
    times = [datetime.datetime.fromisoformat(f["at"]) for f in found]
    assert before <= times[0] <= times[1] <= times[2]
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", f["at"]) for f in found)


def test_words_are_replaced_in_text_and_bytes_too(pub: Command, seen: shmbus.Endpoint) -> None:
    pub("a", "no. {{count}}", "--as", "text", "-n", 2)
    pub("a", "no. {{count}}", "--as", "bytes")
    assert got(seen, 3) == ["no. 1", "no. 2", b"no. 1"]


def test_what_comes_from_elsewhere_is_replaced_only_where_that_is_asked_for(
    pub: Command, seen: shmbus.Endpoint, tmp_path: Path, piped: Callable[[bytes], None]
) -> None:
    (tmp_path / "page").write_text("{{count}} {{other}}")
    pub("a", f"@{tmp_path}/page", "--as", "text")
    piped(b"{{uuid}}\n")
    pub("a", "-", "--as", "text")
    piped(b"{{count}}\n{{count}}\n")
    pub("a", "-", "--template", "--count", 2)
    assert got(seen, 6) == ["{{count}} {{other}}", "{{uuid}}", 1, 2, 3, 4]


def test_an_unknown_word_is_told_with_those_there_are_and_how_to_send_it(
    pub: Command, seen: shmbus.Endpoint
) -> None:
    ran = pub("a", "{{Count}}", "--as", "text", code=2)
    assert "unknown word {{Count}}; known are {{count}}, {{time}}, {{uuid}}" in ran.err
    pub("a", "{{Count}}", "--as", "text", "--no-template")
    pub("a", "{{1 + 1}} }}{{", "--as", "text")  # no words
    assert got(seen, 2) == ["{{Count}}", "{{1 + 1}} }}{{"]
    assert "--template is for" in pub("a", "x", "--as", "msgpack", "--template", code=2).err


# What is printed --------------------------------------------------------------------------------


@pytest.fixture
def echo(bus: shmbus.Bus) -> Iterator[None]:
    with bus.attach("server") as server:
        server.handle("echo", lambda message: message.payload)
        server.start()
        yield


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a\tb\n", "--as", "bytes"], "a\tb\n"),
        (["text", "--as", "text"], "text"),
        (['{"a": [1]}'], '{"a":[1]}'),
        (["null"], ""),  # the same as none
        ([], ""),
        (["x", "--as", "text", "-n", 2, "-D", r"\x41\n\0\t\\"], "xA\n\0\t\\xA\n\0\t\\"),
    ],
)
def test_raw_prints_what_came_and_nothing_else(
    bus: shmbus.Bus, echo: None, shmbus_command: Command, arguments: list[Any], expected: str
) -> None:
    ran = shmbus_command("request", "-b", bus.name, "echo", *arguments, "--raw")
    assert (ran.code, ran.out, ran.err) == (0, expected, "")


@pytest.mark.parametrize("arguments", [["--raw", "--json"], ["--delimiter", "x"]])
@pytest.mark.parametrize("command", [["sub"], ["request", "a"]])
def test_options_that_exclude_each_other_are_refused(
    bus: shmbus.Bus, shmbus_command: Command, command: list[str], arguments: list[str]
) -> None:
    assert shmbus_command(*command, "-b", bus.name, *arguments).code == 2


@pytest.mark.bus(pool_bytes=65536)
def test_a_payload_too_large_is_told_with_the_option_that_helps(
    pub: Command, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1_000_000)
    ran = pub("a", f"@{tmp_path}/large", "--as", "bytes", code=1)
    assert "serve the bus with --pool-bytes 1048576" in ran.err
    assert "Settings" not in ran.err


def test_bytes_of_the_command_line_that_are_no_text_arrive_as_they_are(
    pub: Command, seen: shmbus.Endpoint
) -> None:
    pub("a", "\udcff\udc80", "--as", "bytes")
    assert got(seen, 1) == [b"\xff\x80"]
    assert "is not UTF-8" in pub("a", "\udcff", "--as", "text", code=2).err
