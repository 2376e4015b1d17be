"""Others' files in /dev/shm, and others at the door."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shmbus
from ringbuf._kernel import MAGIC
from shmbus import errors
from shmbus.dispatcher import admission
from shmbus.shared import layout, names
from shmbus.testing import (
    TIMEOUT,
    eventually,
    in_shm,
)

SHM = Path("/dev/shm")


@pytest.fixture
def any_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("any_umask")
def test_everything_is_the_owners_alone_whatever_the_umask(bus_name: str) -> None:
    for mask in (0, 0o777):
        os.umask(mask)
        with shmbus.serve(bus_name) as bus, bus.attach("me") as endpoint:
            endpoint.subscribe("x")
            modes = {file: stat.S_IMODE((SHM / file).stat().st_mode) for file in in_shm(bus_name)}
            assert set(modes.values()) == {0o600}, modes
            assert len(modes) >= 9


def squat(path: Path, how: str) -> None:
    if how == "a link":
        path.symlink_to("/dev/shm/elsewhere")
    elif how == "a directory":
        path.mkdir(0o600)
    elif how == "a pipe":
        os.mkfifo(path, 0o600)
    elif how == "of another size":
        path.write_bytes(struct.pack("<3Q", MAGIC, layout.LAYOUT, 1 << 20).ljust(65536, b"\0"))
        path.chmod(0o600)
    elif how == "open to others":
        path.write_bytes(bytes(65536))
        path.chmod(0o666)
    elif how == "of another user":
        path.write_bytes(bytes(65536))
        path.chmod(0o600)
        os.chown(path, 12345, 12345)


SQUATTERS = ["a link", "a directory", "a pipe", "of another size", "open to others"]


if os.geteuid() == 0:
    SQUATTERS.append("of another user")


@contextlib.contextmanager
def squatted(path: Path, how: str) -> Iterator[None]:
    squat(path, how)
    try:
        yield
    finally:
        if how == "a directory":
            path.rmdir()
        else:
            path.unlink()


@pytest.mark.parametrize("how", SQUATTERS)
def test_a_squatted_name_is_refused_and_neither_followed_nor_removed(
    bus_name: str, how: str
) -> None:
    path = SHM / names.names_of(bus_name).bus_segment
    with squatted(path, how):
        for call in (
            lambda: shmbus.serve(bus_name),
            lambda: shmbus.attach(bus_name, name="me", timeout=0.2),
            lambda: shmbus.observe(bus_name),
        ):
            with pytest.raises(errors.BusError) as caught:
                call()
            assert caught.value.args or str(caught.value)
        assert os.path.lexists(path)
        assert not (SHM / "elsewhere").exists()
    with shmbus.serve(bus_name):
        pass


@pytest.mark.parametrize("how", SQUATTERS[:3] + SQUATTERS[5:])
def test_nobody_serves_behind_a_squatted_lock(bus_name: str, how: str) -> None:
    path = SHM / names.names_of(bus_name).lock
    with squatted(path, how):
        with pytest.raises(errors.SegmentError) as caught:
            shmbus.serve(bus_name)
        assert caught.value.name == path.name
        assert caught.value.remedy
        assert os.path.lexists(path)
        assert not (SHM / "elsewhere").exists()
    with shmbus.serve(bus_name):
        pass


@pytest.mark.parametrize("file", ["{}ready", "{}door", "sem.{}bell"])
def test_a_name_that_cannot_be_cleared_away_is_told(bus_name: str, file: str) -> None:
    path = SHM / file.format(names.names_of(bus_name).prefix)
    descriptors = os.listdir("/proc/self/fd")
    with squatted(path, "a directory"):
        with pytest.raises(errors.SegmentError) as caught:
            shmbus.serve(bus_name)
        assert path.name in str(caught.value)
    assert os.listdir("/proc/self/fd") == descriptors
    with shmbus.serve(bus_name):
        pass


def test_that_nobody_can_be_let_in_is_said_once(
    bus: shmbus.Bus, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    spare: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting[1].fileno() + 8, before[1]))
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(waiting[0].fileno()))
        for knocking in waiting:
            knocking.connect(f"/dev/shm/{names.names_of(bus.name).door}")
            eventually(lambda: "no endpoint can be admitted" in caplog.text)
        seen = bus.info().control_age
        assert seen is not None
        rounds = 0
        while rounds < 20:  # the control thread tries again and again
            now = bus.info().control_age or 0.0
            rounds += now < seen
            seen = now
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in spare:
            os.close(fd)
        for knocking in waiting:
            knocking.close()
    assert caplog.text.count("no endpoint can be admitted") == 1


def test_interests_that_cannot_be_read_are_told_of_once_and_tried_again(
    bus: shmbus.Bus, attach: Callable[..., shmbus.Endpoint], caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = attach("reader")
    (log,) = (Path("/dev/shm", file) for file in in_shm(bus.name) if ":int:" in file)
    away = log.rename(log.with_name(f"away-{bus.name}"))
    subscribing = threading.Thread(target=endpoint.subscribe, args=("x",))
    subscribing.start()
    try:
        eventually(lambda: "cannot be read" in caplog.text)
        beats, seen = 0, 0.0
        while beats < 10:  # it is tried at each heartbeat
            age = bus.health().heartbeat_age or 0.0
            beats += age < seen
            seen = age
    finally:
        away.rename(log)
        subscribing.join(60)
    endpoint.publish("x")
    assert endpoint.receive(60) is not None
    (told,) = (one for one in caplog.messages if "cannot be read" in one)
    assert f"endpoint 'reader' (pid {os.getpid()})" in told


def test_who_says_nothing_at_the_door_is_let_go_when_the_bus_ends(bus_name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        with shmbus.serve(bus_name) as bus:
            visitor.connect(str(SHM / names.names_of(bus_name).door))
            bus.attach("next").close()  # so that the caller before it was answered, too
        assert visitor.recv(1) == b""


def test_who_waits_for_a_name_when_the_bus_ends_leaves_no_descriptor(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", TIMEOUT)

    def pidfds() -> int:
        found = 0
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the one by which this is read
                found += "pidfd" in os.readlink(f"/proc/self/fd/{fd}")
        return found

    before, go = pidfds(), threading.Event()
    with shmbus.serve(bus_name) as bus, bus.attach("worker") as worker:
        worker.handle("job", lambda message: go.wait(60))
        worker.start()
        worker.send("job")
        drain = threading.Thread(target=worker.drain)
        drain.start()
        eventually(lambda: bus.endpoints()[0].state == "leaving")
        there = pidfds()

        second = threading.Thread(target=lambda: bus.attach("worker", timeout=60).close())
        second.start()
        eventually(lambda: pidfds() == there + 1)
        bus.close(timeout=0)
        go.set()
        drain.join()
    with shmbus.serve(bus_name):  # so that the second one need not wait any longer
        second.join()
    assert pidfds() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_leavings_of_another_user_do_not_block_mine(bus_name: str) -> None:
    theirs = [
        SHM / names.names_of(bus_name, 12345).bus_segment,
        SHM / names.names_of(bus_name, 12345).lock,
        SHM / names.names_of(bus_name, 12345).door,
    ]
    for path in theirs:
        path.write_bytes(bytes(4096))
        os.chown(path, 12345, 12345)
    try:
        with shmbus.serve(bus_name) as bus, bus.attach("me") as endpoint:
            endpoint.publish("x")
        assert all(path.exists() for path in theirs)
    finally:
        for path in theirs:
            path.unlink()
