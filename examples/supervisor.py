"""A supervisor: workers that die are started again.

`on_death` calls back once when an endpoint ends, for whatever reason, within a fraction of a
second. A worker that detaches (`detached`) is not started again.

    python examples/supervisor.py
"""

import multiprocessing
import multiprocessing.process
import os
import signal
import threading

import shmbus
from shmbus import Death, Message
from shmbus.errors import BusDown

WORKERS = ["worker-1", "worker-2"]
KILLS = 3


def worker(bus: str, name: str) -> None:
    with shmbus.attach(bus, name=name) as endpoint:

        @endpoint.handle("echo")
        def echo(message: Message) -> int:
            return os.getpid()

        try:
            endpoint.run()
        except BusDown:
            pass


class Supervisor:
    def __init__(self, bus: str) -> None:
        self.bus = bus
        self.processes: dict[str, multiprocessing.process.BaseProcess] = {}
        self.deaths: list[Death] = []
        self.up = threading.Semaphore(0)
        self.endpoint = shmbus.attach(bus, name="supervisor")
        self.endpoint.subscribe("$bus.endpoint.up", self.on_up)
        self.endpoint.start()

    def start(self, name: str) -> None:
        process = multiprocessing.get_context("spawn").Process(target=worker, args=(self.bus, name))
        self.processes[name] = process  # before it can come up
        process.start()

    def on_up(self, message: Message) -> None:
        name = message.payload["name"]
        if name in self.processes:
            self.endpoint.on_death(name, self.on_death)
            self.up.release()

    def on_death(self, death: Death) -> None:
        self.deaths.append(death)
        if death.reason != "detached":
            self.start(death.name)


def main() -> None:
    with shmbus.serve(f"supervised-{os.getpid()}") as bus:
        supervisor = Supervisor(bus.name)
        for name in WORKERS:
            supervisor.start(name)
        for _ in WORKERS:
            supervisor.up.acquire()

        for number in range(KILLS):
            victim = WORKERS[number % len(WORKERS)]
            pid = supervisor.processes[victim].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            supervisor.up.acquire()
            death = supervisor.deaths[-1]
            print(f"{death.name} died ({death.reason}), and was started again with another pid")
            with bus.attach("client") as client:
                client.wait_for("echo", receivers=len(WORKERS), timeout=30)
                assert client.request("echo").payload != pid

        supervisor.endpoint.close()
        print(f"{len(supervisor.deaths)} deaths, {len(supervisor.processes)} workers at the end")
    for process in supervisor.processes.values():
        process.join()


if __name__ == "__main__":
    main()
