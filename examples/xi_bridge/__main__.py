"""Serve a bus with a core on it: `python examples/xi_bridge BUS --state DIRECTORY`.

It ends at Ctrl-C and SIGTERM, and the bus with it; views and what was typed stay in the directory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import shmbus.aio

if not __package__:  # started by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from xi_bridge.host import PATIENCE, STAND_IN, Host

BLOCK_TIMEOUT = 0.1
"""A person waits for what was typed: of the bus's settings, less than the default."""


async def run(bus: str, state: Path, command: Sequence[str], patience: float) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with shmbus.aio.attach(bus, name="xi") as ep:
        await Host(ep, state, command, patience=patience).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="xi_bridge", description=__doc__)
    parser.add_argument("bus", help="name of the bus")
    parser.add_argument("--state", type=Path, required=True, help="directory for the journals")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for an answer")
    parser.add_argument(
        "--block-timeout",
        type=float,
        default=BLOCK_TIMEOUT,
        help="seconds for which a subscriber whose ring is full may hold up the others' updates",
    )
    parser.add_argument("core", nargs="*", help="command of the core, after --; else a stand-in")
    options = parser.parse_intermixed_args()  # so the core's command may follow options
    command = options.core or STAND_IN
    settings = shmbus.Settings(block_timeout=options.block_timeout)
    with shmbus.serve(options.bus, settings=settings):
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(run(options.bus, options.state, command, options.patience))


if __name__ == "__main__":
    main()
