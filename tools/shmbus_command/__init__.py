"""The command ``shmbus``."""

import importlib.util
import signal
import sys


def main() -> None:
    """Run the command line; without the extra ``tools``, print how to install it."""
    for needed in ("click", "rich"):
        if importlib.util.find_spec(needed) is None:
            sys.exit("shmbus: the command needs the extra `tools`: pip install 'shmbus[tools]'")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until all is imported
    from shmbus_console.run import run

    from .app import shmbus

    sys.exit(run(shmbus, "shmbus"))
