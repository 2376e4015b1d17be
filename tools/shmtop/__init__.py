"""The live queue inspector: `shmtop [BUS]`."""

import importlib.util
import signal
import sys


def main() -> None:
    """Show a bus; without the extra `tools`, print how to install it."""
    for needed in ("click", "rich", "textual"):
        if importlib.util.find_spec(needed) is None:
            sys.exit("shmtop: the command needs the extra `tools`: pip install 'shmbus[tools]'")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until all is imported
    from shmbus_console.run import run

    from .command import shmtop

    sys.exit(run(shmtop, "shmtop"))
