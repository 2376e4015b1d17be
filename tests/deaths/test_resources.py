"""No space in /dev/shm, no descriptors, another pid namespace, a signal every millisecond."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import (
    Attach,
    BusProcess,
    eventually,
    in_shm,
    run_python,
    start_python,
)
from shmbus.views.observe import BusView

SHM = Path("/dev/shm")


namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="only root can mount a small /dev/shm",
)


FULL = """
    import os, shmbus
    from shmbus.testing import eventually
    assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize == 10 << 20
    with shmbus.serve("full") as bus:
        attached = []
        try:
            while True:
                attached.append(bus.attach(f"e{len(attached)}"))
        except shmbus.errors.SegmentError as error:
            print(len(attached), error.size > 700_000, error.free < error.size,
                  "--shm-size" in error.remedy, "in_bytes" in error.remedy)
        first = attached[0]
        first.subscribe("x")
        for n in range(1000):  # endpoints on the bus are not affected
            attached[-1].publish("x", b"x" * 1000)
            assert first.receive(60).payload == b"x" * 1000
        attached.pop().close()

        def again():
            try:
                return bus.attach("again")
            except shmbus.errors.SegmentError:  # the dispatcher has not freed it yet
                return None

        attached.append(eventually(again))
        small = bus.attach("small", settings=shmbus.Settings(
            in_bytes=4096, out_bytes=4096, reply_bytes=4096))
        small.publish("x")
    assert os.listdir("/dev/shm") == [], os.listdir("/dev/shm")
