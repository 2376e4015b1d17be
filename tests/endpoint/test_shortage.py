"""The system gives no more: whoever attaches, serves or observes is told what and what to do, and
nothing of the attempt is left, however long the error is kept."""

from __future__ import annotations

import errno
import gc
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import posix_ipc
import pytest

import shmbus
from ringbuf import segment
from shmbus import errors
from shmbus.endpoint import endpoint as of_endpoint
from shmbus.host import host
from shmbus.shared.names import names_of
from shmbus.testing import BusProcess, eventually, in_shm, run_python
from tests.deaths.test_resources import namespaces, small


def mine(bus: str) -> tuple[int, int, int]:
    """What this process has open and mapped of a bus: descriptors, threads, mappings."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line for line in maps if names_of(bus).prefix in line]
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(mapped)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What goes must go without the collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refuse(problem: BaseException) -> Callable[..., Any]:
    def refused(*_: object, **__: object) -> Any:
        raise problem

    return refused


class Refusal(NamedTuple):
    """What the system refuses, the error that tells so, and what that must say."""

    where: object
    what: str
    how: BaseException
    error: type[errors.BusError]
    says: str

    def __str__(self) -> str:
        return f"{self.what}-{type(self.how).__name__}-{getattr(self.how, 'errno', None)}"


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


MANY = OSError("This process already has the maximum number of files open")  # as posix_ipc says it
AT_ATTACH = [
    Refusal(posix_ipc, "Semaphore", system(errno.ENOSPC), errors.SegmentError,
            r"No space left.*--shm-size"),
    Refusal(posix_ipc, "Semaphore", MANY, errors.SegmentError, r"Too many open files.*ulimit -n"),
    Refusal(posix_ipc, "Semaphore", system(errno.ENOMEM), errors.SegmentError, "ulimit -v"),
    Refusal(segment, "Mapping", system(errno.ENOMEM), errors.SegmentError, "ulimit -v"),
    Refusal(socket, "socket", system(errno.EMFILE), errors.NoResource, "socket.*ulimit -n"),
    Refusal(of_endpoint, "Subscribing", MemoryError(), errors.NoResource, "memory.*ulimit -v"),
    Refusal(os, "chmod", system(errno.EIO), errors.SegmentError, "Input/output error.*doctor"),
]  # fmt: skip


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("refusal", AT_ATTACH, ids=str)
def test_an_attach_that_is_refused_something_says_so_and_leaves_nothing(
    bus_process: BusProcess, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    shmbus.attach(bus_process.name).close()  # from here on this process has its watcher
    gc.collect()
    names, before = in_shm(bus_process.name), mine(bus_process.name)
    with monkeypatch.context() as patched:
        patched.setattr(refusal.where, refusal.what, refuse(refusal.how))
        with pytest.raises(refusal.error, match=refusal.says) as caught:
            shmbus.attach(bus_process.name, name="second")
    assert mine(bus_process.name) == before, caught.value
    eventually(lambda: in_shm(bus_process.name) == names)
    shmbus.attach(bus_process.name, name="second").close()


def test_the_error_that_the_caller_is_handling_keeps_what_it_has(bus_name: str) -> None:
    def fails() -> None:
        fact = "kept"
        raise ValueError(fact)

    try:
        fails()
    except ValueError as problem:
        with pytest.raises(errors.AttachTimeout):
            shmbus.attach(bus_name, timeout=0)
        trace = problem.__traceback__
        assert trace is not None
        assert trace.tb_next is not None
        assert trace.tb_next.tb_frame.f_locals == {"fact": "kept"}


AT_SERVE = [
    Refusal(posix_ipc, "Semaphore", system(errno.ENOSPC), errors.SegmentError,
            r"bell.*No space left.*--shm-size"),
    Refusal(segment, "Mapping", system(errno.ENOMEM), errors.SegmentError, "ulimit -v"),
    Refusal(os, "pipe2", system(errno.EMFILE), errors.NoResource, "pipe.*ulimit -n"),
    Refusal(socket, "socket", system(errno.ENFILE), errors.NoResource, "door.*fs.file-max"),
    Refusal(threading.Thread, "start", RuntimeError("can't start new thread"), errors.NoThread,
            r"control plane.*ulimit -u"),
    Refusal(sys.modules["shmbus.views.observe"], "Registry", system(errno.EMFILE),
            errors.NoResource, "ulimit -n"),
]  # fmt: skip


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("refusal", AT_SERVE, ids=str)
def test_a_serve_that_is_refused_something_says_so_and_leaves_nothing(
    bus_name: str, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mine(bus_name)
    with monkeypatch.context() as patched:
        patched.setattr(refusal.where, refusal.what, refuse(refusal.how))
        with pytest.raises(refusal.error, match=refusal.says) as caught:
            shmbus.serve(bus_name)
    assert mine(bus_name) == before, caught.value
    assert in_shm(bus_name) == []
    shmbus.serve(bus_name).close()


@pytest.mark.usefixtures("no_collection")
def test_a_host_that_is_refused_something_says_so_and_leaves_nothing(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, handler = mine(bus_name), signal.getsignal(signal.SIGTERM)
    for where, what in ((os, "pipe2"), (socket, "socket")):
        with monkeypatch.context() as patched:
            patched.setattr(where, what, refuse(system(errno.EMFILE)))
            with pytest.raises(errors.NoResource, match="ulimit -n") as caught:
                host(bus_name)
        assert mine(bus_name) == before, caught.value
    assert signal.getsignal(signal.SIGTERM) is handler
    assert in_shm(bus_name) == []


@pytest.mark.usefixtures("no_collection")
def test_a_host_outside_the_main_thread_is_refused_and_leaves_nothing(bus_name: str) -> None:
    before = mine(bus_name)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="main thread"):
        pool.submit(host, bus_name).result()
    assert mine(bus_name) == before
    assert in_shm(bus_name) == []


MANY_OPEN = """
    import os, resource, signal, sys
    from shmbus.host import host
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
    while os.dup(0) < 1100:
        pass
    host(sys.argv[1], ready=lambda bus: os.kill(os.getpid(), signal.SIGTERM))
    print("ended")
