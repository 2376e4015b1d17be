"""``python -m shmbus NAME`` serves a bus; it needs none of the package's extras."""

from __future__ import annotations

import argparse
import sys

from .errors import BusError
from .host import host, summary
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
    for option, default, what in (
        ("--in-bytes", Settings().in_bytes, "of each endpoint's ring for what it gets"),
        ("--out-bytes", Settings().out_bytes, "of that for what it sends"),
        ("--reply-bytes", Settings().reply_bytes, "of each of its two rings for replies"),
    ):
        parser.add_argument(
            option,
            type=int,
            default=default,
            metavar="BYTES",
            help=f"{what}; a power of two (default: %(default)s)",
        )
    parser.add_argument(
        "--max-endpoints",
        type=int,
        default=Settings().max_endpoints,
        metavar="N",
        help="at a time (default: %(default)s)",
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
            settings=Settings(
                in_bytes=options.in_bytes,
                out_bytes=options.out_bytes,
                reply_bytes=options.reply_bytes,
                max_endpoints=options.max_endpoints,
            ),
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
