"""What is started: a worker that answers with its pid, until it is told to end."""

from __future__ import annotations

import os
import sys

import shmbus

name = sys.argv[1]
with shmbus.attach(name=name, timeout=60.0) as endpoint:
    endpoint.handle(f"work.{name}", lambda message: os.getpid())
    endpoint.run()
