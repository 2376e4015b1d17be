"""Processes that a supervisor starts, and the same ones started by hand."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import shmbus
from benchmark.stage import Stage
from shmbus import Endpoint, Process, Retry

PATIENCE = 60.0
AGAIN = Retry(attempts=1000, on=(shmbus.EndpointDied, shmbus.NoRoute), backoff=0.0005)
WORKER = Path(__file__).with_name("supervised_worker.py")


def command(name: str) -> tuple[str, ...]:
    return sys.executable, "-P", str(WORKER), name  # -P: its neighbours are named as modules are


@contextmanager
def by_hand(bus: str, names: Sequence[str]) -> Iterator[None]:
    """Start them all at once; at the end tell all to end, and wait for them."""
    environment = os.environ | {"SHMBUS_BUS": bus}
    # Each in a session of its own, as a supervisor's: the scheduler gives a share to each session.
    started = [
        subprocess.Popen(command(name), env=environment, start_new_session=True) for name in names
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(PATIENCE)


def handled(client: Endpoint, names: Sequence[str]) -> None:
    for name in names:
        client.wait_for(f"work.{name}", timeout=PATIENCE)


def restarting(stage: Stage, bus: str, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds, of each round: from the start of a process by hand until it has answered a
    request; in turn with that, from the SIGKILL of the same under a supervisor until the next one
    has answered; and until who had asked the killed one knew that it was dead."""
    own, again, known = list[float](), list[float](), list[float]()
    process = Process(
        name="worker",
        command=command("worker"),
        backoff=shmbus.Backoff(first=0.0, limit=rounds + 1),
    )
    logging.getLogger("shmbus").setLevel(logging.ERROR)  # deaths are meant here
    with (
        shmbus.serve(bus) as served,
        served.attach("client") as client,
        shmbus.supervise([process], bus=served),
    ):
        handled(client, ["worker"])
        stage.ready()
        for _ in range(rounds):
            began = time.perf_counter()
            with by_hand(bus, ["alone"]):
                handled(client, ["alone"])
                client.request("work.alone")
                own.append(1e3 * (time.perf_counter() - began))
            pid = client.request("work.worker").payload
            began = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(shmbus.EndpointDied, shmbus.NoRoute):
                client.request("work.worker", timeout=PATIENCE)
            known.append(1e3 * (time.perf_counter() - began))
            handled(client, ["worker"])
            other = client.request("work.worker", timeout=PATIENCE, retry=AGAIN).payload
            again.append(1e3 * (time.perf_counter() - began))
            assert other != pid
    return own, again, known


LAYERS = 5


def layered(each: int) -> list[list[str]]:
    """The names of so many processes in each layer."""
    return [[f"n{layer}-{n}" for n in range(each)] for layer in range(LAYERS)]


def many_by_hand(stage: Stage, bus: str, each: int) -> tuple[float, float, float]:
    """Seconds: until one process handles, alone; until all do, in five layers, each of which is
    started once all of the one before handle; and until all have ended, told so at once."""
    with shmbus.serve(bus) as served, served.attach("client") as client:
        stage.ready()
        began = time.perf_counter()
        with by_hand(bus, ["alone"]):
            handled(client, ["alone"])
            alone = time.perf_counter() - began
        began = time.perf_counter()
        with contextlib.ExitStack() as started:
            for names in layered(each):
                started.enter_context(by_hand(bus, names))
                handled(client, names)
            handling = time.perf_counter()
        return alone, handling - began, time.perf_counter() - handling


def many_supervised(stage: Stage, file: str, bus: str, each: int) -> tuple[float, float]:
    """The same by `shmbus up`, which stops them in the reverse order: seconds until all handle,
    from its own start on, and until it has ended."""
    all_names = layered(each)
    layers = [
        (name, [f"work.{other}" for other in all_names[layer - 1]] if layer else [])
        for layer, names in enumerate(all_names)
        for name in names
    ]
    Path(file).write_text(
        f'[bus]\nname = "{bus}"\n'
        + "".join(
            f"[process.{name}]\ncommand = {json.dumps(command(name))}\n"
            f"needs = {json.dumps(needs)}\n"
            for name, needs in layers
        )
    )
    stage.ready()
    began = time.perf_counter()
    up = subprocess.Popen(
        [str(Path(sys.executable).with_name("shmbus")), "up", file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with shmbus.attach(bus, timeout=PATIENCE) as client:
            handled(client, [name for name, _ in layers])
            handling = time.perf_counter()
    finally:
        up.terminate()
        up.wait(PATIENCE)
    return handling - began, time.perf_counter() - handling
