"""`shmbus up FILE` as a process: signals, systemd, containers, and its own death."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import shutil
import signal
import socket
import subprocess
import termios
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shmbus_command.up.running import told

import shmbus
from shmbus.supervisor import Control, ProcessStatus
from shmbus.supervisor.mark import marked
from shmbus.testing import eventually, in_shm
from tests.tools.shmbus_command.conftest import COMMAND, Ran, Start

Command = Callable[..., Ran]

WEB = """
[process.web]
command = "sh -c 'echo ready; exec sleep 600'"
"""
DEAF = """
[process.deaf]
command = "sh -c 'trap : TERM; echo deaf; while :; do sleep 600; done'"
stop_timeout = 600
"""


def file(folder: Path, bus: str, text: str) -> Path:
    path = folder / "up.toml"
    path.write_text(f'[bus]\nname = "{bus}"\n{text}')
    return path


def lines_until(process: subprocess.Popen[str], wanted: str, *, err: bool = False) -> list[str]:
    """What it prints, up to the line with this text."""
    stream = process.stderr if err else process.stdout
    assert stream is not None
    found: list[str] = []
    while not found or wanted not in found[-1]:
        found.append(stream.readline())
        assert found[-1], f"it has ended before {wanted!r}: {found}"
    return found


def status(bus: str) -> list[ProcessStatus]:
    with shmbus.attach(bus, timeout=60) as guest:
        return guest.client(Control, "supervisor").status()


@pytest.fixture(autouse=True)
def _nothing_left(bus_name: str) -> Iterator[None]:
    """Also where a test fails, none of its processes lives on."""
    yield
    left = [one.pid for one in marked(bus_name)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == []


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_and_leaves_nothing(
    number: signal.Signals, bus_name: str, tmp_path: Path, start: Start
) -> None:
    with start("up", file(tmp_path, bus_name, WEB)) as process:
        assert lines_until(process, "ready") == ["web | ready\n"]
        (web,) = status(bus_name)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert web.pid is not None
    assert gone(web.pid)
    assert in_shm(bus_name) == []


@pytest.mark.slow
def test_ctrl_c_says_what_is_waited_for_and_a_second_one_kills_that(
    bus_name: str, tmp_path: Path, start: Start
) -> None:
    with start("up", file(tmp_path, bus_name, DEAF)) as process:
        lines_until(process, "deaf")
        process.send_signal(signal.SIGINT)
        lines_until(process, "stopping deaf (Ctrl-C again kills)", err=True)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert in_shm(bus_name) == []


@pytest.mark.slow
def test_a_signal_ends_it_while_nobody_reads_its_output(bus_name: str, tmp_path: Path) -> None:
    text = "[process.web]\ncommand = 'yes ready'\n[process.fails]\ncommand = 'false'\n"
    up = [*COMMAND, "up", str(file(tmp_path, bus_name, text))]
    with subprocess.Popen(up, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            pipe, waiting = process.stdout, array("i", [0])

            def full() -> bool:
                fcntl.ioctl(pipe, termios.FIONREAD, waiting)
                return waiting[0] > 60_000

            eventually(full)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert in_shm(bus_name) == []


@pytest.mark.slow
def test_sighup_reads_the_file_again_and_one_that_cannot_be_used_changes_nothing(
    bus_name: str, tmp_path: Path, start: Start
) -> None:
    path = file(tmp_path, bus_name, WEB)
    with start("up", path) as process:
        lines_until(process, "web | ready")
        (before,) = status(bus_name)
        path.write_text("[bus")
        process.send_signal(signal.SIGHUP)
        lines_until(process, f"all stays as it was: {path}:", err=True)
        file(tmp_path, bus_name, WEB + WEB.replace("web", "mail"))
        process.send_signal(signal.SIGHUP)
        lines_until(process, "mail | ready")
        web, mail = status(bus_name)
        assert (web.pid, mail.state) == (before.pid, "running")
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
def test_it_ends_with_the_terminal_in_which_it_was_started(bus_name: str, tmp_path: Path) -> None:
    terminal, end = os.openpty()
    up = [*COMMAND, "up", str(file(tmp_path, bus_name, WEB))]
    with subprocess.Popen(up, stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        with open(terminal, "rb", closefd=True, buffering=0) as screen:
            shown = b""
            while b"ready" not in shown:
                shown += screen.read(4096)
        process.send_signal(signal.SIGHUP)  # as the shell does, or the system
        assert process.wait(60) == 0
    assert in_shm(bus_name) == []


class Systemd:
    """What it hears, over a socket of its own."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def told(self, wanted: str) -> list[str]:
        """What comes, up to a message that begins so; without what tells of the watchdog."""
        found: list[str] = []
        while not found or not found[-1].startswith(wanted):
            message = self._listening.recv(4096).decode()
            if wanted == WATCHDOG or message != WATCHDOG:
                found.append(message)
        return found


