"""reply: requests answered from the shell."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus.testing import eventually

from .conftest import Ran, Start

Command = Callable[..., Ran]
Asking = Callable[..., list[Any]]


@pytest.fixture
def asking(bus: shmbus.Bus) -> Iterator[Asking]:
    """Make requests of `calc.add` once somebody handles it: the replies, or what the errors say."""
    threads: list[threading.Thread] = []
    found: list[Any] = []

    def asking(*payloads: Any) -> list[Any]:
        def ask() -> None:
            with bus.attach("client") as client:
                client.wait_for("calc.add", timeout=60)
                for payload in payloads:
                    try:
                        found.append(client.request("calc.add", payload, timeout=60).payload)
                    except shmbus.BusError as problem:
                        found.append(str(problem))

        threads.append(threading.Thread(target=ask))
        threads[-1].start()
        return found

    yield asking
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("flags", [[], ["--quiet"], ["--json"]])
@pytest.mark.parametrize("command", [[], ["--", "cat"]])
def test_reply_echoes_or_asks_a_command(
    bus: shmbus.Bus, shmbus_command: Command, asking: Asking, command: list[str], flags: list[str]
) -> None:
    found = asking({"a": [1, 2]}, [3])
    ran = shmbus_command("reply", "-b", bus.name, "--count", 2, "calc.*", *flags, *command)
    assert ran.code == 0
    eventually(lambda: found == [{"a": [1, 2]}, [3]])
    if flags == ["--json"]:
        assert [msgspec.json.decode(line)["payload"] for line in ran.lines] == found
    elif flags == ["--quiet"]:
        assert ran.out == ""
    else:
        assert [line.split(" ", 1)[1] for line in ran.lines] == [
            'calc.add client {"a":[1,2]}',
            "calc.add client [3]",
        ]


def test_what_a_command_prints_is_the_reply_as_text_where_it_is_not_json(
    bus: shmbus.Bus, shmbus_command: Command, asking: Asking
) -> None:
    found = asking("some text")
    script = 'read line; echo "$line from $SHMBUS_SOURCE"'
    shmbus_command("reply", "-b", bus.name, "-n", 1, "calc.*", "--", "sh", "-c", script)
    eventually(lambda: found == ["some text from client"])
    latin = asking("")
    shmbus_command("reply", "-b", bus.name, "-n", 1, "calc.*", "--", "printf", r'"\377"')
    eventually(lambda: latin[-1:] == ['"\ufffd"'])


def test_a_command_that_fails_fails_the_request(
    bus: shmbus.Bus, shmbus_command: Command, asking: Asking
) -> None:
    found = asking(None)
    script = 'echo "no $SHMBUS_TYPE from $SHMBUS_SOURCE" >&2; exit 3'
    ran = shmbus_command("reply", "-b", bus.name, "-n", 1, "calc.*", "--", "sh", "-c", script)
    assert ran.code == 0
    eventually(lambda: len(found) == 1)
    assert "sh ended with 3: no calc.add from client" in found[0]


def test_a_command_that_is_not_there_fails_the_request_with_its_name(
    bus: shmbus.Bus, shmbus_command: Command, asking: Asking
) -> None:
    found = asking(None)
    ran = shmbus_command("reply", "-b", bus.name, "-n", 1, "calc.*", "--", "/no/such")
    assert ran.code == 0
    eventually(lambda: len(found) == 1)
    assert "No such file or directory: '/no/such'" in found[0]


@pytest.mark.slow
def test_reply_ends_with_ctrl_c(bus: shmbus.Bus, start: Start) -> None:
    process = start("reply", "-b", bus.name, "calc")
    assert process.stderr is not None
    assert process.stderr.readline() == f"shmbus reply: answering calc on {bus.name}\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
