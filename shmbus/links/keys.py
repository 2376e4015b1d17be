"""Key expressions: what the links of a space say to each other, by which key.

Everything of a space is below ``shmbus/WIRE/SPACE``. A token at ``site/SITE/RUN`` says that a site
is up. What is for a site is below ``to/SITE/SOURCE/LANE``, and with a type below that in chunks of
its own: so access control can name who sends what to whom.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from shmbus.errors import InvalidType
from shmbus.shared import patterns

WIRE = 1
"""Which version of keys and frames this is. Links of different ones do not talk."""

_ROOT = "shmbus"


class Address(NamedTuple):
    """Whose frame it is, in which lane, and its type."""

    source: str
    lane: str
    type: str


class Token(NamedTuple):
    """That a link is alive."""

    wire: str
    """Its version."""
    site: str
    run: str


_NAME = r"[A-Za-z0-9_.-]+"
_TOKEN = re.compile(rf"{_ROOT}/([^/]+)/{_NAME}/site/({_NAME})/([0-9a-f]{{16}})\Z")


def token(space: str, site: str, run: str) -> str:
    """The key of the token that says that this site is up."""
    return f"{_ROOT}/{WIRE}/{space}/site/{site}/{run}"


def tokens(space: str, site: str = "*") -> str:
    """A site's tokens, or all sites', those of other versions included."""
    return f"{_ROOT}/*/{space}/site/{site}/*"


def read_token(key: str) -> Token | None:
    """What a token says; None: it is none."""
    found = _TOKEN.match(key)
    return None if found is None else Token(*found.groups())


def inbox(space: str, site: str) -> str:
    """All that is sent to this site."""
    return f"{_ROOT}/{WIRE}/{space}/to/{site}/*/**"


class Outbox:
    """The keys of what one site sends to another."""

    def __init__(self, space: str, site: str, to: str) -> None:
        self._prefix = f"{_ROOT}/{WIRE}/{space}/to/{to}/{site}/"

    def key(self, lane: str, type: str) -> str:
        """Of a frame of this type in this lane."""
        return f"{self._prefix}{lane}/{type.replace('.', '/')}"


class Inbox:
    """The keys of what one site gets."""

    def __init__(self, space: str, site: str) -> None:
        self._prefix = f"{_ROOT}/{WIRE}/{space}/to/{site}/"

    def read(self, key: str) -> Address | None:
        """Whose frame it is, by its key; None: it is none of ours."""
        if not key.startswith(self._prefix):
            return None
        source, _, rest = key[len(self._prefix) :].partition("/")
        lane, _, chunks = rest.partition("/")
        type = chunks.replace("/", ".")
        return Address(source, lane, type) if source and lane and _is_type(type) else None


@lru_cache(4096)
def _is_type(type: str) -> bool:
    try:
        patterns.check_type(type)
    except InvalidType:
        return False
    return True


def expression(space: str, source: str, to: str, lane: str, pattern: str) -> str:
    """Of all types that a pattern matches, for access control: ``a.*.>`` is ``a/*/*/**``."""
    chunks = "/".join("*/**" if token == ">" else token for token in pattern.split("."))
    return f"{_ROOT}/{WIRE}/{space}/to/{to}/{source}/{lane}/{chunks}"


def lane(space: str, source: str, to: str, lane: str) -> str:
    """Of all frames in this lane, for access control."""
    return f"{_ROOT}/{WIRE}/{space}/to/{to}/{source}/{lane}/**"
