"""What the asynchronous tests have in common."""

from __future__ import annotations

from typing import Any, Protocol

from shmbus.aio.attach import Attaching


class AioAttach(Protocol):
    """The type of the fixture `attach`."""

    def __call__(self, name: str, **options: Any) -> Attaching: ...
