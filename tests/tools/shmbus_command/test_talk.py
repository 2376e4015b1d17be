"""pub, send, request, sub and reply: messages from the shell."""

from __future__ import annotations

import base64
import errno
import os
import re
import signal
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

from .conftest import Ran, Start

Command = Callable[..., Ran]


@pytest.fixture
def seen(bus: shmbus.Bus) -> Any:
    """An endpoint that gets everything."""
    endpoint = bus.attach("seen")
    endpoint.subscribe(">")
    yield endpoint
    endpoint.close()


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ((), None),
        (['{"rev": 7}'], {"rev": 7}),
        (["[1, 2.5, null]"], [1, 2.5, None]),
        (["hello", "--as", "text"], "hello"),
        (["hello", "--as", "bytes"], b"hello"),
    ],
)
def test_a_payload_from_an_argument_arrives_as_it_is_meant(
    bus: shmbus.Bus, seen: shmbus.Endpoint, shmbus_command: Command, arguments: Any, payload: Any
) -> None:
    ran = shmbus_command("pub", "-b", bus.name, "a.b", *arguments)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    message = seen.receive(60)
    assert message is not None
    assert (message.type, message.payload) == ("a.b", payload)


def test_a_payload_from_a_file(
    bus: shmbus.Bus, seen: shmbus.Endpoint, shmbus_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "one.json").write_text('{\n  "a": [1,\n 2]\n}\n')
    assert shmbus_command("pub", "-b", bus.name, "a", f"@{tmp_path}/one.json").code == 0
    assert seen.receive(60).payload == {"a": [1, 2]}  # type: ignore[union-attr]


@pytest.mark.slow
def test_each_line_of_the_standard_input_is_sent_as_it_comes(
    bus: shmbus.Bus, seen: shmbus.Endpoint, start: Start
) -> None:
    process = start("pub", "-b", bus.name, "line", "-")
    assert process.stdin is not None
    for n in range(3):
        process.stdin.write(f'{{"n": {n}}}\n')
        process.stdin.flush()
        assert seen.receive(60).payload == {"n": n}  # type: ignore[union-attr]
    process.stdin.close()
    assert process.wait(60) == 0


def test_count_repeats_and_json_says_how_many(
    bus: shmbus.Bus, seen: shmbus.Endpoint, shmbus_command: Command
) -> None:
    ran = shmbus_command("pub", "-b", bus.name, "a", "1", "--count", 20, "--rate", 5000, "--json")
    assert ran.json["published"] == 20
    assert [m.payload for m in seen.receive_many(20, 60)] == [1] * 20


