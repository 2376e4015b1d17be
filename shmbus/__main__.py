"""``python -m shmbus NAME`` serves a bus; it needs none of the package's extras."""

from __future__ import annotations

import argparse
import sys

from .errors import BusError
from .host import OPTIONS, host, summary
from .settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Exit codes: 0 ended by one of them, 1 could not serve, 2 bad
    command line."""
    parser = argparse.ArgumentParser(
        prog="python -m shmbus",
        description="Serve a bus until Ctrl-C or SIGTERM.",
        epilog="The command `shmbus`, of the extra `tools`, does more: pip install 'shmbus[tools]'",
    )
    parser.add_argument("name", metavar="NAME", help="of the bus")
    for option in OPTIONS:
        default = "" if option.default is None else f" (default: {option.default})"
        parser.add_argument(
            option.name,
            type=option.type,
            default=option.default,
            metavar=option.unit,
            help=f"{option.help.rstrip('.')}{default}",
        )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="put a bus of that name, left running by another version, out of service",
    )
    parser.add_argument(
        "--handover",
        action="store_true",
        help="at the end, leave the bus as it stands for the next to adopt",
    )
    options = parser.parse_args(arguments)
    try:
        host(
            options.name,
            settings=Settings(**{o.setting: getattr(options, o.setting) for o in OPTIONS}),
            replace=options.replace,
            handover=options.handover,
            ready=lambda bus: print(summary(bus), flush=True),
        )
    except (BusError, OSError) as problem:
        print(f"shmbus: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
