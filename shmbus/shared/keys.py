"""Keys: which tokens of a type make its key, and which member of a group owns one.

Every member of a group gets all messages of the keys that it owns: of all members the one whose
weight for the key is greatest. native/key.h computes the same, and a test compares both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from shmbus.errors import InvalidSetting

_KEY_TOKEN = re.compile(r"\{(?:\*|[A-Za-z0-9_-]+)\}\Z")
_MOST = 32  # tokens: a mask has as many bits
_ALL = 2**64 - 1


def mask_of(key: object, pattern: str) -> int:
    """A bit for each token of ``key`` that stands in braces: ``order.{id}.>`` for the pattern
    ``order.*.>``. Raises `InvalidSetting` where it is not this pattern with some ``*`` in
    braces."""
    tokens = pattern.split(".")
    example = ".".join("{id}" if t == "*" else t for t in tokens)
    remedy = f"Give the pattern with a name in braces for the *: key={example!r}"
    if "*" not in tokens:
        remedy = "Give a pattern with a * for each token of the key, such as 'order.*.>'"
    reason = ""
    mask = 0
    if pattern.startswith("$"):
        reason, remedy = "the bus's own events have no key", "Leave it out"
    elif not isinstance(key, str):
        reason = f"it is of type {type(key).__name__}"
    else:
        theirs = key.split(".")
        named = [i for i, token in enumerate(theirs) if _KEY_TOKEN.match(token)]
        mask = sum(1 << i for i in named)
        if [("*" if i in named else token) for i, token in enumerate(theirs)] != tokens:
            reason = f"it is not the pattern {pattern!r} with some of its * in braces"
        elif not named:
            reason = "no token of it stands in braces"
        elif named[-1] >= _MOST:
            reason = f"the key is among the first {_MOST} tokens"
    if reason:
        raise InvalidSetting(setting="key", value=key, reason=reason, remedy=remedy)
    return mask


def text_of(pattern: str, mask: int) -> str:
    """The pattern with the tokens of the key in braces: ``order.{*}.>``."""
    tokens = pattern.split(".")
    return ".".join(f"{{{t}}}" if mask >> i & 1 else t for i, t in enumerate(tokens))


def hash_of(type: str, mask: int) -> int:
    """Of the tokens of this type that are its key."""
    hashed = 0xCBF29CE484222325
    for i, token in enumerate(type.split(".")[:_MOST]):
        if mask >> i & 1:
            for byte in (token if i == 0 else f".{token}").encode():
                hashed = (hashed ^ byte) * 0x100000001B3 & _ALL
    return hashed


def weight(hashed: int, generation: int) -> int:
    """How much the member with this generation wants this key."""
    x = hashed ^ (generation & 0xFFFFFFFF) * 0x9E3779B97F4A7C15 & _ALL
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _ALL
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _ALL
    return x ^ x >> 31


def owner(type: str, mask: int, generations: Iterable[int]) -> int | None:
    """Which of these members owns the key of this type; None: there is none."""
    hashed = hash_of(type, mask)
    return max(generations, key=lambda each: weight(hashed, each), default=None)