"""


def test_a_host_may_have_many_files_open(bus_name: str) -> None:
    assert run_python(MANY_OPEN, bus_name) == "ended\n"


def test_a_view_that_is_refused_something_says_so(
    bus_process: BusProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(segment, "Mapping", refuse(system(errno.ENOMEM)))
        with pytest.raises(errors.SegmentError, match="ulimit -v"):
            shmbus.observe(bus_process.name)
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", refuse(system(errno.EMFILE)))
        with pytest.raises(errors.NoResource, match="ulimit -n"):
            shmbus.observe()


FILLED = """
    import gc, os, shmbus
    settings = shmbus.Settings(in_bytes=8192, out_bytes=8192, reply_bytes=8192, max_requests=16)
    page = os.sysconf("SC_PAGE_SIZE")
    said, attached = set(), 0

    def left():
        system = os.statvfs("/dev/shm")
        return system.f_bavail

    with shmbus.serve("full", settings=settings) as bus:
        names, whole = sorted(os.listdir("/dev/shm")), left()
        gc.disable()
        for pages in range(48):
            with open("/dev/shm/filling", "wb") as filling:
                filling.write(bytes(page * (left() - pages)))
            try:
                bus.attach(timeout=60).close()
                attached += 1
            except shmbus.errors.SetupError as error:
                kept = error
                assert "--shm-size" in str(error), error
                said.add(type(error).__name__)
            maps = open("/proc/self/maps").read()
            assert ":int:" not in maps, maps
            os.unlink("/dev/shm/filling")
            while sorted(os.listdir("/dev/shm")) != names or left() != whole:
                pass
    print(attached > 0, sorted(said))
    assert os.listdir("/dev/shm") == [], os.listdir("/dev/shm")
"""


@namespaces
def test_with_any_number_of_pages_left_an_attach_succeeds_or_says_what_is_full() -> None:
    assert run_python(FILLED, before=small("2m")) == "True ['SegmentError']\n"


THREADS = """
    import gc, os, resource, shmbus, sys
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]

    def left():
        mine = [name for name in os.listdir("/dev/shm") if sys.argv[1] in name]
        return mine, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    def refused(call):
        before = left()
        resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
        try:
            call()
        except shmbus.errors.NoThread as error:
            print(error.task, "ulimit -u" in str(error), sys.argv[1] in str(error))
            resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
            while left() != before:  # the dispatcher here removes an endpoint's names
                pass
            assert ":int:" not in open("/proc/self/maps").read()

    gc.disable()
    refused(lambda: shmbus.serve(sys.argv[1]))
    with shmbus.serve(sys.argv[1]) as bus:
        refused(lambda: bus.attach("worker"))
        bus.attach("worker").close()
"""


def test_who_gets_no_thread_is_told_which_and_leaves_nothing(bus_name: str) -> None:
    # The limit does not hold for root.
    rights = "--bounding-set=-sys_resource,-sys_admin"
    before = ("setpriv", "--ruid", "65534", rights) if os.geteuid() == 0 else ()
    printed = run_python(THREADS, bus_name, before=before)
    assert printed == "forwarding True True\nwatcher True True\n"


MEMORY = """
    import gc, os, re, resource, shmbus, sys
    call = {"attach": lambda: shmbus.attach(sys.argv[1], timeout=5),
            "serve": lambda: shmbus.serve(sys.argv[1] + "-2"),
            "observe": lambda: shmbus.observe(sys.argv[1])}[sys.argv[2]]
    call().close()
    gc.collect()
    gc.disable()

    def left():
        maps = [line for line in open("/proc/self/maps") if sys.argv[1] in line]
        return len(maps), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    before, said = left(), set()
    for more in range(0, 24 << 20, 128 << 10):
        size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + more, -1))
        try:
            got = call()
        except shmbus.BusError as error:
            kept = error
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            assert "ulimit -v" in str(error), error
            said.add(type(error).__name__)
        else:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            got.close()
            del got
        assert left()[0] == before[0], (left(), before)
        while left() != before:  # a thread that has just ended is shown a moment longer
            pass
    print(said <= {"SegmentError", "NoResource", "NoThread"} and len(said) > 0, sorted(said))
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["attach", "serve", "observe"])
def test_who_has_too_little_address_space_is_told_so(bus_process: BusProcess, what: str) -> None:
    printed = run_python(MEMORY, bus_process.name, what)
    assert re.match("True", printed), printed
    eventually(lambda: in_shm(f"{bus_process.name}-2") == [])
