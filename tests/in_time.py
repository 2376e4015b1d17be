"""A call that may not hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def in_time(call: Callable[[], Any]) -> Any:
    """What it returns, in another thread and within a minute."""
    returned: list[Any] = []
    thread = threading.Thread(target=lambda: returned.append(call()), daemon=True)
    thread.start()
    thread.join(60)
    assert returned, f"{call} hangs"
    return returned[0]
