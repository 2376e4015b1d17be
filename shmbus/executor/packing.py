"""Values of a pool as payloads: pickle, which is spoken among the processes of one pool alone."""

from __future__ import annotations

import pickle
from typing import Any


def pack(value: object) -> Any:
    """The payload that stands for a value. Raises what pickling it raises."""
    return pickle.dumps(value, protocol=5)


def unpack(payload: Any) -> Any:
    """The value that a payload stands for. Raises what unpickling it raises."""
    return pickle.loads(payload)
