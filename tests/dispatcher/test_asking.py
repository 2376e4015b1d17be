"""Asking the host who may attach: in time, and without holding up anybody else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

import shmbus
from ringbuf import Segment
from shmbus import Candidate, Grant, errors
from shmbus.dispatcher import asking
from shmbus.shared import layout, names
from shmbus.testing import eventually, run_python, start_python

ATTACH = """
import sys, shmbus
for name in sys.argv[2:]:
    try:
        with shmbus.attach(sys.argv[1], name=name, timeout=60.0):
            print(name, "is in", flush=True)
    except shmbus.BusError as why:
        print(type(why).__name__, why, sep=": ", flush=True)
"""


def attached(bus: str, *names: str) -> list[str]:
    """What becomes of endpoints of these names in another process."""
    return run_python(ATTACH, bus, *names).splitlines()


@pytest.mark.smoke
def test_the_host_sees_who_asks_and_says_no(bus_name: str) -> None:
    asked: list[Candidate] = []

    def decide(candidate: Candidate) -> Grant | None:
        asked.append(candidate)
        if candidate.name == "bad":
            raise shmbus.Forbidden(reason="it is not\nsigned", remedy="Sign it")
        return None

    with shmbus.serve(bus_name, grants=decide) as bus:
        assert attached(bus_name, "good", "bad") == [
            "good is in",
            f"Forbidden: endpoint 'bad' is not admitted on bus '{bus_name}': it is not signed. "
            "Sign it",
        ]
        with bus.attach("mine"):  # of the host's own process
            pass
    assert [candidate.name for candidate in asked] == ["good", "bad"]
    assert asked[0].pid == asked[1].pid
    assert asked[0].command[1:2] == ("-c",)


def answers_with(answer: object) -> Callable[[Candidate], Grant | None]:
    def decide(candidate: Candidate) -> Grant | None:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    return decide


@pytest.mark.parametrize(
    ("answer", "why"),
    [(ValueError("oh"), "it raised an exception"), (True, "it returned a bool")],
    ids=["raises", "no grant"],
)
def test_who_cannot_be_judged_is_refused_and_that_is_logged(
    bus_name: str, answer: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with shmbus.serve(bus_name, grants=answers_with(answer)):
        (line,) = attached(bus_name, "plug")
    assert line.startswith("Refused: ")
    assert why in line
    (logged,) = (r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    assert why in logged
    assert "'plug'" in logged


@pytest.mark.slow
def test_a_host_that_hangs_holds_up_nobody_else(
    bus_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    hangs, go_on = threading.Event(), threading.Event()

    def decide(candidate: Candidate) -> Grant | None:
        if candidate.name == "slow":
            hangs.set()
            assert go_on.wait(60)
        return None

    with shmbus.serve(bus_name, grants=decide) as bus:
        with start_python(ATTACH, bus_name, "slow") as slow:
            assert hangs.wait(60)
            assert attached(bus_name, "other") == ["other is in"]
            line = slow.line()
        assert "has not answered within 1 s" in line
        go_on.set()  # too late
        assert bus.endpoints() == []


def test_many_at_once_are_asked_about_in_turn(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MOST", 2)
    code = """
    import sys, threading, shmbus
    def attach(n):
        shmbus.attach(sys.argv[1], name=f"plug-{n}", timeout=60.0).close()
    threads = [threading.Thread(target=attach, args=[n]) for n in range(8)]
    for each in threads: each.start()
    for each in threads: each.join()
    """
    at_work: set[str] = set()
    most = 0

    def decide(candidate: Candidate) -> Grant | None:
        nonlocal most
        at_work.add(candidate.name)
        most = max(most, len(at_work))
        threading.Event().wait(0.01)
        at_work.discard(candidate.name)
        return None

    with shmbus.serve(bus_name, grants=decide):
        run_python(code, bus_name)
    assert 1 <= most <= 2


def test_a_bus_ends_while_its_host_is_asked(bus_name: str) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def decide(candidate: Candidate) -> Grant | None:
        asked.set()
        go_on.wait(60)
        return None

    with start_python(ATTACH.replace("60.0", "0.5"), bus_name, "plug") as program:
        with shmbus.serve(bus_name, grants=decide):
            assert asked.wait(60)
        go_on.set()
        assert program.line().startswith("AttachTimeout")


def test_who_changes_its_name_meanwhile_is_refused(bus_name: str) -> None:
    over = threading.Event()

    def decide(candidate: Candidate) -> Grant | None:
        if candidate.name == "plug":
            of = names.names_of(bus_name)
            (up,) = names.SHM.glob(f"{of.prefix}up:{candidate.pid}:*")
            head = layout.view(Segment.attach(up.name, writable=True).memory, layout.UP)[0]
            head["name"] = b"host"
            assert over.wait(60)
        return None

    with shmbus.serve(bus_name, grants=decide) as bus:
        (line,) = attached(bus_name, "plug")
        over.set()
        assert bus.endpoints() == []
    assert "changed its name" in line


def test_a_mapping_is_taken_as_it_is(bus_name: str) -> None:
    grants: dict[str, Grant | None] = {"plug": Grant(publish=("a",)), "*": None}
    with shmbus.serve(bus_name, grants=grants):
        grants.clear()
        assert attached(bus_name, "plug", "other") == ["plug is in", "other is in"]


def test_grants_that_cannot_be_are_refused_at_once(bus_name: str) -> None:
    for wrong in (5, {"plug": "all"}):
        with pytest.raises(errors.InvalidSetting, match="grants"):
            shmbus.serve(bus_name, grants=wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidName):
        shmbus.serve(bus_name, grants={"no name": None})


def test_endpoints_that_a_dispatcher_leaves_keep_their_grants(bus_name: str) -> None:
    code = """
    import sys, threading, shmbus
    with shmbus.attach(sys.argv[1], name="plug", reconnect="always"):
        print("in", flush=True)
        threading.Event().wait()
    """
    with start_python(code, bus_name) as plug:
        bus = shmbus.serve(bus_name, grants={"plug": Grant(subscribe=("go",))})
        assert plug.line() == "in"
        bus.close(handover=True)
        with shmbus.serve(bus_name, grants={}) as bus:
            assert [each.grant for each in bus.endpoints()] == [Grant(subscribe=("go",))]
            plug.kill()
            eventually(lambda: bus.endpoints() == [])
