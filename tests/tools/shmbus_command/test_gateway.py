"""gateway: a bus for programs in other languages."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import secrets
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from shmbus_command.app import shmbus as shmbus_group
from shmbus_command.gateway import lines
from shmbus_command.gateway.listening import listen
from shmbus_console.run import Failure

import shmbus
from shmbus import Message
from shmbus.testing import BusProcess, eventually
from shmbus.testing.leavings import of_this_process

from .conftest import COMMAND, Ran, Start

LONGEST = 4096


class Client:
    """A program in another language, as far as the gateway sees it."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self._lines = self.socket.makefile("rb")
        self._ids = itertools.count(1000)

    def write(self, text: str | bytes) -> None:
        self.socket.sendall(text if isinstance(text, bytes) else text.encode() + b"\n")

    def say(self, op: str, **rest: Any) -> None:
        self.write(json.dumps({"op": op, **rest}))

    def read(self) -> Any:
        """The next line; None where there is no further."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def ask(self, op: str, **rest: Any) -> Any:
        """Say it, and return what the next line answers."""
        identity = next(self._ids)
        self.say(op, id=identity, **rest)
        answer = self.read()
        assert answer.pop("id") == identity
        return answer

    def do(self, op: str, **rest: Any) -> None:
        """What succeeds, and has no other answer."""
        assert self.ask(op, **rest) == {"ok": True}

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Gateway:
    """One that listens, beside a bus that this process serves."""

    def __init__(self, bus: shmbus.Bus, path: Path) -> None:
        self.bus, self.path = bus, path

    def connect(self, name: str = "client", **options: Any) -> Client:
        client = Client(self.path)
        answer = client.ask("attach", name=name, **options)
        assert answer == {"ok": True, "bus": self.bus.name, "name": name}
        return client


def started(bus: str, path: Path) -> subprocess.Popen[bytes]:
    """A gateway that listens."""
    process = subprocess.Popen(
        [*COMMAND, "gateway", "-b", bus, "--socket", path, "--longest", str(LONGEST)],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"shmbus gateway: bus ")
    return process


def ended(process: subprocess.Popen[bytes], by: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Its exit code, and what it said."""
    process.send_signal(by)
    _, said = process.communicate(timeout=60)
    return process.returncode, said.decode()


@pytest.fixture(scope="module")
def one_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    path = tmp_path_factory.mktemp("gateway") / "bus.sock"
    name = f"test-gateway-{os.getpid()}-{secrets.token_hex(4)}"
    with shmbus.serve(name, settings=shmbus.Settings(reply_bytes=16384, pool_bytes=4096)) as bus:
        process = started(bus.name, path)
        yield Gateway(bus, path)
        assert ended(process) == (0, "")


@pytest.fixture
def gateway(one_gateway: Gateway) -> Iterator[Gateway]:
    before = of_this_process()
    yield one_gateway
    eventually(lambda: of_this_process() <= before, "its endpoints have gone")


def hanging(held: list[Message]) -> Callable[[Message], None]:
    """A handler that never answers."""

    def hang(message: Message) -> None:
        message.defer()
        held.append(message)

    return hang


def asked(endpoint: shmbus.Endpoint, type: str, payload: object = None) -> Future[Message]:
    return endpoint.request_async(type, payload, timeout=60)


