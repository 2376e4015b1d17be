"""The command `shmbus`."""

import importlib.util
import sys


def main() -> None:
    """Run the command line; without the extra `tools`, say how to install it."""
    if importlib.util.find_spec("click") is None:
        sys.exit("shmbus: the command needs the extra `tools`: pip install 'shmbus[tools]'")
    sys.exit("shmbus: this version has no commands yet")
