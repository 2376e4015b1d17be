"""What /proc hides (hidepid=2, ProtectProc=invisible) is not taken for dead, nor for alive."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shmbus.testing import run_python

HIDING = (
    "unshare",
    "-m",
    "sh",
    "-ec",
    "mount -t tmpfs -o mode=1777 none /dev/shm; mount -t proc -o hidepid=2 proc /proc; "
    'exec setpriv --regid 65534 --clear-groups --bounding-set=-sys_ptrace "$0" "$@"',
)
"""A program that does not see processes which it may not trace."""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run([*HIDING, "true"], capture_output=True, check=False).returncode != 0,
    reason="only root can mount a /proc that hides processes, and give up tracing them",
)

COMMON = """
import ctypes, os, sys, time
import shmbus
from shmbus.testing import eventually, start_python

def hide():
    assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0  # PR_SET_DUMPABLE

HIDE = '''
import ctypes, shmbus
def hide():
    assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
'''
WORKER = HIDE + '''
with shmbus.attach("hidden", name="worker", reconnect=True, timeout=60) as endpoint:
    endpoint.handle("double", lambda message: 2 * message.payload)
    endpoint.start()
    hide()
    print("hidden")
    while True:
        __import__("time").sleep(60)
'''
HOST = '''
import shmbus, time
bus = shmbus.serve("hidden")
print("serving")
time.sleep(600)
'''

def seen_by_proc(pid):
    return os.path.exists(f"/proc/{pid}/stat")
"""


def test_a_living_worker_that_proc_hides_is_not_buried_by_a_successor() -> None:
    code = """
    host = start_python(HOST)
    assert host.line() == "serving"
    worker = start_python(WORKER)
    assert worker.line() == "hidden"
    assert not seen_by_proc(worker.pid)
    view = shmbus.observe("hidden")
    print([(e.name, e.state) for e in view.endpoints()])
    host.kill()
    with shmbus.serve("hidden") as bus:
        print([(e.name, e.state) for e in bus.endpoints()])
        with bus.attach("asker") as asker:
            print(asker.request("double", 21, timeout=60).payload)
            os.kill(worker.pid, 9)
            eventually(lambda: [e.name for e in bus.endpoints()] == ["asker"])
    """
    printed = run_python(COMMON + _unindented(code), before=HIDING, timeout=40).splitlines()
    assert printed == ["[('worker', 'attached')]", "[('worker', 'attached')]", "42"]


def test_who_is_hidden_from_the_dispatcher_is_refused_with_the_remedy_that_helps() -> None:
    code = """
    with start_python(HOST) as host:
        assert host.line() == "serving"
        hide()
        try:
            shmbus.attach("hidden", name="late", timeout=60)
        except shmbus.errors.Refused as refused:
            print(refused)
    """
    printed = run_python(COMMON + _unindented(code), before=HIDING, timeout=40)
    assert "/proc hides its process" in printed
    assert "hidepid" in printed
    assert "ProtectProc" in printed


def test_who_becomes_a_program_that_may_not_be_looked_at_is_gone_for_the_next_dispatcher(
    tmp_path: Path,
) -> None:
    theirs = tmp_path / "sleep"
    shutil.copy(shutil.which("sleep") or "", theirs)
    os.chown(theirs, 65534, 65534)
    theirs.chmod(0o4755)  # who runs it becomes somebody whose memory the dispatcher cannot read
    code = """
    THEIRS = sys.argv[1]
    GUEST = '''
    import os, sys, shmbus
    from shmbus.testing import eventually
    endpoint = shmbus.attach("hidden", name="guest", reconnect=True, timeout=60)
    endpoint.subscribe("go.on")
    def sockets():
        shown = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return {os.readlink(one) for one in shown if os.path.exists(one)}
    before = sockets()
    print("attached")
    endpoint.receive(60)
    eventually(lambda: any("socket:" in new for new in sockets() - before), timeout=60)
    shmbus.attach("hidden", timeout=60).close()  # the connection before it has been taken, too
    os.execv(sys.argv[1], [sys.argv[1], "600"])
    '''
    host = start_python(HOST)
    assert host.line() == "serving"
    with start_python(GUEST, THEIRS) as guest:
        assert guest.line() == "attached"
        host.kill()
        with shmbus.serve("hidden") as bus, bus.attach("watcher") as watcher:
            watcher.subscribe("$bus.endpoint.down")
            watcher.wait_for("go.on", timeout=60)
            watcher.publish("go.on")
            ends = iter(lambda: watcher.receive(20), None)
            ended = ((down.payload["name"], down.payload["reason"]) for down in ends)
            print(next((end for end in ended if end[0] == "guest"), None), guest.alive)
    """
    printed = run_python(COMMON + _unindented(code), theirs, before=HIDING, timeout=60)
    assert printed == "('guest', 'exec') True\n"


def test_a_dispatcher_that_proc_hides_is_alive_until_it_is_dead() -> None:
    code = """
    host = start_python(HIDE + HOST.replace('print', 'hide(); print'))
    assert host.line() == "serving"
    assert not seen_by_proc(host.pid)
    with shmbus.attach("hidden", name="one", timeout=60) as endpoint:
        print([(b.name, b.state) for b in shmbus.buses()])
        endpoint.subscribe("x")
        endpoint.publish("x", 1)
        print(endpoint.receive(60).payload)
        os.kill(host.pid, 9)
        try:
            endpoint.receive(60)
        except shmbus.BusDown as down:
            print(down.reason)
    shmbus.serve("hidden").close()
    """
    printed = run_python(COMMON + _unindented(code), before=HIDING, timeout=40).splitlines()
    assert printed == ["[('hidden', 'serving')]", "1", "its dispatcher died"]


def _unindented(code: str) -> str:
    return "\n".join(line[4:] for line in code.splitlines()) + "\n"
