"""What is left of the deadline of that which the caller does.

It is a context variable: tasks have it from who made them, threads where they are started with
`contextvars.copy_context().run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ._kernel import deadline_in_context, in_force, until


def deadline() -> float | None:
    """Seconds that are left of the deadline in force: 0.0 when it has passed, None where there is
    none. That is the deadline of the request whose handler runs, or that of `within`."""
    found = in_force()
    left = None if found is None else found.left
    return None if left is None else max(0.0, left)


@contextmanager
def within(timeout: float) -> Iterator[None]:
    """A deadline for all requests in this `with` block: `timeout` seconds from its beginning. Their
    own timeouts count where they are shorter, and so does a deadline that was in force. Raises
    `InvalidSetting`."""
    token = deadline_in_context.set(until(timeout, in_force(), ""))
    try:
        yield
    finally:
        deadline_in_context.reset(token)


def span(timeout: float | None, inherit: bool = True) -> float | None:
    """Seconds that a call with this `timeout` may take here. Raises `InvalidSetting`."""
    return until(timeout, in_force() if inherit else None).seconds
