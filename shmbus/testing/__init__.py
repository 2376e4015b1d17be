"""Test your workers the way shmbus tests itself: fixtures for pytest.

Installed with shmbus and found by pytest without being asked. A test gets a bus of its own, real
processes on it, a recorder that waits for messages instead of sleeping, and faults: `kill`,
`pause` and `resume`. When it ends, everything it started has ended, and nothing of its bus is left
in /dev/shm, or the test fails.

    def index(endpoint):                       # runs in a process of its own
        endpoint.handle("index.query", lambda message: {"hits": []})
        endpoint.run()

    def test_the_index_answers(bus, attach, worker):
        worker(index, name="indexer")
        client = attach("client")
        client.wait_for("index.query")
        assert client.request("index.query", {"text": "foo"}).payload == {"hits": []}

Waits end with a condition or with a failure that says what was waited for, after `TIMEOUT` seconds.
"""

from .faults import kill, pause, resume
from .fixtures import AioAttach, Attach, MakeRecorder, StartWorker
from .leavings import in_shm, no_leavings
from .loops import eventually_async, run_async
from .options import AioAttachOptions, AttachOptions, WorkerOptions
from .processes import BusProcess, Child, Program, Worker, WorkerFailed, run_python, start_python
from .recorder import Recorder
from .waiting import TIMEOUT, eventually

__all__ = [
    "TIMEOUT",
    "AioAttach",
    "AioAttachOptions",
    "Attach",
    "AttachOptions",
    "BusProcess",
    "Child",
    "MakeRecorder",
    "Program",
    "Recorder",
    "StartWorker",
    "Worker",
    "WorkerFailed",
    "WorkerOptions",
    "eventually",
    "eventually_async",
    "in_shm",
    "kill",
    "no_leavings",
    "pause",
    "resume",
    "run_async",
    "run_python",
    "start_python",
]
