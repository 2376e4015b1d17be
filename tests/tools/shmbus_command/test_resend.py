"""Dead letters: as sub shows them, and sent anew."""

from __future__ import annotations

import base64
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import shmbus
from shmbus.testing import eventually

from .conftest import Ran

Command = Callable[..., Ran]
DEAD = "$bus.undeliverable"


@pytest.fixture
def source(bus: shmbus.Bus) -> Iterator[shmbus.Endpoint]:
    with bus.attach("source") as endpoint:
        yield endpoint


@pytest.fixture
def letters(
    bus: shmbus.Bus, source: shmbus.Endpoint, shmbus_command: Command
) -> Callable[..., Ran]:
    """Make dead letters of commands, and print them with sub."""

    def letters(*messages: tuple[str, Any], flags: tuple[str, ...] = ("--json",)) -> Ran:
        def send() -> None:
            eventually(lambda: bus.find(DEAD))
            with bus.attach() as other:
                other.wait_for(DEAD, timeout=60)
            for type, payload in messages:
                source.send(type, payload)

        thread = threading.Thread(target=send)
        thread.start()
        count = str(len(messages))
        ran = shmbus_command("sub", "-b", bus.name, DEAD, "--lossless", "--count", count, *flags)
        thread.join()
        assert ran.code == 0
        return ran

    return letters


def letter(**facts: Any) -> str:
    """A line as sub prints it."""
    whole: dict[str, Any] = {
        "type": "job",
        "kind": "send",
        "source": "x",
        "reason": "it died",
    }
    whole |= {"attempt": 1, "format": "msgpack", "size": 1, "payload_base64": "Bw==", **facts}
    return msgspec.json.encode({"type": DEAD, "payload": whole}).decode() + "\n"


def test_sub_shows_what_was_in_a_dead_letter(letters: Callable[..., Ran]) -> None:
    messages = [("a.map", {"k": [1]}), ("a.bytes", b"\0\1"), ("a.none", None), ("a.key", {b"k": 1})]
    documents = [msgspec.json.decode(line)["payload"] for line in letters(*messages).lines]
    assert [d["payload"] for d in documents] == [{"k": [1]}, None, None, {"aw==": 1}]
    assert documents[1]["payload_base64"] == base64.b64encode(b"\0\1").decode()
    assert "payload_base64" not in documents[2]
    lines = letters(*messages, flags=()).lines
    assert lines[0].endswith('a.map send from source: nobody handles it: {"k":[1]}')
    assert lines[1].endswith("nobody handles it: <2 bytes: 00 01>")
    assert lines[2].endswith("a.none send from source: nobody handles it")


def test_a_command_is_sent_anew_byte_for_byte(
    bus: shmbus.Bus, letters: Callable[..., Ran], shmbus_command: Command, tmp_path: Path
) -> None:
    odd = msgspec.Raw(b"\xdc\x00\x02\x01\xd9\x01x")  # longer than it would have to be
    file = tmp_path / "letters"
    file.write_text(letters(("job.a", odd), ("job.b", b"\0\xff"), ("job.c", None)).out)
    with bus.attach("worker") as worker:
        got: list[Any] = []
        worker.handle("job.*", lambda m: got.append((m.type, m.kind, m.payload, m.size)))
        worker.start()
        ran = shmbus_command("resend", "-b", bus.name, file)
        assert (ran.code, ran.err) == (0, "shmbus resend: 3 resent\n")
        assert ran.lines[0].startswith("resent: send job.a from source, 7 bytes (nobody handles")
        eventually(lambda: len(got) == 3)
    assert got == [
        ("job.a", "send", [1, "x"], 7),
        ("job.b", "send", b"\0\xff", 2),
        ("job.c", "send", None, 0),
    ]


