"""The programs in examples/ print what they promise, and leave nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

SHOWN = {
    "request_reply.py": r"""the sum is 6\.5, from calculator
22 / 7 is 3\.1429
all at once: \[0\.0, 2\.0, 4\.0, 6\.0, 8\.0\]
it raised ZeroDivisionError: float division by zero
no endpoint handles calculator\.root
""",
    "work_queue.py": r"""300 of 300 jobs done, by [23] workers
handed on at the death of worker-1: [1-9]\d* jobs
lost: 0
""",
    "fan_out.py": r"""buffer\.7\.changed would go to indexer, linter, monitor
indexer received 1000 changes
linter received 100 changes
monitor received [1-9]\d* changes
""",
    "camera.py": """recorder: 45 frames, in_order=True
display: some of them, the last is number 45
""",
    "dataframe.py": """1,000,000 rows of time, symbol, price, volume: 40,000,000 bytes
the last trade: 2026-11-30T23:53:19.914
ANNA: 1,500,003
BERT: 1,499,997
CARL: 1,500,000
""",
    "data_loader.py": """32 of 32 batches, although a worker was killed
the second epoch has another order: True
one worker, the same batches in the same order: True
""",
    "copy_file.py": """16,777,225 bytes in 17 parts
the checksums are equal
""",
    "gui_loop.py": r"""60 of 60 tiles drawn, 0 lost
routing latency beside the busy loop: \d+ µs
""",
    "supervisor.py": r"""worker-1 was killed, and answers again with another pid
worker-2 was killed, and answers again with another pid
worker-1 was killed, and answers again with another pid
worker-2 was killed, and answers again with another pid
worker-1 is running, was started again 2 times
worker-2 is running, was started again 2 times
""",
    "http_service.py": r"""/square/7 200 {"square": 49}
/square/9000 504 {"error": "no worker answered within 0\.5 s"}
/cube/7 404 {"error": "there is no /cube/7"}
the workers said:
  event: work\.begun
  event: work\.begun
  event: work\.cancelled
""",
    "gateway/demo.py": r"""node counts 6 words
and tells everybody: {'text': 'to be or not to be', 'count': 6}
one after the other: to, be, or, not
the shell says: bonjour Ada
words raised TypeError: words\.count takes a text
greeter raised LookupError: no such language
""",
    "other_loops/selectors_loop.py": """client reads: HELLO 0
client reads: HELLO 1
client reads: HELLO 2
""",
    "other_loops/trio_loop.py": r"""temperatures: 20\.0 21\.0 22\.0
nobody measures any more: True
the loop went on meanwhile: True
""",
    "other_loops/gevent_loop.py": r"""temperatures: 20\.0 21\.0 22\.0
answers: 20\.0 21\.0 22\.0
the loop went on meanwhile: True
""",
    "other_loops/tkinter_loop.py": """the window shows 1
the window shows 2
the window shows 3
""",
}


def test_every_example_is_run() -> None:
    """Here, or where tests of a larger one are: in a folder of its name."""
    found = {file.relative_to(EXAMPLES) for file in EXAMPLES.rglob("*.py")}
    own = {folder.name for folder in Path(__file__).parent.iterdir() if folder.is_dir()}
    assert {str(file) for file in found if file.parts[0] not in own} == set(SHOWN)


PROGRAMS = {"gateway/demo.py": ("bash", "jq", "node")}
"""Which programs an example needs beside Python."""


@contextlib.contextmanager
def display() -> Iterator[str]:
    """A display that nobody sees. Skips the test where there is none."""
    if shutil.which("Xvfb") is None or importlib.util.find_spec("_tkinter") is None:
        pytest.skip("there is no Xvfb, or no tkinter")
    shown, number = os.pipe()
    command = ["Xvfb", "-displayfd", str(number), "-nolisten", "tcp", "-screen", "0", "64x64x24"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=[number]) as server:
        os.close(number)
        try:
            with open(shown) as line:
                yield ":" + line.readline().strip()
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("example", SHOWN)
def test_the_example_prints_what_it_promises(example: str) -> None:
    for program in PROGRAMS.get(example, ()):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    command = [sys.executable, "-W", "error", str(EXAMPLES / example)]
    with contextlib.ExitStack() as opened:
        shown = opened.enter_context(display()) if "tkinter" in example else ""
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            env=os.environ | {"DISPLAY": shown},
        )
        try:
            printed, complaints = process.communicate(timeout=120)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
                process.communicate()
    assert process.returncode == 0, complaints
    assert complaints == ""
    assert re.fullmatch(SHOWN[example], printed), printed
    left = [file for file in os.listdir("/dev/shm") if f"-{process.pid}:" in file]
    assert left == []


@pytest.mark.slow
def test_the_http_service_serves_until_ctrl_c_and_ends_the_events_of_a_browser() -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "http_service.py"), "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"http://[\w.:]+", process.stdout.readline())[0]
        with urllib.request.urlopen(f"{address}/events", timeout=60) as events:
            assert events.readline() == b": from here on\n"
            with urllib.request.urlopen(f"{address}/square/7", timeout=60) as response:
                assert response.read() == b'{"square": 49}'
            process.send_signal(signal.SIGINT)
            assert events.read() == b"\nevent: work.begun\ndata: 7\n\n"
        _, complaints = process.communicate(timeout=60)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert (process.returncode, complaints) == (0, "")
