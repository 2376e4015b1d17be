"""What an endpoint of a test is attached with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from shmbus.settings import Settings


class WorkerOptions(TypedDict, total=False):
    """Arguments of `shmbus.attach` for an endpoint in another process, beside `name`. Without
    `timeout` it is `TIMEOUT`."""

    timeout: float | None
    settings: Settings | None
    reconnect: bool | Literal["always"]


class AttachOptions(WorkerOptions, total=False):
    """Arguments of `shmbus.attach`, beside `name`. Without `timeout` it is `TIMEOUT`."""

    types: Mapping[str, Any] | None
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any, Any], Any] | None


class AioAttachOptions(AttachOptions, total=False):
    """Arguments of `shmbus.aio.attach`, beside `name`. Without `timeout` it is `TIMEOUT`."""

    concurrency: int
