"""Where the command ``shmbus`` begins: outside its package, whose import takes a moment."""

import signal


def main() -> None:
    """Load the command line, and run it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until it is there, and ends in good order
    from shmbus.cli import main

    main()
