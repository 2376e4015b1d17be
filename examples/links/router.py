"""A router between sites, for links in mode "client": it has no bus, and carries what they send.

python router.py router.toml           runs it, until Ctrl-C
python router.py --print router.toml   shows zenoh's configuration of it, for `zenohd --config FILE`

Its file is that of a link, with `mode = "router"`.
"""

import json
import signal
import sys

import zenoh

from shmbus.links.config import LinkConfig
from shmbus.links.transport import settings


def configuration(path: str) -> zenoh.Config:
    """What the file says, for zenoh."""
    given = LinkConfig.read(path)
    made = zenoh.Config()
    for key, value in settings(given, given.listen).items():
        made.insert_json5(key, json.dumps(value))
    return made


def main(*arguments: str) -> None:
    config = configuration(arguments[-1])
    if arguments[0] == "--print":
        print(config)
        return
    with zenoh.open(config):
        print("routing", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main(*sys.argv[1:])