def test_the_only_bus_may_be_named_by_the_environment(
    bus: shmbus.Bus,
    seen: shmbus.Endpoint,
    shmbus_command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHMBUS_BUS", bus.name)
    assert shmbus_command("pub", "a").code == 0
    assert seen.receive(60) is not None


def test_the_bus_may_be_named_before_the_command(
    bus: shmbus.Bus,
    seen: shmbus.Endpoint,
    shmbus_command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHMBUS_BUS", "no-such-bus")
    assert shmbus_command("-b", bus.name, "pub", "a").code == 0
    assert seen.receive(60) is not None
    assert shmbus_command("--bus", bus.name, "ls", "--json").json[0]["name"] == bus.name
    assert shmbus_command("-b", "no-such-bus", "ls", bus.name).code == 3
    assert shmbus_command("-b", bus.name, "completion", "bash").code == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pub", "a", "{oops"], "PAYLOAD is not JSON"),
        (["pub", "a", "@/nowhere"], "No such file"),
        (["pub"], "Missing argument 'TYPE'"),
        (["pub", "a", "--rate", "0"], "Invalid value for '--rate'"),
        (["sub", "--count", "x"], "Invalid value for '--count'"),
        (
            ["sub", "--timeout", "soon"],
            "'soon' is not a time: write 500ms, 2m, 1h30m or 1.5 (seconds)",
        ),
        (["health", "--over", "2h"], "'2h' is longer than 1h"),
        (["bench", "--seconds", "10ms"], "'10ms' is shorter than 1s"),
        (["serve", "x", "--stall-after", "1.5.5"], "'1.5.5' is not a time"),
        (["nonsense"], "No such command 'nonsense'"),
        (["sub", "--nonsense"], "No such option"),
    ],
)
def test_a_bad_command_line_is_told_in_one_line(
    bus: shmbus.Bus,
    shmbus_command: Command,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.setenv("SHMBUS_BUS", bus.name)
    ran = shmbus_command(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert expected in ran.err
    assert "--help" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["pub", "a..b"], ["request", "*"], ["sub", "a.>.b"], ["reply", "$x.y z"]]
)
def test_a_bad_type_or_pattern_is_told_in_one_line(
    bus: shmbus.Bus, shmbus_command: Command, arguments: list[str]
) -> None:
    command, *rest = arguments
    ran = shmbus_command(command, "-b", bus.name, *rest)
    assert ran.code == 2
    assert rest[0] in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("command", ["pub", "send", "request", "sub", "reply"])
def test_a_missing_bus_is_told_at_once(shmbus_command: Command, command: str) -> None:
    rest = [] if command == "sub" else ["a"]
    ran = shmbus_command(command, "-b", "no-such-bus", *rest)
    assert ran.code == 3
    assert "no bus 'no-such-bus' runs on this machine" in ran.err
    assert ran.err.count("\n") == 1


@pytest.fixture
def served(bus: shmbus.Bus) -> Any:
    """An endpoint that answers."""
    endpoint = bus.attach("server")
    endpoint.handle("echo", lambda message: message.payload)

    def fail(message: shmbus.Message) -> None:
        raise ValueError("not today")

    endpoint.handle("fail", fail)
    endpoint.start()
    yield endpoint
    endpoint.close()


@pytest.mark.smoke
def test_a_request_prints_the_payload_of_the_reply(
    bus: shmbus.Bus, served: shmbus.Endpoint, shmbus_command: Command
) -> None:
    ran = shmbus_command("request", "-b", bus.name, "echo", '{"n": [1, 2]}')
    assert (ran.code, ran.out, ran.err) == (0, '{"n":[1,2]}\n', "")
    ran = shmbus_command("request", "-b", bus.name, "echo", "plain", "--as", "text")
    assert ran.out == "plain\n"
    ran = shmbus_command("request", "-b", bus.name, "echo", "3", "--json")
    assert ran.json["payload"] == 3
    assert ran.json["source"] == "server"
    assert ran.json["seconds"] > 0


def test_a_request_prints_the_parts_of_its_reply_as_they_come(
    bus: shmbus.Bus, served: shmbus.Endpoint, start: Start
) -> None:
    gate = threading.Semaphore(0)

    @served.handle("count")
    def count(message: shmbus.Message) -> Iterator[int]:
        for number in range(message.payload):
            yield number
            gate.acquire(timeout=60)

    request = start("request", "-b", bus.name, "count", "3", "--timeout", "60s")
    assert request.stdout is not None
    for number in range(3):
        assert request.stdout.readline() == f"{number}\n"
        gate.release()
    assert request.wait(60) == 0


def test_a_request_that_fails_says_why_and_how(
    bus: shmbus.Bus, served: shmbus.Endpoint, shmbus_command: Command
) -> None:
    ran = shmbus_command("request", "-b", bus.name, "fail")
    assert ran.code == 1
    assert "raised ValueError: not today" in ran.err
    assert ran.err.count("\n") == 1
    ran = shmbus_command("request", "-b", bus.name, "nobody.there")
    assert ran.code == 1
    assert "no endpoint handles 'nobody.there'" in ran.err
    with bus.attach("deaf") as deaf:
        deaf.handle("silence", lambda message: None)
        ran = shmbus_command("request", "-b", bus.name, "silence", "--timeout", "0.05")
    assert ran.code == 4
    assert "no reply to 'silence'" in ran.err


def test_a_command_is_sent_to_its_handler(bus: shmbus.Bus, shmbus_command: Command) -> None:
    got: list[Any] = []
    handler = bus.attach("handler")
    handler.handle("index.add", lambda message: got.append(message.payload))
    handler.start()
    assert shmbus_command("send", "-b", bus.name, "index.add", '"a.py"', "--wait", "60").code == 0
    eventually(lambda: got == ["a.py"])
    handler.close()


def test_a_command_that_nobody_handles_fails_with_the_remedy(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    ran = shmbus_command("send", "-b", bus.name, "nobody.handles", "1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "shmbus: no endpoint handles 'nobody.handles'. Start one that does, wait for it (--wait), "
        "or see who would get it (shmbus route)\n"
    )
    ran = shmbus_command("send", "-b", bus.name, "nobody.handles", "1", "--count", "3")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "3 of 3 commands of 'nobody.handles' were not taken: no endpoint handles" in ran.err


def test_a_command_that_its_handler_s_ring_does_not_take_reaches_it(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with bus.attach("small", settings=shmbus.Settings(in_bytes=4096, out_bytes=4096)) as small:
        got: list[Any] = []
        small.handle("job", lambda message: got.append(message.payload))
        small.start()
        ran = shmbus_command("send", "-b", bus.name, "job", "--as", "text", "x" * 2000)
        assert (ran.code, ran.out) == (0, "")
        eventually(lambda: got == ["x" * 2000])


def listen(bus: shmbus.Bus, type: str) -> None:
    """Wait until an endpoint would get it."""
    with bus.attach() as endpoint:
        endpoint.wait_for(type, timeout=60)


@pytest.mark.smoke
def test_sub_prints_what_comes_until_it_has_as_many(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    source = bus.attach("source")

    def publish() -> None:
        listen(bus, "a.1")
        source.publish("a.1", {"rev": 7})
        source.publish("a.2", b"\x00\xff")
        source.publish("a.3", "text")

    for flags in ([], ["--json"], ["--raw"]):
        thread = threading.Thread(target=publish)
        thread.start()
        ran = shmbus_command("sub", "-b", bus.name, "a.*", "--count", 3, "--lossless", *flags)
        thread.join()
        assert ran.code == 0
        if flags == ["--json"]:
            found = [msgspec.json.decode(line) for line in ran.lines]
            assert [f["type"] for f in found] == ["a.1", "a.2", "a.3"]
            assert found[0]["payload"] == {"rev": 7}
            assert base64.b64decode(found[1]["payload_base64"]) == b"\x00\xff"
            assert found[2]["source"] == "source"
        elif flags == []:
            assert 'a.1 source {"rev":7}' in ran.lines[0]
            assert "a.2 source <2 bytes: 00 ff>" in ran.lines[1]
            assert 'a.3 source "text"' in ran.lines[2]
        eventually(lambda: not bus.find("a.1"))
    source.close()


@pytest.mark.slow
def test_sub_prints_each_message_at_once_and_ends_with_ctrl_c(
    bus: shmbus.Bus, start: Start
) -> None:
    process = start("sub", "-b", bus.name, "--json")
    assert process.stdout is not None
    listen(bus, "tick")
    with bus.attach("source") as source:
        for n in range(3):
            source.publish("tick", n)
            assert msgspec.json.decode(process.stdout.readline())["payload"] == n
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err == f"shmbus sub: subscribed on {bus.name}\n"


@pytest.mark.slow
def test_sub_ends_quietly_when_its_reader_goes(bus: shmbus.Bus, start: Start) -> None:
    process = start("sub", "-b", bus.name, "tick")
    assert process.stdout is not None
    listen(bus, "tick")
    with bus.attach("source") as source:
        source.publish("tick")
        process.stdout.readline()
        process.stdout.close()
        source.publish("tick")
        assert process.wait(60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == f"shmbus sub: subscribed on {bus.name}\n"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_sub_measures_the_rate(bus: shmbus.Bus, shmbus_command: Command, flags: list[str]) -> None:
    def publish() -> None:
        listen(bus, "tick")
        with bus.attach("source") as source:
            for _ in range(500):
                source.publish("tick")

    thread = threading.Thread(target=publish)
    thread.start()
    ran = shmbus_command("sub", "-b", bus.name, "tick", "--rate", "--count", 500, *flags)
    thread.join()
    assert ran.code == 0
    if flags:
        found = [msgspec.json.decode(line) for line in ran.lines]
        assert sum(f["rate"] > 0 for f in found) >= 1
        assert all(f["lost"] == 0 for f in found)
        assert found[-1]["gap_max"] >= found[-1]["gap_min"] >= 0
    else:
        assert re.match(r"[\d.]+ messages/s  0.0 KiB/s  apart in ms: min .* lost 0", ran.lines[-1])


@pytest.mark.slow
def test_the_end_of_the_bus_ends_sub_with_an_error(bus: shmbus.Bus, start: Start) -> None:
    process = start("sub", "-b", bus.name, "tick")
    listen(bus, "tick")
    bus.close()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "is down" in err
    assert "Traceback" not in err


def tapped(bus: shmbus.Bus, pattern: str) -> bool:
    return any(
        e.routed and (i.role, i.pattern) == ("tap", pattern)
        for e in bus.endpoints()
        for i in e.interests
    )


@pytest.mark.slow
def test_tap_shows_what_passes_between_others(
    bus: shmbus.Bus, served: shmbus.Endpoint, start: Start
) -> None:
    for flags in ([], ["--json"]):
        process = start("tap", "-b", bus.name, "echo", "news.>", "--count", 4, *flags)
        eventually(lambda: tapped(bus, "news.>"))
        with bus.attach("client") as client:
            client.publish("news.today", "rain")
            assert client.request("echo", 41, timeout=60).payload == 41
            client.send("echo", 42)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        lines = out.splitlines()
        if flags:
            found = [msgspec.json.decode(line) for line in lines]
            assert [(f["kind"], f["outcome"], f["target"]) for f in found] == [
                ("event", "nobody", None),
                ("request", "delivered", "server"),
                ("reply", "delivered", "client"),
                ("send", "delivered", "server"),
            ]
            assert found[2]["seconds_since_request"] > found[1]["routing_seconds"] > 0
        else:
            assert "event   news.today client -> - nobody in" in lines[0]
            assert "request echo client -> server in" in lines[1]
            assert "reply   echo server -> client in" in lines[2]
        eventually(lambda: not tapped(bus, "news.>"))


def test_tap_shows_what_a_handler_raised_without_its_traceback(
    bus: shmbus.Bus, served: shmbus.Endpoint, start: Start
) -> None:
    served.handle("div", lambda message: 1 / message.payload)
    process = start("tap", "-b", bus.name, "div", "--count", 2)
    eventually(lambda: tapped(bus, "div"))
    with bus.attach("client") as client, pytest.raises(shmbus.errors.RemoteError):
        client.request("div", 0, timeout=60)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[1].endswith(" ZeroDivisionError: division by zero")


def test_reply_and_request_wait_for_the_bus_where_they_are_told_to(
    bus_name: str, start: Start
) -> None:
    reply = start("reply", "-b", bus_name, "--wait", 60, "--count", 1, "calc.*")
    request = start("request", "-b", bus_name, "--wait", 60, "calc.add", "[1, 2]")
    with shmbus.serve(bus_name):
        out, err = request.communicate(timeout=60)
        assert (out, err, request.returncode) == ("[1,2]\n", "", 0)
        assert reply.wait(60) == 0


def test_request_waits_for_a_handler_and_not_for_a_subscriber(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with bus.attach("subscriber") as subscriber:
        subscriber.subscribe(">")
        ran = shmbus_command("request", "-b", bus.name, "calc.add", "--wait", "0.05")
        assert ran.code == 4
        assert "0 of 1 receivers of 'calc.add' within 0.05 s" in ran.err
        assert ran.err.endswith("or wait longer (--wait)\n")
        assert shmbus_command("pub", "-b", bus.name, "calc.add", "--wait", "60").code == 0


def test_remedies_are_options_and_commands(bus: shmbus.Bus, shmbus_command: Command) -> None:
    ran = shmbus_command("request", "-b", bus.name, "calc.add")
    assert ran.code == 1
    assert ran.err.endswith(
        "Start one that does, wait for it (--wait), or see who would get it (shmbus route)\n"
    )
    assert shmbus_command("sub", "-b", "none").err.endswith("Start it: shmbus serve none\n")


@pytest.mark.parametrize("command", ["sub", "tap"])
def test_fewer_than_were_to_come_in_time_is_told_by_the_exit_code(
    bus: shmbus.Bus, shmbus_command: Command, command: str
) -> None:
    receive = (command, "-b", bus.name, "--timeout", "0.05")
    assert shmbus_command(*receive).code == 0
    ran = shmbus_command(*receive, "--count", "2")
    assert (ran.code, ran.err.splitlines()[1]) == (
        4,
        f"shmbus {command}: 0 of 2 came within 50.0 ms",
    )


def test_a_command_that_fails_over_a_send_is_told_without_our_traceback(
    bus: shmbus.Bus, start: Start
) -> None:
    false = ["--", sys.executable, "-c", "import sys; sys.exit('no such sum')"]
    process = start("reply", "-b", bus.name, "--count", 1, "calc.*", *false)
    with bus.attach("client") as client:
        client.wait_for("calc.add", timeout=60)
        client.send("calc.add", 3)
        _, err = process.communicate(timeout=60)
    assert "ended with 1: no such sum" in err
    assert "Traceback" not in err


def test_a_request_to_all_shows_what_each_of_them_answered(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    with bus.attach("a") as a, bus.attach("b") as b:
        for endpoint, pattern in ((a, "state.get"), (b, "state.*")):
            endpoint.handle(pattern, lambda message, name=endpoint.name: {"name": name})
            endpoint.start()
        ran = shmbus_command("request", "-b", bus.name, "state.get", "--all")
        assert (ran.code, ran.err) == (0, "")
        assert [line.split() for line in ran.out.splitlines()] == [
            ["ENDPOINT", "OUTCOME", "ANSWER"],
            ["a", "replied", '{"name":"a"}'],
            ["b", "replied", '{"name":"b"}'],
        ]
        ran = shmbus_command("request", "-b", bus.name, "state.get", "--all", "--json")
        found = ran.json
        assert found["type"] == "state.get"
        replies = {name: one["reply"]["payload"] for name, one in found["results"].items()}
        assert replies == {"a": {"name": "a"}, "b": {"name": "b"}}


def test_a_request_to_all_of_which_some_do_not_reply_says_which_and_how(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    command = ["request", "-b", bus.name, "ask", "--all", "--timeout", "0.1"]
    with bus.attach("good") as good, bus.attach("hung") as hung, bus.attach("bad") as bad:
        good.handle("ask", lambda message: 1)
        hung.handle("ask", lambda message: None)
        good.start()
        ran = shmbus_command(*command)
        assert ran.code == 4
        hung_line = "hung timed out no reply within 0.1 s, it had not begun"
        assert ran.out.splitlines()[2].split() == hung_line.split()
        assert "1 of 2 endpoints did not reply to 'ask': hung" in ran.err
        assert shmbus_command(*command, "--at-least", "1").code == 0
        bad.handle("ask", lambda message: 1 / 0)
        bad.start()
        ran = shmbus_command(*command, "--json")
        assert ran.code == 1
        results, failure = map(msgspec.json.decode, ran.lines)
        assert results["results"]["bad"]["error"]["class"] == "RemoteError"
        assert failure["error"]["facts"]["failed"] == ["hung", "bad"]
        ran = shmbus_command(*command, "--at-least", "2")
        assert ran.code == 1
        assert "want fewer (--at-least)" in ran.err
        assert "raised" in ran.out
    assert shmbus_command(*command).code == 1  # nobody is there


@pytest.mark.parametrize(
    "wrong", [["--at-least", "1"], ["--all", "--raw"], ["--all", "--at-least", "0"]]
)
def test_options_of_a_request_to_all_that_make_no_sense_are_refused(
    bus: shmbus.Bus, shmbus_command: Command, wrong: list[str]
) -> None:
    assert shmbus_command("request", "-b", bus.name, "ask", *wrong).code == 2


# Files ------------------------------------------------------------------------------------------


def test_a_file_is_published_whole_and_in_pieces(
    bus: shmbus.Bus, seen: shmbus.Endpoint, shmbus_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(content := bytes(range(256)) * 40)
    (tmp_path / "empty").touch()
    ran = shmbus_command("pub", "-b", bus.name, "file", "--file", tmp_path / "a.bin", "--json")
    assert (ran.json["published"], ran.json["bytes"]) == (1, 10240)
    assert seen.receive(60).payload == content  # type: ignore[union-attr]
    piecewise = ("--file", tmp_path / "a.bin", "--chunk", "4K", "-n", 2)
    assert shmbus_command("pub", "-b", bus.name, "file", *piecewise).code == 0
    pieces = [seen.receive(60).payload for _ in range(6)]  # type: ignore[union-attr]
    assert list(map(len, pieces)) == [4096, 4096, 2048] * 2
    assert b"".join(pieces) == content * 2
    assert shmbus_command("pub", "-b", bus.name, "file", "--file", tmp_path / "empty").code == 0
    assert seen.receive(60).payload == b""  # type: ignore[union-attr]
    for wrong, why in (
        (["{}", "--file", tmp_path / "a.bin"], "instead of PAYLOAD"),
        (["--chunk", "1M"], "--chunk is for --file"),
        (["--file", tmp_path / "nowhere"], "No such file"),
        (["--file", tmp_path / "a.bin", "--chunk", "0"], "is not a size"),
    ):
        ran = shmbus_command("pub", "-b", bus.name, "file", *wrong)
        assert ran.code == 2
        assert why in ran.err
        assert not ran.out
    ran = shmbus_command("pub", "-b", bus.name, "file", "--file", "/proc/self/mem")
    assert (ran.code, "/proc/self/mem: Input/output error" in ran.err) == (1, True)


def test_what_comes_by_a_pipe_is_published_whole_and_in_pieces(
    bus: shmbus.Bus,
    seen: shmbus.Endpoint,
    shmbus_command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pub(*more: object) -> Ran:
        end, begin = os.pipe()
        with open(begin, "wb") as pipe:
            pipe.write(content)
        with open(end) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            return shmbus_command("pub", "-b", bus.name, "file", "--file", "-", *more)

    content = bytes(range(256)) * 40
    for pieces, sizes in (((), [10240]), (("--chunk", "4K"), [4096, 4096, 2048])):
        assert pub(*pieces).code == 0
        found = [seen.receive(60).payload for _ in sizes]  # type: ignore[union-attr]
        assert list(map(len, found)) == sizes
        assert b"".join(found) == content
    ran = pub("-n", 2)
    assert ran.code == 2
    assert "standard input cannot be read more than once" in ran.err


def test_a_large_file_is_published_byte_for_byte(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "film").write_bytes(content := bytes(range(256)) * 4096)
    with bus.attach("viewer") as viewer:
        viewer.subscribe("film", payload_type=memoryview)
        ran = shmbus_command("pub", "-b", bus.name, "film", "--file", tmp_path / "film", "--json")
        assert (ran.code, ran.json["bytes"]) == (0, 1 << 20)
        message = viewer.receive(60)
        assert message is not None
        assert (message.size, message.payload) == (1 << 20, content)
        with (tmp_path / "film").open("ab") as film:
            film.truncate(100 << 20)
        ran = shmbus_command("pub", "-b", bus.name, "film", "--file", tmp_path / "film")
        assert ran.code == 1
        assert "--pool-bytes" in ran.err
        assert "--chunk" in ran.err


def test_what_comes_is_written_to_files_in_the_format_that_fits(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "a" / "out"
    frame, column = np.arange(12, dtype=">u2").reshape(3, 4), np.ones(3, bool)
    given = [
        np.tile(frame, (1000, 20)),
        b"\x00\xff",
        "text",
        {"rev": 7},
        {1: b"x"},
        {"a": frame, "file": column, "allow_pickle": column},
        {"camera": "left", "image": np.tile(frame, (1000, 20)), "../b": [{1: column}]},
    ]
    endings = ["npy", "bin", "txt", "json", "msgpack", "npz", "npz"]
    source = bus.attach("source")

    def publish() -> None:
        listen(bus, "cam.1")
        for payload in given:
            source.publish("cam.1", payload)

    for round in (0, 1):
        thread = threading.Thread(target=publish)
        thread.start()
        ran = shmbus_command("sub", "-b", bus.name, "cam.*", "-n", 7, "--lossless", "--out", out)
        thread.join()
        assert ran.code == 0
        assert [Path(line).name for line in ran.lines] == [
            f"cam.1.{7 * round + number:06}.{ending}" for number, ending in enumerate(endings, 1)
        ]
        eventually(lambda: not bus.find("cam.1"))
    source.close()
    assert sorted(file.name for file in out.iterdir())[0] == "cam.1.000001.npy"
    assert len(list(out.iterdir())) == 14
    array = np.load(out / "cam.1.000001.npy")
    assert (array.dtype, array.shape) == (frame.dtype, (3000, 80))
    assert (array[:3, :4] == frame).all()
    assert (out / "cam.1.000009.bin").read_bytes() == b"\x00\xff"
    assert (out / "cam.1.000003.txt").read_text() == "text"
    assert msgspec.json.decode((out / "cam.1.000004.json").read_bytes()) == {"rev": 7}
    assert msgspec.msgpack.decode((out / "cam.1.000005.msgpack").read_bytes()) == {1: b"x"}
    with np.load(out / "cam.1.000006.npz") as columns:
        assert sorted(columns) == ["a", "allow_pickle", "file"]
        assert (columns["allow_pickle"] == column).all()
    with np.load(out / "cam.1.000007.npz") as inside:
        rest = msgspec.msgpack.decode(inside["payload.msgpack"], strict=False)
        assert rest["camera"] == "left"
        assert (inside[rest["image"]["array"]] == np.tile(frame, (1000, 20))).all()
        assert rest["image"]["array"] == "image"
        assert (inside[rest["../b"][0][1]["array"]] == column).all()
        assert not any("/" in name for name in inside)


def test_what_was_printed_is_let_go_of_while_nothing_comes(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path
) -> None:
    let_go = False

    def publish() -> None:
        nonlocal let_go
        listen(bus, "cam")
        source.publish("cam", np.zeros(1 << 18, np.uint8))
        try:
            eventually(lambda: len(list(tmp_path.iterdir())) == 1)
            eventually(lambda: not any(e.holds for e in bus.endpoints()))
            let_go = True
        finally:
            source.publish("cam", 1)

    with bus.attach("source") as source:
        thread = threading.Thread(target=publish)
        thread.start()
        shmbus_command("sub", "-b", bus.name, "cam", "-n", 2, "--lossless", "--out", tmp_path)
        thread.join()
    assert let_go


def test_files_are_not_written_where_they_cannot_be(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        ran = shmbus_command("sub", "-b", bus.name, "--out", out)
        assert ran.code == 2, ran.err
    ran = shmbus_command("sub", "-b", bus.name, "--out", tmp_path, "--raw")
    assert ran.code == 2


def test_a_file_that_could_not_be_written_whole_is_not_there(
    bus: shmbus.Bus, shmbus_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, *_: object, **options: object) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    def publish() -> None:
        listen(bus, "cam")
        source.publish("cam", np.zeros(3))

    monkeypatch.setattr("shmbus_command.to_files.np.save", full)
    with bus.attach("source") as source:
        thread = threading.Thread(target=publish)
        thread.start()
        ran = shmbus_command("sub", "-b", bus.name, "cam", "-n", 1, "--out", tmp_path)
        thread.join()
    assert ran.code == 1
    assert "cam.000001.npy: No space left on device; free some space there" in ran.err
    assert list(tmp_path.iterdir()) == []