@pytest.mark.smoke
def test_a_program_publishes_subscribes_asks_and_answers(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        python.subscribe("from.client", lambda message: python.publish("from.python", [1, None]))
        python.handle("twice", lambda message: message.payload * 2)
        python.start()
        client.do("subscribe", pattern="from.python")
        client.do("handle", pattern="greet")
        client.say("publish", type="from.client")
        event = client.read()
        assert (event["type"], event["payload"], event["source"]) == (
            "from.python",
            [1, None],
            "python",
        )
        assert client.ask("request", type="twice", payload=4)["payload"] == 8
        reply = asked(python, "greet", {"name": "Ada"})
        shown = client.read()
        assert (shown["kind"], shown["payload"]) == ("request", {"name": "Ada"})
        client.say("reply", message=shown["message"], payload="hello Ada")
        assert reply.result(60).payload == "hello Ada"


def test_who_attaches_to_no_name_gets_one_with_the_first_line(gateway: Gateway) -> None:
    with Client(gateway.path) as client:
        client.do("subscribe", pattern="a")
        (endpoint,) = gateway.bus.endpoints()
        assert endpoint.name.startswith("shmbus-gateway-")
        assert client.ask("attach", name="late")["error"]["class"] == "BadLine"


# Lines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{oops", "Write one object on one line"),
        (b"\xff\xfe", "Write one object on one line"),
        (b'{"op": "publish", "type": "a", "payload": ' + b"[" * 3000, "Write one object"),
        (b"[]", "shmbus gateway --help"),
        (b'{"op": "publsh", "id": "x"}', "publsh"),
        (b'{"op": "publish", "tpe": "a", "id": "x"}', "tpe"),
        (b'{"op": "publish", "id": "x"}', "type"),
        (b'{"op": "request", "type": "a"}', "id"),
        (b'{"op": "publish", "type": "a", "timeout": "5", "id": "x"}', "timeout"),
        (b'{"op": "publish", "type": "a", "id": 1.5}', "int"),
        (b'{"op": "publish", "type": "a", "payload_base64": "?", "id": "x"}', "base64"),
        (
            b'{"op": "publish", "type": "a", "payload": 1, "payload_base64": "", "id": "x"}',
            "one of",
        ),
        (b'{"op": "publish", "type": "a..b", "id": "x"}', "not a message type"),
        (b'{"op": "publish", "type": "a", "payload": "' + b"x" * LONGEST + b'"}', "--longest"),
        (b'{"op": "done", "message": 7, "id": "x"}', "not in hand"),
        (b'{"op": "cancel", "request": 7, "id": "x"}', "no request 7"),
        (b'{"op": "unsubscribe", "pattern": "a", "id": "x"}', "does not subscribe"),
        (b'{"op": "more", "n": 1, "id": "x"}', "credit"),
        (b'{"op": "subscribe", "pattern": "a", "depth": -1, "id": "x"}', "depth"),
    ],
)
def test_a_bad_line_is_answered_with_what_is_wrong_and_harms_no_other(
    gateway: Gateway, line: bytes, says: str
) -> None:
    with gateway.connect() as client:
        client.write(b"\n" + line + b"\n")
        answer = client.read()
        assert answer["line"] == 3
        assert says in answer["error"]["message"]
        assert answer.get("id") == ("x" if b'"x"' in line else None)
        client.do("publish", type="a")


def test_a_line_without_end_takes_no_memory_and_is_one_bad_line(gateway: Gateway) -> None:
    with gateway.connect() as client:
        for _ in range(100):
            client.write(b"x" * LONGEST)
        client.write(b"\n")
        assert client.read()["line"] == 2
        client.do("publish", type="a")


def test_each_line_that_the_help_shows_is_one() -> None:
    command = shmbus_group.get_command(None, "gateway")  # type: ignore[arg-type]
    assert command is not None
    assert command.help is not None
    shown = re.findall(r'^ *(\{"op".*?\})(?:   .*)?$', command.help, re.MULTILINE)
    said = [lines.read(line.encode()) for line in shown]
    assert {type(line) for line in said} == set(lines.AnyLine.__args__)


def test_bytes_are_base64_both_ways(gateway: Gateway) -> None:
    given = bytes(range(256))
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        python.handle("echo", lambda message: message.payload)
        python.start()
        encoded = base64.b64encode(given).decode()
        answer = client.ask("request", type="echo", payload_base64=encoded)
        assert (answer["payload"], answer["payload_base64"]) == (None, encoded)


