"""Checks whether this machine is fit for a bus. `leavings` finds what dead processes left on it."""

from __future__ import annotations

import mmap
import os
import platform
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import posix_ipc

from shmbus.settings import MIB, Settings
from shmbus.shared import processes
from shmbus.shared.names import SHM

from . import leavings, removed_names

_SO_PEERPIDFD = 77
_MADV_WIPEONFORK = 18
_PER_ENDPOINT = 3  # descriptors that the dispatcher needs: pidfd, stat and door
_SPARE = 32


class Finding(msgspec.Struct, frozen=True):
    """What one check found."""

    subject: str
    """What was checked."""
    state: Literal["good", "note", "bad"]
    """good, note (worth knowing) or bad."""
    text: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty where nothing need be done."""


def check_host(bus: str | None = None) -> list[Finding]:
    """Everything about this machine that matters to a bus: to any, or to this one."""
    return [
        *_shm(),
        *_memory(),
        *_remove_ipc(),
        *_removed(bus),
        *_semaphores(),
        *_descriptors(),
        *_namespaces(bus),
        *_kernel(),
        *_cpus(),
        *_clock(),
    ]


def _shm() -> Iterator[Finding]:
    subject = "/dev/shm"
    remedy = "mount a tmpfs there: mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm"
    try:
        system = os.statvfs(SHM)
    except OSError as problem:
        yield Finding(subject, "bad", str(problem), remedy)
        return
    if not os.access(SHM, os.W_OK | os.X_OK):
        text = f"user {os.geteuid()} may not write there"
        yield Finding(subject, "bad", text, "mount -o remount,rw,mode=1777 /dev/shm")
        return
    kind = _file_system(str(SHM))
    if kind not in ("tmpfs", "ramfs"):
        yield Finding(subject, "bad", f"is {kind}, not in memory", remedy)
        return
    settings = Settings()
    size, free = (n * system.f_frsize for n in (system.f_blocks, system.f_bavail))
    if not size:
        yield Finding(subject, "good", "of no limited size")
        return
    fit = max(free - settings.bytes_for(0), 0) // settings.endpoint_bytes
    text = (
        f"{size // MIB} MiB, {free // MIB} free: space for {fit} endpoints with default rings; "
        f"each pool, for payloads too large for these, takes up to {settings.pool_limit // MIB} MiB"
    )
    if fit >= 16:
        yield Finding(subject, "good", text)
    else:
        yield Finding(
            subject,
            "bad" if fit < 4 else "note",
            text,
            "make it larger (in a container --shm-size=1g, else mount -o remount,size=1g "
            "/dev/shm), or serve with smaller rings (--in-bytes, --out-bytes, --reply-bytes) and "
            "pools (--pool-bytes, --pool-total-bytes)",
        )


def _file_system(path: str) -> str:
    """The kind of file system that is mounted there, or around it."""
    best = "", "unknown"
    try:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind, *_ = line.split()
            inside = path == where or path.startswith(where.rstrip("/") + "/")
            if inside and len(where) >= len(best[0]):
                best = where, kind
    except (OSError, ValueError):
        pass
    return best[1]


def _memory() -> Iterator[Finding]:
    limit = _cgroup("memory.max")
    if limit is not None and limit.isdigit():
        yield Finding(
            "memory", "note", f"this control group may use {int(limit) // MIB} MiB, and rings count"
        )


def _cgroup(file: str) -> str | None:
    """The content of a file of this process's control group (version 2)."""
    try:
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
        for path in (Path("/sys/fs/cgroup" + group), Path("/sys/fs/cgroup")):
            if (path / file).exists():
                return (path / file).read_text().strip()
    except OSError:
        pass
    return None


def _remove_ipc() -> Iterator[Finding]:
    if not Path("/run/systemd/seats").exists():  # no logind
        return
    import configparser  # takes long, and only this needs it

    subject, user = "RemoveIPC", os.geteuid()
    value = "yes"
    files = [Path("/etc/systemd/logind.conf")]
    for directory in ("/usr/lib", "/run", "/etc"):
        files += sorted(Path(directory, "systemd/logind.conf.d").glob("*.conf"))
    for file in files:
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        try:
            parser.read(file)
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        value = parser.get("Login", "RemoveIPC", fallback=value)
    if value.lower() in ("no", "false", "off", "0"):
        yield Finding(subject, "good", "off: nothing is removed at logout")
    elif user < 1000:
        yield Finding(subject, "good", "does not affect system users, as this one is")
    else:
        yield Finding(
            subject,
            "bad",
            "on: logind removes what this user has in /dev/shm when the last session ends",
            "set RemoveIPC=no in /etc/systemd/logind.conf, serve as a system user, or "
            f"loginctl enable-linger {user}",
        )


