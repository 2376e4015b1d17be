"""A work queue: jobs for a group of workers, one of which is killed during a job.

Each job goes to one member of the group `workers`. If a member dies during a job, the job is
handed on to another, with `redelivered` set. So a job may be begun twice, and results are kept by
job number.

    python examples/work_queue.py
"""

import contextlib
import multiprocessing
import os

import msgspec

import shmbus
from shmbus import Message
from shmbus.errors import BusDown

JOBS = 300
WORKERS = 3
POISON = 3  # during which of its jobs worker-1 is killed


class Job(msgspec.Struct):
    number: int
    limit: int


class Result(msgspec.Struct):
    number: int
    primes: int
    redelivered: bool


def worker(bus: str, name: str) -> None:
    with shmbus.attach(bus, name=name) as endpoint, contextlib.suppress(BusDown):
        begun = 0

        def work(message: Message[Job]) -> None:
            nonlocal begun
            begun += 1
            job = message.payload
            if name == "worker-1" and begun == POISON:
                os.kill(os.getpid(), 9)  # as the OOM killer would
            primes = sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, job.limit))
            endpoint.send("result", Result(job.number, primes, message.redelivered))

        endpoint.subscribe("job.primes", work, group="workers")
        endpoint.run()


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"queue-{os.getpid()}") as bus:
        names = [f"worker-{n}" for n in range(1, WORKERS + 1)]
        processes = [spawn.Process(target=worker, args=(bus.name, name)) for name in names]
        for process in processes:
            process.start()

        results: dict[int, Result] = {}
        done_by: dict[str, int] = {}

        def collect(message: Message[Result]) -> None:
            results[message.payload.number] = message.payload
            done_by[message.source] = done_by.get(message.source, 0) + 1
            if len(results) == JOBS:
                endpoint.close()

        with bus.attach("source") as endpoint:
            endpoint.handle("result", collect)
            endpoint.wait_for("job.primes", receivers=WORKERS, timeout=30)
            endpoint.publish_many(("job.primes", Job(n, 100 + n % 7)) for n in range(JOBS))
            endpoint.run()

        again = [result.number for result in results.values() if result.redelivered]
        print(f"{len(results)} of {JOBS} jobs done, by {len(done_by)} workers")
        print(f"handed on at the death of worker-1: {len(again)} jobs")
        print("lost:", bus.health().lost)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
