"""Two workers under a supervisor: each that is killed is started again.

python examples/supervisor.py
"""

import logging
import os
import signal
import sys
from pathlib import Path

import shmbus

WORKERS = ["worker-1", "worker-2"]


def worker(name: str) -> None:
    with shmbus.attach(name=name) as endpoint:
        endpoint.handle(f"{name}.pid", lambda message: os.getpid())
        endpoint.run()


def main() -> None:
    logging.getLogger("shmbus").setLevel(logging.ERROR)  # it would warn of each that is killed
    program = (sys.executable, str(Path(__file__).resolve()))
    processes = [shmbus.Process(name=name, command=(*program, name)) for name in WORKERS]
    with (
        shmbus.supervise(processes, bus=f"supervised-{os.getpid()}") as supervisor,
        supervisor.bus.attach("client") as client,
    ):
        retry = shmbus.Retry(attempts=1000)  # until it is there, and there again
        for name in [*WORKERS, *WORKERS]:
            pid = client.request(f"{name}.pid", retry=retry, timeout=30).payload
            os.kill(pid, signal.SIGKILL)
            while client.request(f"{name}.pid", retry=retry, timeout=30).payload == pid:
                pass
            print(f"{name} was killed, and answers again with another pid")
        for status in supervisor.status():
            print(f"{status.name} is {status.state}, was started again {status.restarts} times")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(sys.argv[1])
    else:
        main()