def _removed(only: str | None) -> Iterator[Finding]:
    for found in removed_names.find_nameless():
        if only not in (None, found.bus):
            continue
        yield Finding(
            f"bus {found.bus}",
            "bad",
            f"somebody has removed the names of this bus, which process {found.pid} serves, from "
            "/dev/shm: those attached go on, no other can attach",
            "restart the bus, and keep cleaners and logind (RemoveIPC=no) from /dev/shm",
        )


def _semaphores() -> Iterator[Finding]:
    subject, name = "semaphores", f"/shmbus-doctor-{os.getpid()}"
    try:
        semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode=0o600)
        try:
            semaphore.release()
            semaphore.acquire(0)
        finally:
            semaphore.close()
            posix_ipc.unlink_semaphore(name)
    except (posix_ipc.Error, OSError) as problem:
        yield Finding(
            subject,
            "bad",
            f"none can be made: {problem}",
            "see that /dev/shm is a tmpfs that this user may write to",
        )
    else:
        yield Finding(subject, "good", "can be made, posted and removed")


def _descriptors() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    served = max(soft - _SPARE, 0) // _PER_ENDPOINT
    enough = Settings().max_endpoints
    text = f"{soft} ({hard} at most): a dispatcher started here can serve {served} endpoints"
    yield Finding(
        "descriptors",
        "good" if served >= enough else "note" if served >= 64 else "bad",
        text,
        "" if served >= enough else f"ulimit -n {enough * _PER_ENDPOINT + _SPARE}",
    )


def _namespaces(only: str | None) -> Iterator[Finding]:
    subject, mine = "pid namespace", processes.namespace("pid")
    if not mine or not Path(f"/proc/{os.getpid()}/stat").exists():
        yield Finding(
            subject, "bad", "/proc does not show this process", "mount -t proc proc /proc"
        )
        return
    elsewhere = [name for name in leavings.served_elsewhere() if only in (None, name)]
    if elsewhere:
        yield Finding(
            subject,
            "bad",
            f"served from another one: {', '.join(elsewhere)}",
            "let the containers share it (docker run --pid=container:NAME), or give each "
            "a /dev/shm of its own",
        )
    else:
        yield Finding(subject, "good", "all buses here are served in this process's")


def _kernel() -> Iterator[Finding]:
    subject = f"Linux {platform.release()}"
    missing = []
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError):
        missing.append("pidfd_open (Linux 5.3; without it deaths are seen by /proc alone)")
    try:
        with mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
            page.madvise(_MADV_WIPEONFORK)
    except OSError:
        text = "has no MADV_WIPEONFORK, so forked children go unnoticed: endpoints cannot attach"
        yield Finding(subject, "bad", text, "use Linux 4.14 or newer")
        return
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        try:
            os.close(one.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        except OSError:
            missing.append("SO_PEERPIDFD (Linux 6.5; pidfd_open serves instead)")
    library = os.confstr("CS_GNU_LIBC_VERSION") or "another C library"
    version = library.rpartition(" ")[2].split(".")
    if not library.startswith("glibc") or [int(v) for v in version if v.isdigit()] < [2, 30]:
        missing.append("sem_clockwait (glibc 2.30; short waits serve instead)")
    if missing:
        yield Finding(subject, "note", f"has no {'; no '.join(missing)}")
    else:
        yield Finding(subject, "good", f"and {library} have all that is used")


def _cpus() -> Iterator[Finding]:
    count = len(os.sched_getaffinity(0))
    quota = (_cgroup("cpu.max") or "max").split()[0]
    if count == 1:
        text = "1 CPU: waiting threads do not spin, so requests take longer"
        yield Finding("CPUs", "note", text)
    elif quota.isdigit():
        text = f"{count} CPUs, under a quota: spinning uses it up (Settings(spin=False))"
        yield Finding("CPUs", "note", text)
    else:
        yield Finding("CPUs", "good", f"{count}")


def _clock() -> Iterator[Finding]:
    file = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    try:
        source = file.read_text().strip()
    except OSError:
        return
    if source in ("hpet", "acpi_pm", "xen", "jiffies"):
        text = f"{source}: reading it takes a system call, and each message reads it"
        yield Finding("clock", "note", text, f"where it is stable: echo tsc >{file}")
