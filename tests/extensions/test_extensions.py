"""The example host: what an extension does harms neither the host nor another extension."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from extensions import found
from extensions.host import MOST, Host
from extensions.installed import make_known

from shmbus.errors import EndpointDied, RequestTimeout
from shmbus.supervisor import ProcessStatus
from shmbus.testing import eventually

SAMPLES = Path(__file__).resolve().parents[2] / "examples/extensions/samples"

Start = Callable[..., Host]


@pytest.fixture(autouse=True)
def _known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples are installed, as far as anybody sees."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_known(SAMPLES, tmp_path)


@pytest.fixture
def words_and(bus_name: str) -> Iterator[Start]:
    """Start a host with `words` and others: `words_and("lies")`. At the end `words` is as it
    was."""
    hosts: list[Host] = []

    def start(*others: str) -> Host:
        extensions = [each for each in found.installed() if each.name in ("words", *others)]
        assert len(extensions) == 1 + len(others)
        hosts.append(Host(bus_name, extensions, output=lambda line: None))
        hosts[0].edit("to be or not to be")
        assert hosts[0].ask("words", "count", timeout=60) == 6
        return hosts[0]

    yield start
    for host in hosts:
        with host:
            assert host.ask("words", "count", timeout=60) == 6
            assert status(host, "words").restarts == 0


def status(host: Host, name: str) -> ProcessStatus:
    return next(each for each in host.supervisor.status() if each.name == name)


def tells(host: Host, count: int) -> bool:
    """Whether the host has heard of so many words."""
    return bool(host.said["words"].get("extension.words.counted") == count)


def test_extensions_are_found_without_running_their_code() -> None:
    names = [process.name for process in found.processes(found.installed())]
    assert names == ["broken", "crashes", "floods", "hangs", "lies", "varies", "words"]
    assert not [name for name in sys.modules if name.startswith("symphony_samples")]


@pytest.mark.slow
def test_one_that_ends_before_it_has_attached_is_given_up(words_and: Start) -> None:
    host = words_and("broken")
    eventually(lambda: status(host, "broken").state == "failed")
    assert "3 restarts" in status(host, "broken").reason
    assert "half of me" in host.supervisor.logs("broken")[-1].text


@pytest.mark.slow
def test_of_one_that_crashes_who_asked_is_told_and_it_runs_again(words_and: Start) -> None:
    host = words_and("crashes")
    before = host.ask("crashes", "ping", timeout=60)
    with pytest.raises(EndpointDied):
        host.ask("crashes", "now", timeout=60)
    assert host.ask("crashes", "ping", timeout=60) != before
    assert status(host, "crashes").signal == "SIGABRT"


@pytest.mark.slow
def test_one_that_hangs_is_started_anew(words_and: Start) -> None:
    host = words_and("hangs")
    assert host.supervisor.logs("words") == []  # Python had nothing to complain about
    before = host.ask("hangs", "ping", timeout=60)
    with pytest.raises(RequestTimeout):
        host.ask("hangs", "now", timeout=0.05)
    assert host.ask("hangs", "ping", timeout=60) != before


@pytest.mark.slow
def test_one_that_floods_loses_its_own_messages_alone(words_and: Start) -> None:
    host = words_and("floods")
    eventually(lambda: host.said["floods"].get("extension.floods.noise", [0])[0] > 1000)
    for count in range(1, 50):
        host.edit("word " * count)
        assert host.ask("words", "count", timeout=60) == count
        eventually(partial(tells, host, count))
    host.supervisor.stop("floods")
    host.edit("to be or not to be")


@pytest.mark.slow
def test_one_that_floods_with_ever_new_types_takes_no_message_of_another(words_and: Start) -> None:
    host = words_and("varies")
    eventually(lambda: len(host.said["varies"]) == MOST)
    for count in range(1, 20):
        host.edit("word " * count)
        assert host.ask("words", "count", timeout=60) == count
        eventually(partial(tells, host, count))
    assert len(host.said["varies"]) == MOST
    host.supervisor.stop("varies")
    host.edit("to be or not to be")


@pytest.mark.slow
def test_one_that_lies_is_refused_whatever_it_tries(words_and: Start) -> None:
    host = words_and("lies")
    came = host.ask("lies", "attempts", timeout=60)
    assert len(came) == 9
    held = {came.pop("attach as another"), came.pop("attach as the host")}
    assert held <= {"Forbidden", "NameTaken"}
    assert set(came.values()) == {"Forbidden"}
    (liar,) = (each for each in host.supervisor.bus.endpoints() if each.name == "lies")
    assert liar.forbidden >= 4
