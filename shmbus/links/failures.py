"""Errors on their way to another site, where a request is to end with the same class and facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmbus.errors import BusError
from shmbus.shared.failures import Passed, encode_failure, remote_error

if TYPE_CHECKING:
    from .peer import Peer


def account(error: BusError) -> bytes:
    """What is told of it."""
    return encode_failure(Passed(error))


def read(found: bytes, type: str, peer: Peer) -> BusError:
    """What a peer tells, also where it is garbage: of a request that has this type here. Whom it
    names is an endpoint there."""
    error = remote_error(type, peer.link, found)
    facts = error.data
    endpoint = facts.get("endpoint")
    if endpoint and not endpoint.endswith(f"@{peer.site}"):
        error = error.__class__(**{**facts, "endpoint": f"{endpoint}@{peer.site}"})
    return error
