"""Errors on their way to another site, where a request is to end with the same class and facts."""

from __future__ import annotations

from shmbus.errors import BusError
from shmbus.shared.failures import Passed, encode_failure, remote_error


def account(error: BusError) -> bytes:
    """What is told of it."""
    return encode_failure(Passed(error))


def read(found: bytes, type: str, site: str) -> BusError:
    """What a site tells, also where it is garbage: of a request that has this type here. Whom it
    names is an endpoint there."""
    error = remote_error(type, "@link", found)
    facts = error.data
    endpoint = facts.get("endpoint")
    if endpoint and not endpoint.endswith(f"@{site}"):
        error = error.__class__(**{**facts, "endpoint": f"{endpoint}@{site}"})
    return error