WATCHDOG = "WATCHDOG=1"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        yield Systemd(listening)


@pytest.mark.slow
def test_systemd_is_told_when_all_runs_when_it_is_loaded_again_and_when_it_stops(
    bus_name: str, tmp_path: Path, start: Start, systemd: Systemd
) -> None:
    with start("up", file(tmp_path, bus_name, WEB)) as process:
        assert systemd.told("READY=1")[-1] == "READY=1\nSTATUS=1 running"
        (web,) = status(bus_name)
        environment = Path(f"/proc/{web.pid}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert systemd.told(WATCHDOG)
        file(tmp_path, bus_name, WEB + WEB.replace("web", "mail"))
        process.send_signal(signal.SIGHUP)
        assert systemd.told("RELOADING=1\nMONOTONIC_USEC=")
        assert systemd.told("READY=1") == ["READY=1"]
        assert [one.name for one in status(bus_name)] == ["web", "mail"]
        process.terminate()
        assert systemd.told("STOPPING=1")
        process.communicate(timeout=60)


@pytest.mark.slow
def test_systemd_hears_of_no_reload_before_all_runs(
    bus_name: str, tmp_path: Path, start: Start, systemd: Systemd
) -> None:
    waits = WEB.replace("web", "waits") + 'needs = ["what.nobody.handles"]\n'
    path = file(tmp_path, bus_name, WEB + waits)
    with start("up", path) as process:
        lines_until(process, "| ready")
        path.write_text("[bus")
        process.send_signal(signal.SIGHUP)
        lines_until(process, "all stays as it was", err=True)
        file(tmp_path, bus_name, WEB)
        process.send_signal(signal.SIGHUP)
        heard = systemd.told("READY=1")
        assert heard.pop() == "READY=1\nSTATUS=1 running"
        assert [each for each in heard if not each.startswith("STATUS=")] == []
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
def test_killed_and_started_again_it_has_the_same_processes(
    bus_name: str, tmp_path: Path, start: Start, shmbus_command: Command
) -> None:
    path = file(tmp_path, bus_name, WEB)
    with start("up", path) as killed:
        lines_until(killed, "ready")
        (before,) = status(bus_name)
        killed.kill()
        killed.wait(60)
    for arguments in (["up", "--status"], ["restart", "web"], ["logs"]):
        ran = shmbus_command(*arguments, "--bus", bus_name)
        assert (ran.code, "shmbus up FILE" in ran.err, "serve" in ran.err) == (3, True, False)
    with start("up", path) as process:
        lines_until(process, "adopted", err=True)
        (after,) = status(bus_name)
        assert (after.pid, after.adopted, after.state) == (before.pid, True, "running")
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.slow
def test_it_ends_when_nothing_is_left_to_run(bus_name: str, tmp_path: Path, start: Start) -> None:
    once = '[process.once]\ncommand = "sh -c \'echo done\'"\nrestart = "never"\n'
    with start("up", file(tmp_path, bus_name, once)) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "once | done\n")
    assert "nothing is left to run: 1 ended" in err
    fails = '[process.fails]\ncommand = "false"\nbackoff = { limit = 0 }\n'
    with start("up", file(tmp_path, bus_name, fails)) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nothing is left to run: 1 failed (fails)" in err
    with start("up", file(tmp_path, bus_name, once.replace("echo done", "exit 3"))) as process:
        process.communicate(timeout=60)
    assert process.returncode == 1


@pytest.mark.slow
def test_what_they_print_goes_to_files(bus_name: str, tmp_path: Path, start: Start) -> None:
    output = '[output]\ndirectory = "logs"\n'
    with start("up", file(tmp_path, bus_name, WEB + output)) as process:
        log = tmp_path / "logs" / "web.log"
        eventually(lambda: log.exists() and log.read_text() == "ready\n")
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert out == ""


LEAVES = """
[process.leaves]
command = "sh -c 'setsid sleep 600 & echo $!; exec sleep 600'"
"""
LEAVES_MORE_AND_MORE = """
[process.leaves]
command = "sh -c 'echo begins; while :; do (setsid sleep 0.01 &); sleep 0.2; done'"
"""


@pytest.mark.slow
def test_what_a_process_leaves_in_a_session_of_its_own_ends_with_the_last(
    bus_name: str, tmp_path: Path, start: Start
) -> None:
    with start("up", file(tmp_path, bus_name, LEAVES)) as process:
        (line,) = lines_until(process, "leaves |")
        left = int(line.split()[-1])
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert gone(left)


CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.slow
def test_as_the_first_process_of_a_container_it_reaps_and_stops_in_order(
    bus_name: str, tmp_path: Path, start: Start
) -> None:
    if shutil.which("unshare") is None or subprocess.run([*CONTAINER, "true"]).returncode:
        pytest.skip("this machine lets nobody make a pid namespace")
    up = file(tmp_path, bus_name, LEAVES_MORE_AND_MORE)
    with start("up", up, command=[*CONTAINER, *COMMAND]) as process:
        lines_until(process, "leaves |")
        (first,) = children(process.pid)
        orphan = eventually(lambda: next(filter(ended, children(first)), None))
        eventually(lambda: orphan not in children(first))  # nobody else would reap it
        os.kill(first, signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert in_shm(bus_name) == []


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return list(map(int, text.split()))


def ended(pid: int) -> bool:
    """Whether it waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


# Without running anything ------------------------------------------------------------------------


def test_who_logs_never_waits_until_somebody_reads_that(monkeypatch: pytest.MonkeyPatch) -> None:
    read, notes = threading.Event(), queue.SimpleQueue[str]()

    def slow_note(who: str, text: str) -> None:
        read.wait(60)
        notes.put(text)

    monkeypatch.setattr("shmbus_command.up.running.note", slow_note)
    log = logging.getLogger("shmbus")
    with told():
        for number in range(1000):
            log.info("line %d", number)
        assert notes.empty()
        read.set()
        assert [notes.get(timeout=60) for _ in range(1000)][-1] == "line 999"


def test_check_says_what_would_be_started_and_when(tmp_path: Path, shmbus_command: Command) -> None:
    text = WEB + (
        '[process.index]\ntarget = "json:loads"\nneeds = ["db.*"]\nrestart = "never"\n'
        '[process.db]\ncommand = ["env", "a b"]\nstart = "first message"\non = ["db.get"]\n'
    )
    ran = shmbus_command("up", "--check", file(tmp_path, "symphony", text))
    assert ran.code == 0
    assert [line.split(maxsplit=1) for line in ran.lines[1:]] == [
        ["NAME", "STARTED                          AGAIN   WHAT"],
        ["web", "at once                          always  sh -c 'echo ready; exec sleep 600'"],
        ["index", "after db.*                       never   json:loads"],
        ["db", "by the first message for db.get  always  env 'a b'"],
    ]


def test_check_fails_with_what_could_not_be_started(
    tmp_path: Path, shmbus_command: Command
) -> None:
    (tmp_path / "here").touch(0o755)
    text = (
        '[process.a]\ncommand = "nowhere --x"\n[process.b]\ncommand = "./here"\n'
        '[process.c]\ntarget = "nowhere.at.all:run"\n'
        '[process.d]\ncommand = "sh"\ndirectory = "nowhere"\n'
    )
    ran = shmbus_command("up", "--check", path := file(tmp_path, "n2/bad", text))
    assert (ran.code, len(ran.lines)) == (1, 6)
    told = [line.removeprefix(f"shmbus up: {path}: ") for line in ran.err.splitlines()]
    assert told[0].startswith("[bus] ")
    assert "n2/bad" in told[0]
    assert told[1:] == [
        "[process.a] command: no program 'nowhere' is found: install it, or correct that",
        "[process.c] target: no module 'nowhere' is found: install it",
        f"[process.d] directory: there is no directory {tmp_path}/nowhere: make it",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no process is named"),
        (WEB + "need = []", "[process.web] has no key 'need': perhaps needs"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_bad_command_line(
    tmp_path: Path, shmbus_command: Command, text: str, told: str
) -> None:
    path = file(tmp_path, "symphony", text)
    for arguments in (["up", path], ["up", path, "--check"], ["up", path, "--status"]):
        ran = shmbus_command(*arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert f"{path}: " in ran.err
        assert told in ran.err


def test_a_file_has_to_be_named_and_names_the_bus(
    tmp_path: Path, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shmbus_command("up").code == 2
    assert "name the FILE" in shmbus_command("up").err
    ran = shmbus_command("up", file(tmp_path, "symphony", WEB), "--check", "-b", "other")
    assert (ran.code, "the FILE names the bus" in ran.err) == (2, True)
    monkeypatch.setenv("SHMBUS_BUS", "other")  # for the other commands of this shell
    assert shmbus_command("up", file(tmp_path, "symphony", WEB), "--check").code == 0
