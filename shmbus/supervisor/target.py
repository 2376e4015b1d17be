"""What runs a `Process` with a target: ``python -c COMMAND MODULE:FUNCTION``."""

from __future__ import annotations

import importlib
import os
import sys

COMMAND = f"from {__name__} import main; main()"
"""Not ``-m``: the package that it is in has imported it before, of which Python would warn."""

PATH = "SHMBUS_TARGET_PATH"
"""Of the environment: where modules are looked for, as by the process that runs the supervisor."""


def main() -> None:
    path = os.environ.pop(PATH, "")
    if path:
        sys.path[:] = path.split(os.pathsep)
    module, _, function = sys.argv[1].partition(":")
    del sys.argv[1]
    getattr(importlib.import_module(module), function)()
