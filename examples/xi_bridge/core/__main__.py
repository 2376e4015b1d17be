"""The stand-in core on its standard streams: `python -m xi_bridge.core`, or by the folder's path.

It ends when its standard input does, as the core of XI does.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if not __package__:  # started by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from xi_bridge.core.core import Core


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def write(line: bytes) -> None:
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(1, left) :]
        except BrokenPipeError:  # nobody reads what it says
            os._exit(0)

    def log(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    core = Core(write, log)
    for line in sys.stdin.buffer:
        core.receive(line)


if __name__ == "__main__":
    main()
