"""``python -m shmbus NAME`` serves a bus; it needs none of the package's extras."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from . import streams
from .errors import BusDown, BusError, LayoutMismatch, NoSuchBus, UsageError
from .host import host, summary
from .options import OPTIONS, Option
from .settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Exit codes: 0 ended by one of them, 1 could not serve, 2 bad
    command line, 3 the bus is of another version."""
    streams.prepare()
    parser = argparse.ArgumentParser(
        prog="python -m shmbus",
        description="Serve a bus until Ctrl-C or SIGTERM.",
        epilog="A TIME is 500ms, 2m, 1h30m or 1.5 (seconds). The command `shmbus`, of the extra "
        "`tools`, does more: pip install 'shmbus[tools]'",
    )
    parser.add_argument("name", metavar="NAME", help="of the bus")
    for option in OPTIONS:
        default = "" if option.shown is None else f" (default: {option.shown})"
        parser.add_argument(
            option.name,
            type=_reader(option),
            default=option.default,
            metavar=option.unit,
            help=f"{option.help.rstrip('.')}{default}",
        )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="Put a bus of that name, left running by another version, out of service",
    )
    parser.add_argument(
        "--handover",
        action="store_true",
        help="At the end, leave the bus as it stands for the next to adopt",
    )
    options = parser.parse_args(arguments)
    try:
        host(
            options.name,
            settings=Settings(**{o.setting: getattr(options, o.setting) for o in OPTIONS}),
            replace=options.replace,
            handover=options.handover,
            ready=lambda bus: streams.say(summary(bus), sys.stdout),
        )
    except (BusError, OSError) as problem:
        streams.say(f"shmbus: {problem}", sys.stderr)
        if isinstance(problem, UsageError):
            return 2
        return 3 if isinstance(problem, NoSuchBus | LayoutMismatch | BusDown) else 1
    finally:
        streams.leave()
    return 0


def _reader(option: Option) -> Callable[[str], float]:
    """What reads its value, with errors as argparse prints them."""

    def read(text: str) -> float:
        try:
            return option.type(text)
        except ValueError as problem:
            whole = f"{text!r} is not a whole number"
            raise argparse.ArgumentTypeError(
                whole if option.type is int else str(problem)
            ) from None

    return read


if __name__ == "__main__":
    sys.exit(main())