def test_a_command_with_an_array_is_shown_and_sent_anew(
    bus: shmbus.Bus, letters: Callable[..., Ran], shmbus_command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "letters"
    file.write_text(letters(("job.a", {"x": np.arange(31, 34, dtype=">u2")})).out)
    document = msgspec.json.decode(file.read_text())["payload"]
    assert (document["format"], document["payload"]) == ("framed", {"x": [31, 32, 33]})
    with bus.attach("worker") as worker:
        got: list[Any] = []
        worker.handle("job.*", lambda m: got.append(m.payload["x"]))
        worker.start()
        assert shmbus_command("resend", "-b", bus.name, file).code == 0
        eventually(lambda: len(got) == 1)
    assert (got[0].dtype, got[0].tolist()) == (np.dtype(">u2"), [31, 32, 33])
    shown = letters(("job", np.arange(3, dtype=np.uint8)), flags=())
    assert shown.lines[0].endswith("uint8 (3,): 0 1 2")


def test_an_event_of_a_group_reaches_all_who_subscribe(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "letters").write_text(letter(kind="event", type="job.todo"))
    with bus.attach("member") as member, bus.attach("other") as other:
        member.subscribe("job.*", group="workers")
        other.subscribe(">")
        assert shmbus_command("resend", "-b", bus.name, tmp_path / "letters").code == 0
        for endpoint in (member, other):
            message = endpoint.receive(60)
            assert message is not None
            assert (message.kind, message.payload) == ("event", 7)


def test_what_was_not_taken_again_is_named(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path
) -> None:
    cut = {"size": 5000, "type": "cut"}
    broken = {"format": "framed", "type": "broken"}
    (tmp_path / "letters").write_text(
        letter(type="nobody")
        + letter(type="quiet", kind="event")
        + letter(**cut)
        + letter(kind="request", type="asked")
        + letter(type="a..b")
        + letter(**broken)
        + '{"type": "$bus.lost", "payload": {}}\n\n{"type": "other"}\n'
        + '{"error": {"class": "BusDown"}}\n'  # with which sub ended
    )
    ran = shmbus_command("resend", "-b", bus.name, tmp_path / "letters", "--json")
    found = [msgspec.json.decode(line) for line in ran.lines]
    assert (ran.code, ran.err) == (1, "shmbus resend: 0 resent, 6 not\n")
    assert {f["outcome"] for f in found} == {"not_resent"}
    for one, why in zip(
        found,
        (
            "it is a dead letter again",
            "nobody subscribes to it",
            "only 1 of 5000 bytes of its payload are in the letter",
            "it was a request, and its caller has got an error",
            "'a..b' is not a message type",
            "its payload cannot be read",
        ),
        strict=True,
    ):
        assert why in one["why"]


def test_what_is_to_be_resent_is_chosen_and_may_be_looked_at_first(
    shmbus_command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "letters"
    file.write_text(
        letter(type="job.a") + letter(type="job.b.c", reason="too large") + letter(type="other")
    )

    def chosen(*flags: str) -> list[str]:
        ran = shmbus_command("resend", file, "--dry-run", "--json", *flags)
        assert (ran.code, ran.err) == (0, "")
        return [msgspec.json.decode(line)["type"] for line in ran.lines]

    assert chosen() == ["job.a", "job.b.c", "other"]
    assert chosen("--type", "job.*") == ["job.a"]
    assert chosen("--type", "job.>") == ["job.a", "job.b.c"]
    assert chosen("--type", "*") == ["other"]
    assert chosen("--reason", "large") == ["job.b.c"]
    assert shmbus_command("resend", file, "--type", "a.>.b").code == 2
    ran = shmbus_command("resend", file, "--rate", "nan")
    assert (ran.code, ran.out) == (2, "")
    assert "'nan' is not a number" in ran.err


def test_a_letter_that_it_sent_itself_goes_round_no_more(
    bus: shmbus.Bus, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come() -> Iterator[bytes]:
        yield letter(type="nobody").encode()
        mine = next(e.name for e in bus.endpoints() if e.name.startswith("shmbus-resend"))
        yield letter(type="nobody", source=mine).encode()

    class Piped(io.BytesIO):
        def __iter__(self) -> Any:
            return come()

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Piped()))
    ran = shmbus_command("resend", "-b", bus.name, "-")
    assert ran.code == 1
    assert "this command has sent it already" in ran.lines[1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("oops\n", "line 1 of"),
        ("\n[1]\n", "line 2 of"),
        (letter(kind="reply"), "Invalid enum value 'reply'"),
        (letter(payload_base64="!"), "payload_base64"),
        ('{"type": "x", "payload": ' + "[" * 100_000 + "]" * 100_000 + "}", "recursion"),
        ("{}", "missing required field `type`"),
    ],
)
def test_what_are_no_dead_letters_is_told(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path, content: str, expected: str
) -> None:
    (tmp_path / "letters").write_text(content)
    ran = shmbus_command("resend", "-b", bus.name, tmp_path / "letters")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert expected in ran.err
    assert "as shmbus sub --json prints it" in ran.err


def test_resend_without_a_bus_or_a_file(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "letters").write_text(letter())
    assert shmbus_command("resend", "-b", "no-such-bus", tmp_path / "letters").code == 3
    assert shmbus_command("resend", "-b", bus.name, tmp_path / "none").code == 2