def test_what_a_program_sends_goes_in_its_order(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        got: list[Any] = []
        python.subscribe("a")
        python.handle("b", lambda message: got.append(message.payload))
        text = ""
        for number in range(0, 200, 2):
            text += json.dumps({"op": "request", "id": number, "type": "b", "payload": number})
            text += "\n" + json.dumps({"op": "publish", "type": "a", "payload": number + 1}) + "\n"
        client.write(text.rstrip("\n"))
        for message in python:
            got.append(message.payload)
            if message.payload == 199:
                break
        assert got == list(range(200))
        assert {client.read()["id"] for _ in range(100)} == set(range(0, 200, 2))


# Requests ---------------------------------------------------------------------------------------


def test_a_failed_request_says_why_under_its_id(gateway: Gateway) -> None:
    def fail(message: Message) -> None:
        raise ValueError("not today")

    held: list[Message] = []
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        python.handle("fails", fail)
        python.handle("hangs", hanging(held))
        python.start()
        error = client.ask("request", type="nobody")["error"]
        assert (error["class"], error["facts"]) == ("NoRoute", {"type": "nobody"})
        error = client.ask("request", type="fails")["error"]
        assert (error["class"], error["facts"]["error"]) == ("RemoteError", "ValueError")
        error = client.ask("request", type="hangs", timeout=0.01)["error"]
        assert error["class"] == "RequestTimeout"
        client.say("request", id=1, type="hangs", timeout=60)
        assert client.ask("request", type="nobody")["error"]["class"] == "NoRoute"
        client.say("cancel", request=1)
        answer = client.read()
        assert (answer["id"], answer["error"]["class"]) == (1, "Cancelled")


def test_a_reply_in_parts_is_a_line_each_and_an_end(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        python.handle("count", lambda message: (n for n in range(message.payload)))
        python.start()
        client.say("stream", id="s", type="count", payload=3)
        assert [client.read()["payload"] for _ in range(3)] == [0, 1, 2]
        assert client.read() == {"id": "s", "ok": True}


def test_a_program_gives_a_reply_in_parts_as_fast_as_they_are_taken(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        client.do("handle", pattern="count")
        with python.stream("count", timeout=60) as parts:
            number = client.read()["message"]
            client.say("part", id=1, message=number, payload="a")
            assert next(parts).payload == "a"
            assert client.read() == {"id": 1, "ok": True}
            client.say("part", message=number, payload="b")
            assert (
                "no payload" in client.ask("reply", message=number, payload=1)["error"]["message"]
            )
            client.do("reply", message=number)
            assert [part.payload for part in parts] == ["b"]
        with python.stream("count", timeout=60) as parts:
            number = client.read()["message"]
            client.say("part", message=number, payload="a")
            client.do("error", message=number, name="EOFError", text="torn")
            with pytest.raises(shmbus.RemoteError, match="EOFError: torn"):
                list(parts)
        with python.stream("count", timeout=60) as parts:
            number = client.read()["message"]
            client.say("part", message=number, payload="a")
            next(parts)
        assert client.read() == {"withdrawn": number}
        reply = asked(python, "count")
        number = client.read()["message"]
        client.say("part", id=2, message=number, payload="to whom asked for none")
        assert isinstance(reply.exception(60), shmbus.RemoteError)
        first, second = client.read(), client.read()
        assert (first["id"], second) == (2, {"withdrawn": number})
        assert "nobody waits" in first["error"]["message"]


def test_parts_that_nobody_takes_do_not_pile_up(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python:
        with gateway.connect() as client:
            client.do("handle", pattern="count")
            with python.stream("count", timeout=60) as parts:
                number = client.read()["message"]
                for _ in range(300):
                    client.say("part", message=number, payload="x" * 2000)
                assert "64 parts wait" in client.read()["error"]["message"]
                assert next(parts).payload == "x" * 2000
                client.close()
                with pytest.raises(shmbus.EndpointDied):
                    list(parts)


def test_each_part_is_answered_also_where_who_asked_takes_no_more(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        client.do("handle", pattern="count")
        with python.stream("count", timeout=60) as parts:
            number = client.read()["message"]
            for part in range(200):
                client.say("part", id=part, message=number, payload="x" * 2000)
            answers = [client.read()]
            while "error" not in answers[-1]:
                answers.append(client.read())
            next(parts)
        while answers[-1] != {"withdrawn": number}:
            answers.append(client.read())
        client.say("publish", id="last", type="b")
        while answers[-1].get("id") != "last":
            answers.append(client.read())
        assert {line.get("id") for line in answers} == {*range(200), None, "last"}


def test_a_program_answers_with_an_error_of_its_own_name(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        client.do("handle", pattern="a")
        reply = asked(python, "a")
        number = client.read()["message"]
        assert "is a request" in client.ask("done", message=number)["error"]["message"]
        client.do("error", message=number, name="KeyError", text="no such key")
        problem = reply.exception(60)
        assert isinstance(problem, shmbus.RemoteError)
        assert (problem.error, problem.message) == ("KeyError", "no such key")
        assert "not in hand" in client.ask("reply", message=number)["error"]["message"]


def test_a_program_is_told_when_nobody_waits_for_its_answer_any_more(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        client.do("handle", pattern="a")
        reply = asked(python, "a")
        number = client.read()["message"]
        reply.cancel()
        assert client.read() == {"withdrawn": number}
        assert "not in hand" in client.ask("reply", message=number)["error"]["message"]


def test_a_program_that_reads_late_is_told_of_each_request_that_was_withdrawn(
    gateway: Gateway,
) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        client.do("handle", pattern="a")
        replies = [asked(python, "a", "x" * 100_000) for _ in range(10)]
        eventually(lambda: python.bus.endpoints()[1].in_hand == 10)
        for reply in replies:
            reply.cancel()
        eventually(lambda: python.bus.endpoints()[1].in_hand == 0)
        client.say("publish", id="last", type="b")
        shown: list[Any] = []
        withdrawn: list[Any] = []
        while (line := client.read()).get("id") != "last":
            (withdrawn if "withdrawn" in line else shown).append(line)
        assert [line["withdrawn"] for line in withdrawn] == [line["message"] for line in shown]


def test_a_reply_that_is_too_large_is_told_to_both(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        client.do("handle", pattern="a")
        reply = asked(python, "a")
        answer = client.ask("reply", message=client.read()["message"], payload=480 * [1e300])
        assert "pool_bytes" in str(answer["error"])
        assert isinstance(reply.exception(60), shmbus.RemoteError)
        client.do("publish", type="a")


def test_a_program_gets_all_elements_of_an_array(gateway: Gateway) -> None:
    large = np.asfortranarray(np.arange(1026, dtype=">i2").reshape(2, 513))
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        client.do("subscribe", pattern="a")
        python.publish("a", {"small": large[:, :2], "large": large})
        payload = client.read()["payload"]
    assert payload["small"] == [[0, 1], [513, 514]]
    found = payload["large"]
    elements = np.frombuffer(base64.b64decode(found["base64"]), found["dtype"])
    assert (elements.reshape(found["shape"]) == large).all()


# Work in hand -----------------------------------------------------------------------------------


def test_a_command_and_a_groups_message_are_in_hand_until_they_are_done(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect(window=2) as client:
        client.do("handle", pattern="do")
        client.do("subscribe", pattern="job", group="workers")
        for number in (0, 2):
            python.send("do", number)
            python.publish("job", number + 1)
        shown = [client.read() for _ in range(2)]
        client.do("publish", type="a")  # nothing else is shown before one is done
        for _ in range(2):
            client.say("done", message=shown[-2]["message"])
            shown.append(client.read())
        client.do("done", message=shown[-2]["message"])
        client.do("done", message=shown[-1]["message"])
        assert {line["payload"] for line in shown} == {0, 1, 2, 3}


def test_what_is_given_back_or_in_hand_at_the_end_goes_to_another(gateway: Gateway) -> None:
    with gateway.bus.attach("other") as other, gateway.connect() as client:
        client.do("subscribe", pattern="job", group="workers")
        other.publish("job", "given back")
        other.publish("job", "in hand")
        first, second = client.read(), client.read()
        other.subscribe("job", group="workers")
        client.do("nack", message=first["message"], reason="busy")
        message = other.receive(60)
        assert message is not None
        assert (message.payload, message.redelivered) == ("given back", True)
        assert second["payload"] == "in hand"
        client.close()
        message = other.receive(60)
        assert message is not None
        assert (message.payload, message.redelivered) == ("in hand", True)


def test_a_message_in_hand_for_two_groups_is_given_back_once_for_both(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        for group in ("left", "right"):
            client.do("subscribe", pattern="job", group=group)
        python.publish("job", 1)
        numbers = [client.read()["message"] for _ in range(2)]
        for number in numbers:
            client.say("nack", id=-number, message=number)
        answers: dict[int, Any] = {}
        while len(answers) < 2:
            line = client.read()  # it comes once more, since there is no other
            if "id" in line:
                answers[-line["id"]] = line
        assert answers[numbers[0]] == {"id": -numbers[0], "ok": True}
        assert answers[numbers[1]]["error"]["class"] == "CannotNack"


def test_who_asked_a_program_that_ends_is_told_that_it_has_gone(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python:
        with gateway.connect() as client:
            client.do("handle", pattern="a")
            reply = asked(python, "a")
            client.read()
        problem = reply.exception(60)
        assert isinstance(problem, shmbus.EndpointDied)
        assert (problem.endpoint, problem.begun) == ("client", True)


def test_a_program_that_says_no_more_still_gets_its_replies(gateway: Gateway) -> None:
    held: list[Message] = []
    with gateway.bus.attach("python") as python, gateway.connect() as client:
        python.handle("a", hanging(held))
        python.start()
        client.say("request", id=1, type="a", timeout=60)
        client.socket.shutdown(socket.SHUT_WR)
        with gateway.connect("other") as other:  # behind whose lines the gateway has seen that
            for _ in range(3):
                other.do("publish", type="b")
        eventually(lambda: held)
        held.pop().reply(1)
        assert client.read()["payload"] == 1
        assert client.read() is None


def test_a_program_that_is_gone_leaves_its_requests_and_what_it_said_is_done(
    gateway: Gateway,
) -> None:
    held: list[Message] = []
    with gateway.bus.attach("python") as python:
        python.subscribe("a")
        python.handle("hangs", hanging(held))
        with gateway.connect() as client:
            client.say("request", id=1, type="hangs", timeout=3600)
            client.write("\n".join(['{"op": "publish", "type": "a"}'] * 1000))
        for _ in range(1000):
            assert python.receive(60) is not None


# Flow -------------------------------------------------------------------------------------------


def test_with_credit_a_program_gets_as_many_as_it_asks_for(gateway: Gateway) -> None:
    with gateway.bus.attach("python") as python, gateway.connect(credit=0) as client:
        client.do("subscribe", pattern="a")
        for number in range(5):
            python.publish("a", number)
        eventually(lambda: not python.bus.endpoints()[0].unforwarded)
        client.do("publish", type="b")  # it has shown none before that
        client.say("more", n=2)
        assert [client.read()["payload"] for _ in range(2)] == [0, 1]
        client.do("publish", type="b")
        client.say("more", n=3)
        assert [client.read()["payload"] for _ in range(3)] == [2, 3, 4]


def test_a_program_that_does_not_read_holds_up_nobody(gateway: Gateway) -> None:
    with (
        gateway.bus.attach("python") as python,
        gateway.connect("slow") as slow,
        gateway.connect("quick") as quick,
    ):
        slow.do("subscribe", pattern="a", overflow="latest")
        quick.do("subscribe", pattern="a")
        for number in range(400):
            python.publish("a", [number, "x" * 4000])
            assert quick.read()["payload"][0] == number
        got = [slow.read()]
        while got[-1]["payload"][0] != 399:
            got.append(slow.read())
        assert sum(line.get("lost", 0) for line in got) == 400 - len(got) > 0


# Sockets and streams ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_socket_is_its_users_alone_and_that_of_a_killed_gateway_is_replaced(
    bus: shmbus.Bus, tmp_path: Path, shmbus_command: Callable[..., Ran]
) -> None:
    path = tmp_path / "bus.sock"
    first = started(bus.name, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = Gateway(bus, path).connect()
    second = shmbus_command("gateway", "-b", bus.name, "--socket", path)
    assert second.code == 1
    assert "somebody listens" in second.err
    first.kill()
    first.communicate(timeout=60)
    assert client.read() is None
    client.close()
    eventually(lambda: bus.endpoints() == [])
    third = started(bus.name, path)
    with Gateway(bus, path).connect() as client:
        client.do("publish", type="a")
        assert ended(third, signal.SIGINT) == (0, "")
        assert client.read() is None
    assert not path.exists()


def test_of_two_gateways_that_start_at_once_neither_takes_the_others_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bus.sock"
    monkeypatch.setattr("shmbus_command.gateway.listening.PATIENCE", 0.1)
    listens = socket.socket.listen
    refused: list[str] = []

    def listen_late(self: socket.socket, backlog: int) -> None:
        if not refused:
            with pytest.raises(Failure) as caught, listen(path):
                pass
            refused.append(str(caught.value))
        listens(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", listen_late)
    with listen(path) as first:
        assert "another gateway" in refused[0]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            first.accept()[0].close()
        with pytest.raises(Failure, match="somebody listens"), listen(path):
            pass


def test_where_no_socket_can_be_it_says_so_and_leaves_what_is_there(
    bus: shmbus.Bus, tmp_path: Path, shmbus_command: Callable[..., Ran]
) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    for where, why in (
        (path, "is no socket"),
        (tmp_path / "no" / "s", "No such file"),
        (tmp_path / ("x" * 108), "too long"),
    ):
        ran = shmbus_command("gateway", "-b", bus.name, "--socket", where)
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert why in ran.err
    assert path.read_text() == "mine"


@pytest.mark.slow
def test_files_and_pipes_do_as_standard_streams(bus: shmbus.Bus, tmp_path: Path) -> None:
    given, taken = tmp_path / "in", tmp_path / "out"
    with bus.attach("python") as python:
        python.handle("twice", lambda message: message.payload * 2)
        python.start()
        said = [{"op": "request", "id": n, "type": "twice", "payload": n} for n in range(3)]
        given.write_text("\n".join(map(json.dumps, said)))
        command = [*COMMAND, "gateway", "-b", bus.name]
        with given.open() as stdin, taken.open("w") as stdout:
            assert subprocess.run(command, stdin=stdin, stdout=stdout, timeout=60).returncode == 0
        answers = [json.loads(line) for line in taken.read_text().splitlines()]
        assert {line["id"]: line["payload"] for line in answers} == {0: 0, 1: 2, 2: 4}


@pytest.mark.slow
def test_it_ends_when_nobody_reads_any_more_at_ctrl_c_and_with_its_bus(
    bus_process: BusProcess, start: Start
) -> None:
    unread, told, stuck = (start("gateway", "-b", bus_process.name) for _ in range(3))
    with shmbus.attach(bus_process.name) as python, shmbus.observe(bus_process.name) as bus:
        for process in (unread, told, stuck):
            assert process.stdin is not None
            process.stdin.write('{"op": "attach", "id": 1}\n')
            process.stdin.flush()
            assert process.stdout is not None
            assert '"ok":true' in process.stdout.readline()
        assert unread.stdout is not None
        unread.stdout.close()
        assert unread.wait(60) == 141
        assert stuck.stdin is not None
        stuck.stdin.write('{"op": "subscribe", "pattern": "a", "overflow": "latest"}\n')
        stuck.stdin.flush()
        python.wait_for("a", timeout=60)
        for _ in range(20):
            python.publish("a", "x" * 50_000)
        stuck.send_signal(signal.SIGINT)
        assert stuck.wait(60) == 0
        python.close()
        eventually(lambda: [endpoint.pid for endpoint in bus.endpoints()] == [told.pid])
    bus_process.stop()
    assert told.wait(60) == 3
    assert told.stdout is not None
    assert json.loads(told.stdout.read())["error"]["class"] == "BusDown"


@pytest.mark.slow
def test_a_program_goes_on_where_the_dispatcher_is_killed(
    bus_process: BusProcess, tmp_path: Path
) -> None:
    process = started(bus_process.name, tmp_path / "s")
    with Client(tmp_path / "s") as client:
        client.do("handle", pattern="a")
        bus_process.restart()
        with shmbus.attach(bus_process.name, timeout=60) as python:
            python.wait_for("a", timeout=60)
            reply = asked(python, "a")
            client.say("reply", message=client.read()["message"], payload=7)
            assert reply.result(60).payload == 7
    assert ended(process) == (0, "")
