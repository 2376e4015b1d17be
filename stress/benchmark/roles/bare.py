"""The bare C kernel: requests with C at both ends, over endpoints that Python has attached."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

import shmbus
from benchmark.measure.calls import PAYLOAD, WARM_CALLS, Latency, latency
from benchmark.stage import Stage

MOST = 2_000_000  # requests a run


def build(directory: str) -> str | None:
    """bare.c as a shared library, compiled against the headers as installed; ``None`` where there
    is no C compiler."""
    cc = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if cc is None:
        return None
    library = str(Path(directory, "bare.so"))
    command = [
        *cc.split(),
        "-std=c11",
        "-O3",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        "-pthread",
    ]
    command += ["-I", str(Path(shmbus.__file__).parent.parent)]
    command += [str(Path(__file__).with_name("bare.c")), "-o", library]
    subprocess.run(command, check=True)
    return library


def replier(stage: Stage, bus: str, library: str) -> None:
    replies = ctypes.CDLL(library).bare_replies
    replies.argtypes, replies.restype = (ctypes.c_void_p,), ctypes.c_int
    with shmbus.attach(bus, name="replier", timeout=20.0) as endpoint:
        endpoint.handle("bench.echo", lambda message: message.payload)
        stage.ready()
        while replies(endpoint.native_address) == 0:  # a signal came; Python's handlers run here
            pass
        raise RuntimeError("the replier in C met an error")


def requester(stage: Stage, bus: str, library: str, seconds: float) -> Latency:
    requests = ctypes.CDLL(library).bare_requests
    requests.restype = ctypes.c_int64
    requests.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p) + (
        (ctypes.c_uint64,) * 2 + (ctypes.c_void_p, ctypes.c_uint64)
    )
    took = np.zeros(MOST, dtype=np.uint64)
    with shmbus.attach(bus, name="requester", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.echo", timeout=20.0)

        def run(seconds: float, most: int) -> int:
            count: int = requests(
                endpoint.native_address,
                b"bench.echo",
                PAYLOAD,
                len(PAYLOAD),
                int(seconds * 1e9),
                took.ctypes.data,
                most,
            )
            if count < 0:
                raise RuntimeError("a request in C got no reply")
            return count

        stage.ready()
        run(10.0, WARM_CALLS)
        return latency(took[: run(seconds, MOST)])
