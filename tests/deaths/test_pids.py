"""The pid of a dead process is given to another, really, in a pid namespace of the test's own:
nobody takes it for the dead one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from shmbus.testing import run_python

LAST_PID = "/proc/sys/kernel/ns_last_pid"
UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0
        or not Path(LAST_PID).exists()
        or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0,
        reason="only root can choose pids",
    ),
]

ONLY = {  # by this alone the dispatcher sees deaths
    "pidfd": "control._open_stat = lambda pid: -1; lookout._alive = lambda owner: True",
    "task flags": "door._open_pidfd = lambda *who: None; lookout._alive = lambda owner: True",
    "psutil": "control._open_stat = lambda pid: -1; door._open_pidfd = lambda *who: None",
}

CODE = f"""
import sys
import shmbus
from shmbus.testing import eventually, start_python

bus, only = sys.argv[1:]


def start(code):
    head = f"import time, shmbus; bus = {{bus!r}}\\n"
    head += "from shmbus.dispatcher import control, door, lookout\\n"
    child = start_python(head + code + "\\nprint('ready'); time.sleep(600)")
    assert child.line() == "ready"
    return child


def end(*children):
    for child in children:
        child.kill()


def give_away(pid):
    while True:
        with open("{LAST_PID}", "w") as last:
            last.write(str(pid - 1))
        another = start_python("import time; time.sleep(600)")
        if another.pid == pid:
            return another
        end(another)


def serve():
    return start(only + "; served = shmbus.serve(bus)")


def attach_victim():
    attach = "ep = shmbus.attach(bus, name='victim', reconnect=True)"
    victim = start(attach + "; ep.handle('ask', print); ep.start()")
    watcher.wait_for("ask", timeout=60)
    return victim


def sees_the_end_of(victim):
    down = watcher.receive(60)
    assert (down.payload["name"], down.payload["pid"]) == ("victim", victim.pid), down
    shmbus.attach(bus, name="victim", timeout=60).close()
    assert watcher.receive(60).payload["reason"] == "detached"


dispatcher = serve()
watcher = shmbus.attach(bus, name="watcher", reconnect=True)
watcher.subscribe("$bus.endpoint.down")

victim = attach_victim()  # while its dispatcher looks away
dispatcher.pause()
end(victim)
another = give_away(victim.pid)
dispatcher.resume()
sees_the_end_of(victim)
end(another)

victim = attach_victim()  # between two dispatchers, of which the first goes the same way
end(dispatcher, victim)
others = [give_away(victim.pid), give_away(dispatcher.pid)]
try:
    shmbus.attach(bus, name="early", timeout=0.1)
except shmbus.AttachTimeout as error:
    assert error.pid is None, error
dispatcher = serve()
sees_the_end_of(victim)
end(*others)

# while an endpoint cannot look
asker = start(
    "ep = shmbus.attach(bus, name='asker'); ep.subscribe('x')\\n"
    "print('ready')\\n"
    "try: ep.receive(60)\\n"
    "except shmbus.BusDown: print('told')"
)
eventually(lambda: any(e.name == "asker" and e.receivers for e in watcher.bus.endpoints()))
asker.pause()
end(dispatcher)
another = give_away(dispatcher.pid)
asker.resume()
assert asker.line() == "told"
end(asker, another)
watcher.close()
shmbus.serve(bus).close()
"""


@pytest.mark.parametrize("only", ONLY)
def test_a_pid_given_to_another_deceives_nobody(bus_name: str, only: str) -> None:
    run_python(CODE, bus_name, ONLY[only], before=UNSHARE, timeout=200)