"""


def small(size: str) -> tuple[str, ...]:
    mount = f"mount -t tmpfs -o size={size} none /dev/shm"
    return ("unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$@"')


@namespaces
def test_a_full_dev_shm_is_an_error_that_says_what_to_do_and_no_signal() -> None:
    printed = run_python(FULL, before=small("10m")).split()
    assert printed == ["6", "True", "True", "True", "True"]


@namespaces
def test_a_bus_that_does_not_fit_says_so() -> None:
    code = """
        import os, shmbus
        try:
            shmbus.serve("full", settings=shmbus.Settings(max_endpoints=1024))
        except shmbus.errors.SegmentError as error:
            print(error.free, "--shm-size" in error.remedy)
        assert os.listdir("/dev/shm") == [], os.listdir("/dev/shm")
    """
    assert run_python(code, before=small("64k")).split()[1] == "True"


ELSEWHERE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@namespaces
def test_who_may_not_take_over_from_another_pid_namespace_leaves_those_who_wait_alone(
    bus_process: BusProcess, attach: Attach
) -> None:
    waiting = attach("waiting", reconnect=True)
    waiting.subscribe("x")
    bus_process.kill()
    code = """
        import sys, shmbus
        try:
            shmbus.serve(sys.argv[1])
        except shmbus.errors.Refused as error:
            print(error.reason)
    """
    assert "another pid namespace" in run_python(code, bus_process.name, before=ELSEWHERE)
    bus_process.start()
    waiting.publish("x", "still")
    message = waiting.receive(60)
    assert message is not None
    assert message.payload == "still"


@namespaces
def test_who_would_attach_from_another_pid_namespace_is_told(bus: shmbus.Bus) -> None:
    code = """
        import sys, shmbus
        try:
            shmbus.attach(sys.argv[1], timeout=5)
        except shmbus.errors.Refused as error:
            print(error)
    """
    before = in_shm(bus.name)
    assert "another pid namespace" in run_python(code, bus.name, before=ELSEWHERE)
    assert in_shm(bus.name) == before


FEW = """
    import resource, sys, os, shmbus
    before = len(os.listdir("/proc/self/fd"))
    others = shmbus.attach(sys.argv[1], name="first")
    others.subscribe("x")
    files = len(os.listdir("/proc/self/fd"))
    raised = set()
    for limit in range(files, files + 24):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        try:
            shmbus.attach(sys.argv[1], name=f"second{limit}", timeout=0.2).close()
        except (shmbus.errors.BusError, OSError) as error:
            raised.add(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    assert raised, "never short of descriptors"
    assert len(os.listdir("/proc/self/fd")) == files, "descriptors are left open"
    others.publish("x", 1)
    assert others.receive(60).payload == 1
    second = shmbus.attach(sys.argv[1], name="second")
    second.close()
    others.close()
    print(sorted(raised))
"""


def test_running_out_of_descriptors_at_attach_destroys_nothing(bus: shmbus.Bus) -> None:
    before = in_shm(bus.name)
    printed = run_python(FEW, bus.name)
    assert "OSError" not in printed, printed
    eventually(lambda: in_shm(bus.name) == before)


LAST = """
    import os, resource, sys, shmbus
    least = len(os.listdir("/proc/self/fd")) - 1
    for limit in range(least, 4096):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        try:
            last = shmbus.attach(sys.argv[1], timeout=0.2)
            break
        except shmbus.BusError:
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    last.subscribe("x")
    print("attached")
    try:
        last.receive()
    except shmbus.BusDown:
        print("told")
"""


def test_who_attached_with_its_last_descriptor_is_told_of_the_dispatchers_death(
    bus_process: BusProcess,
) -> None:
    with start_python(LAST, bus_process.name) as last:
        assert last.line() == "attached"
        bus_process.kill()
        last.wait(20)
        assert last.printed == "told\n"


FULL_TABLE = """
    import os, resource, signal, sys, shmbus
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    limit = len(os.listdir("/proc/self/fd")) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
    with shmbus.serve(sys.argv[1]):
        print("serving", limit)
        while True:
            signal.pause()
"""


def test_a_dispatcher_refuses_before_its_soft_limit_of_descriptors_is_reached(
    bus_name: str,
) -> None:
    with start_python(FULL_TABLE, bus_name) as host, contextlib.ExitStack() as stack:
        serving, limit = host.line().split()
        assert serving == "serving"

        def attach_many() -> None:
            for n in range(40):
                stack.enter_context(shmbus.attach(bus_name, name=f"e{n}", timeout=60))

        with pytest.raises(errors.Refused) as caught:
            attach_many()
        assert f"may open {limit} files" in caught.value.reason
        assert "ulimit -n" in str(caught.value)


HEIR = """
    import os, resource, sys, shmbus
    least = len(os.listdir("/proc/self/fd"))
    for limit in range(least, 4096):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        try:
            bus = shmbus.serve(sys.argv[1])
        except shmbus.errors.SetupError:
            continue
        print(limit > least, len(bus.endpoints()))
        bus.close(handover=True)
        break
"""


def test_a_successor_with_too_few_descriptors_takes_nobody_for_dead(
    bus_process: BusProcess, attach: Attach
) -> None:
    everybody = [attach(f"e{n}", reconnect=True) for n in range(8)]
    for endpoint in everybody:
        endpoint.subscribe("x")
    bus_process.kill()
    assert run_python(HEIR, bus_process.name, quiet=False) == "True 8\n"
    bus_process.start()
    everybody[0].publish("x", 1)
    for endpoint in everybody:
        message = endpoint.receive(60)
        assert message is not None
        assert message.payload == 1


def unseen(self: BusView, name: str) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def test_who_serves_but_has_no_descriptor_to_see_the_bus_does_not_serve_it_for_ever(
    bus_process: BusProcess, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = f"{bus_process.name}-2"
    endpoint = attach("e", reconnect=True)
    endpoint.subscribe("x")
    bus_process.kill()
    monkeypatch.setattr(BusView, "__init__", unseen)
    for name in (bus_process.name, another):
        with pytest.raises(errors.NoResource, match="Too many open files"):
            shmbus.serve(name)
    monkeypatch.undo()
    assert in_shm(another) == []
    bus_process.start()
    endpoint.publish("x", 1)
    message = endpoint.receive(60)
    assert message is not None
    assert message.payload == 1


def test_what_cannot_be_looked_at_is_not_called_dead() -> None:
    code = """
        import os, resource, sys
        from shmbus.shared.processes import process_alive, start_time
        parent = os.getppid(), start_time(os.getppid())
        fds = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (fds, fds))
        print(process_alive(*parent), start_time(parent[0]))
    """
    assert run_python(code) == "True 0\n"


STORM = """
    import signal, sys, shmbus
    hits = 0
    def hit(*_):
        global hits
        hits += 1
    signal.signal(signal.SIGALRM, hit)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for n in range(20):
        with shmbus.attach(sys.argv[1], name="me", timeout=60) as ep:
            ep.subscribe("x", bool)
            ep.handle("echo", lambda m: m.payload)
            ep.start()
            ep.publish("x", n)
            assert ep.request("echo", n, timeout=60).payload == n
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert hits > 20, hits
"""


def test_a_signal_every_millisecond_does_not_matter(bus: shmbus.Bus) -> None:
    run_python(STORM, bus.name)
