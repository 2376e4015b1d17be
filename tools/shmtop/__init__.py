"""The live queue inspector: `shmtop [BUS]`."""

import importlib.util
import sys


def main() -> None:
    """Show a bus; without the extra `tools`, say how to install it."""
    if importlib.util.find_spec("textual") is None:
        sys.exit("shmtop: the command needs the extra `tools`: pip install 'shmbus[tools]'")
    sys.exit("shmtop: this version shows nothing yet")
