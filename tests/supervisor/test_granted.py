"""Processes with grants: a name is for its own process alone, which may do what it was granted."""

from __future__ import annotations

import os

import pytest

import shmbus
from shmbus import Grant, errors
from shmbus.supervisor import Grants, Line
from shmbus.testing import eventually, run_python, start_python
from tests.supervisor.conftest import Supervise, handler, of, python

ECHO = Grant(handle=("echo",))

LIAR = """
    import shmbus, time
    try:
        shmbus.attach(name="echo")
    except shmbus.Forbidden as why:
        print(why)
    try:
        shmbus.attach(name="innocent")
    except shmbus.Forbidden as why:
        print(why)
    time.sleep(1000)
"""


@pytest.mark.smoke
def test_who_lies_about_its_name_is_refused_and_the_real_one_attaches(
    supervise: Supervise, lines: list[Line]
) -> None:
    supervisor = supervise(
        python("liar", LIAR, grant=Grant()), handler("echo", grant=ECHO, needs=("lied",))
    )
    eventually(lambda: len(lines) == 2)
    liar = of(supervisor, "liar").pid
    assert f"'echo' of its supervisor, and pid {liar} is not in that" in lines[0].text
    assert f"pid {liar} is in process 'liar'" in lines[1].text
    with supervisor.bus.attach("client") as client:
        client.handle("lied", print)
        client.wait_for("echo", timeout=30)
        assert client.request("echo").payload == of(supervisor, "echo").pid
    echo = next(each for each in supervisor.bus.endpoints() if each.name == "echo")
    assert echo.grant == ECHO


def test_others_of_this_user_attach_by_other_names(supervise: Supervise, bus_name: str) -> None:
    supervise(handler("echo", grant=ECHO, endpoints=("echo", "echo-*")))
    code = """
        import shmbus
        with shmbus.attach(name="tool") as tool:
            tool.wait_for("echo", timeout=30)
            print(tool.request("echo").type)
        try:
            shmbus.attach(name="echo-2")
        except shmbus.Forbidden:
            print("refused")
    """
    assert run_python(code, bus=bus_name).split() == ["echo", "refused"]


@pytest.mark.slow
def test_one_that_was_adopted_attaches_anew(supervise: Supervise, bus_name: str) -> None:
    again = """
        import os, shmbus
        while True:
            try:
                with shmbus.attach(name="echo", timeout=60) as endpoint:
                    endpoint.handle("echo", lambda message: os.getpid())
                    endpoint.run(reconnect=False)
                    break
            except shmbus.Disconnected:
                pass
    """
    host = f"""
        import sys, shmbus
        from tests.supervisor.conftest import python
        echo = python("echo", {again!r}, grant=shmbus.Grant(handle=("echo",)))
        with shmbus.supervise([echo], bus=sys.argv[1]) as supervisor:
            with supervisor.bus.attach("client") as client:
                client.wait_for("echo", timeout=30)
                print(client.request("echo").payload, flush=True)
            supervisor.wait()
    """
    with start_python(host, bus_name) as program:
        pid = int(program.line())
        program.kill()
    supervisor = supervise(python("echo", again, grant=ECHO))
    with supervisor.bus.attach("client") as client:
        client.wait_for("echo", timeout=30)
        retry = shmbus.Retry(attempts=500)
        assert client.request("echo", timeout=30, retry=retry).payload == pid


def test_a_bus_of_the_host_needs_the_grants(supervise: Supervise, bus_name: str) -> None:
    processes = [handler("echo", grant=ECHO)]
    grants = Grants(bus_name, processes)
    with shmbus.serve(bus_name, grants=grants) as bus:
        with pytest.raises(errors.InvalidProcess, match="its bus is served without any"):
            supervise(*processes, bus=bus)
        with supervise(*processes, bus=bus, grants=grants), bus.attach("client") as client:
            client.wait_for("echo", timeout=30)
            client.request("echo")


def test_grants_that_the_bus_does_not_ask_are_refused(
    bus: shmbus.Bus, supervise: Supervise
) -> None:
    processes = [handler("echo", grant=ECHO)]
    grants = Grants(bus.name, processes)
    with pytest.raises(errors.InvalidSetting, match="is served without any"):
        supervise(*processes, bus=bus, grants=grants)
    with pytest.raises(errors.InvalidSetting, match=f"for bus '{bus.name}', not for 'another'"):
        supervise(*processes, bus="another", grants=grants)


def test_grants_have_the_processes_that_are_supervised(supervise: Supervise, bus_name: str) -> None:
    grants = Grants(bus_name, [])
    with shmbus.serve(bus_name, grants=lambda candidate: grants(candidate)) as bus:
        with supervise(handler("echo", grant=ECHO), bus=bus, grants=grants):
            with bus.attach("client") as client:
                client.wait_for("echo", timeout=30)
            echo = next(each for each in bus.endpoints() if each.name == "echo")
            assert echo.grant == ECHO


def test_who_has_left_its_session_and_shows_no_mark_is_refused(
    supervise: Supervise, lines: list[Line]
) -> None:
    leaver = """
        import os, subprocess, sys
        code = "import shmbus; shmbus.attach(name='innocent')"
        env = {name: value for name, value in os.environ.items() if name != "SHMBUS_PROCESS"}
        subprocess.run([sys.executable, "-c", code], env=env, start_new_session=True)
    """
    supervisor = supervise(python("leaver", leaver, grant=Grant(), restart="never"))
    assert supervisor.wait(timeout=30)
    supervisor.close()
    assert "has left its session" in lines[-1].text


def test_others_are_held_up_by_no_start(supervise: Supervise, bus_name: str) -> None:
    grants = Grants(bus_name, [handler("echo", grant=ECHO)])
    tool = shmbus.Candidate(name="tool", pid=os.getpid(), command=())
    with grants.runs.starting():  # which takes long
        assert grants(tool) is None
