"""Processes that the first message starts: it is kept, and delivered once."""

from __future__ import annotations

import os
import signal

import pytest

import shmbus
from shmbus.supervisor import Backoff, Line
from shmbus.supervisor.child import Child
from shmbus.testing import eventually
from tests.supervisor.conftest import Supervise, handler, of, python, shell

ONCE = """
    import shmbus
    with shmbus.attach(name="once") as endpoint:
        endpoint.handle("job", lambda message: print(message.payload))
        endpoint.start()
        endpoint.request("done", timeout=60)
        endpoint.drain()
"""


@pytest.mark.smoke
def test_the_first_message_starts_it_and_is_answered(supervise: Supervise) -> None:
    supervisor = supervise(handler("echo", start="first message", on=("echo",)))
    assert supervisor.wait_started(timeout=30)
    asleep = of(supervisor, "echo")
    assert (asleep.state, asleep.pid) == ("asleep", None)
    with supervisor.bus.attach("client") as client:
        futures = [client.request_async("echo", timeout=30) for _ in range(3)]
        pids = {future.result().payload for future in futures}
        assert pids == {of(supervisor, "echo").pid}
        eventually(lambda: not [e for e in supervisor.bus.endpoints() if "stand-in" in e.name])
        assert client.request("echo", timeout=30).payload in pids


@pytest.mark.slow
@pytest.mark.parametrize("handled", [("a.>",), ("a.x", "a.y")])
def test_the_first_message_is_kept_until_its_process_handles_it(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, handled: tuple[str, ...]
) -> None:
    code = f"""
        import time, shmbus
        with shmbus.attach(name="slow") as endpoint:
            for pattern in {handled}:
                time.sleep(0.2)
                endpoint.handle(pattern, lambda message: "done")
            endpoint.run()
    """
    supervisor = supervise(python("slow", code, start="first message", on=("a.>",)))
    assert supervisor.wait_started(timeout=30)
    with supervisor.bus.attach("other") as other, supervisor.bus.attach("client") as client:
        if handled == ("a.>",):  # another one handles a part of that, too
            monkeypatch.setattr("shmbus.supervisor.stand_in.SETTLED", 0.0)
            other.handle("a.x", lambda message: None)
            other.start()
        assert client.request("a.y", timeout=30).payload == "done"


@pytest.mark.slow
def test_what_its_process_handles_is_handled_and_what_it_does_not_is_told(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shmbus.supervisor.loop._PATIENCE", 0.0)
    monkeypatch.setattr("shmbus.supervisor.stand_in.LONGEST", 0.5)
    supervisor = supervise(handler("half", "a", start="first message", on=("a", "b")))
    assert supervisor.wait_started(timeout=30)
    with supervisor.bus.attach("client") as client:
        first, second = client.request_async("a", timeout=30), client.request_async("b", timeout=30)
        eventually(lambda: "nothing of 'a', 'b' yet" in of(supervisor, "half").reason)
        assert first.result().payload == of(supervisor, "half").pid
        with pytest.raises(shmbus.EndpointDied):
            second.result()
    assert of(supervisor, "half").reason == "it came to handle nothing of 'b'"
    assert [r.levelname for r in caplog.records if "nothing of 'a', 'b'" in r.message] == [
        "WARNING"
    ]


@pytest.mark.slow
def test_commands_are_kept_and_each_is_done_once(supervise: Supervise, lines: list[Line]) -> None:
    supervisor = supervise(python("once", ONCE, start="first message", on=("job",)))
    assert supervisor.wait_started(timeout=30)
    with supervisor.bus.attach("client") as client:
        done: list[shmbus.Message] = []

        @client.handle("done")
        def finish(message: shmbus.Message) -> None:
            message.defer()
            done.append(message)

        client.start()
        for number in range(20):
            client.send("job", number)
        eventually(lambda: len(lines) == 20)
        eventually(lambda: done)[0].reply()
        eventually(lambda: of(supervisor, "once").state == "asleep")  # it ended with 0
        assert sorted(int(line.text) for line in lines) == list(range(20))
        client.send("job", 20)
        eventually(lambda: len(lines) == 21)
        eventually(lambda: len(done) == 2)
        done[1].reply()
        eventually(lambda: of(supervisor, "once").state == "asleep")


@pytest.mark.slow
def test_the_message_waits_while_it_dies_before_it_has_attached(
    supervise: Supervise, tmp_path: object
) -> None:
    code = f"""
        import os, shmbus
        if not os.path.exists("{tmp_path}/second"):
            open("{tmp_path}/second", "w").close()
            os._exit(1)
        with shmbus.attach(name="weak") as endpoint:
            endpoint.handle("weak", lambda message: "done")
            endpoint.run()
    """
    supervisor = supervise(python("weak", code, start="first message", on=("weak",)))
    with supervisor.bus.attach("client") as client:
        client.wait_for("weak", timeout=30)
        assert client.request("weak", timeout=30).payload == "done"


def test_a_caller_gets_an_error_when_it_is_given_up(supervise: Supervise) -> None:
    supervisor = supervise(
        python(
            "bad",
            "raise SystemExit(1)",
            start="first message",
            on=("bad",),
            backoff=Backoff(limit=1),
        )
    )
    with supervisor.bus.attach("client") as client:
        client.wait_for("bad", timeout=30)
        with pytest.raises(shmbus.EndpointDied) as caught:
            client.request("bad", timeout=30)
        assert not caught.value.begun
    assert of(supervisor, "bad").state == "failed"


def test_a_caller_gets_an_error_when_the_kernel_keeps_it(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = shell("lazy", "exec sleep 1000", start="first message", on=("a",), stop_timeout=0.0)
    supervisor = supervise(lazy)
    with supervisor.bus.attach("client") as client:
        client.wait_for("a", timeout=30)
        future = client.request_async("a", timeout=30)
        pid = eventually(lambda: of(supervisor, "lazy").pid)
        with monkeypatch.context() as patch:  # as where it waits in a driver: no signal ends it
            patch.setattr(Child, "send", lambda child, number: None)
            supervisor.restart("lazy")
            eventually(lambda: of(supervisor, "lazy").state == "failed")
        with pytest.raises(shmbus.EndpointDied):
            future.result()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: of(supervisor, "lazy").pid not in (None, pid))


@pytest.mark.slow
def test_one_that_is_killed_is_started_again_at_once(supervise: Supervise) -> None:
    supervisor = supervise(handler("echo", start="first message", on=("echo",)))
    with supervisor.bus.attach("client") as client:
        client.wait_for("echo", timeout=30)
        pid = client.request("echo", timeout=30).payload
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: of(supervisor, "echo").restarts == 1)
        client.wait_for("echo", timeout=30)
        assert client.request("echo", timeout=30).payload != pid


@pytest.mark.slow
def test_nothing_is_refused_while_it_is_restarted(supervise: Supervise) -> None:
    supervisor = supervise(handler("echo", start="first message", on=("echo",)))
    assert supervisor.wait_started(timeout=30)
    with supervisor.bus.attach("client") as client:
        pid = client.request("echo", timeout=30).payload
        supervisor.restart("echo")
        while client.request("echo", timeout=30).payload == pid:
            pass
        supervisor.stop("echo")
        supervisor.start("echo")
        client.wait_for("echo", timeout=30)
        assert client.request("echo", timeout=30).payload != pid
