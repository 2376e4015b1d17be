"""What systemd is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from shmbus_command.up.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"{tmp_path}/notify"
        listening.bind(name if request.param == "path" else f"\0{name}")
        listening.settimeout(10)
        yield listening


def environment_of(systemd: socket.socket, **more: str) -> dict[str, str]:
    name = systemd.getsockname()
    path = name if isinstance(name, str) else f"@{name[1:].decode()}"
    return {"NOTIFY_SOCKET": path, **more}


@pytest.mark.smoke
def test_systemd_is_told_of_the_start_a_reload_and_the_end(systemd: socket.socket) -> None:
    notifier = Notifier(environment_of(systemd))
    with notifier.reloading():
        pass  # it has not begun to run: told as well, it would seem to
    notifier.ready("3 processes run")
    notifier.status("3 processes run")  # the same: not sent again
    notifier.status("2 processes run")
    with notifier.reloading():
        notifier.status("3 processes run")
    notifier.stopping()
    notifier.alive()  # nobody asked for it
    notifier.status("stopping web")
    told = [systemd.recv(4096).decode() for _ in range(7)]
    assert told[0] == "READY=1\nSTATUS=3 processes run"
    assert told[1] == "STATUS=2 processes run"
    assert told[2].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert told[3:] == ["STATUS=3 processes run", "READY=1", "STOPPING=1", "STATUS=stopping web"]


def test_the_watchdog_is_fed_where_it_is_meant_for_this_process(systemd: socket.socket) -> None:
    mine = {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(environment_of(systemd, **mine))
    assert notifier.watchdog == 3.0
    notifier.alive()
    assert systemd.recv(4096) == b"WATCHDOG=1"
    assert Notifier({**mine, "WATCHDOG_PID": "1"}).watchdog is None
    assert Notifier({"WATCHDOG_USEC": "nonsense"}).watchdog is None


def test_no_child_has_the_variables_that_were_meant_for_this_process() -> None:
    environment = {
        "NOTIFY_SOCKET": "/nowhere",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "HOME": "/",
    }
    Notifier(environment).ready("told to nobody, which is no error")
    assert environment == {"HOME": "/"}
