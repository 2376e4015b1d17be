"""What runs a `Process` with a target: ``python -m shmbus.supervisor.target MODULE:FUNCTION``."""

from __future__ import annotations

import importlib
import os
import sys

PATH = "SHMBUS_TARGET_PATH"
"""Of the environment: where modules are looked for, as by the process that runs the supervisor."""


def main() -> None:
    path = os.environ.pop(PATH, "")
    if path:
        sys.path[:] = path.split(os.pathsep)
    module, _, function = sys.argv[1].partition(":")
    del sys.argv[1]
    getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    main()
