"""Who may send what to whom: access control, in zenoh's own terms.

The key of a frame names its destination, its source, its lane and its type, so rules about keys
are all that is needed. A site is known by the common name of its certificate, or by its user name.
What others say in the control lane, who they are and what they want, and replies to what they were
asked always pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from . import keys, wire

_DATA = (wire.EVENT, wire.SEND, wire.REQUEST)


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What one site may do, by the word of the link or router that it connects to, or that connects
    to it."""

    send: Sequence[str] = (">",)
    """Patterns of what it may send, in the names of the space: events, commands, requests."""
    to: Sequence[str] = ("*",)
    """The sites that it may send them to; ``*``: all."""
    carries: bool = False
    """Whether it may pass on what others send, as a router does."""


def control(space: str, sites: Mapping[str, Access], subject: str) -> dict[str, Any]:
    """zenoh's configuration for it: all that is not permitted here is refused. `subject`: by what a
    site is known, ``cert_common_names`` or ``usernames``."""
    rules = [rule for site, access in sites.items() for rule in _rules(space, site, access)]
    return {
        "enabled": True,
        "default_permission": "deny",
        "subjects": [{"id": site, subject: [site]} for site in sites],
        "rules": rules,
        "policies": [
            {
                "subjects": [site],
                "rules": [r["id"] for r in rules if r["id"].startswith(f"{site} ")],
            }
            for site in sites
        ],
    }


def _rules(space: str, site: str, access: Access) -> Iterator[dict[str, Any]]:
    name = "*" if access.carries else site

    def rule(what: str, flow: str, messages: Sequence[str], expressions: Sequence[str]) -> Any:
        return {
            "id": f"{site} {what}",
            "permission": "allow",
            "flows": [flow],
            "messages": messages,
            "key_exprs": expressions,
        }

    sent = [
        keys.expression(space, name, to, lane, pattern)
        for lane in _DATA
        for to in access.to
        for pattern in access.send
    ]
    sent += [keys.lane(space, name, "*", lane) for lane in (wire.REPLY, wire.CONTROL)]
    watch = ("declare_liveliness_subscriber", "liveliness_query")
    yield rule("sends", "ingress", ["put"], sent)
    yield rule("lives", "ingress", ["liveliness_token"], [keys.tokens(space, name)])
    yield rule("receives", "ingress", ["declare_subscriber"], [keys.inbox(space, name)])
    yield rule("looks", "ingress", watch, [keys.tokens(space)])
    yield rule("is sent", "egress", ["put"], [keys.inbox(space, name)])
    yield rule("is told", "egress", ["liveliness_token", *watch], [keys.tokens(space)])
    yield rule("is asked", "egress", ["declare_subscriber"], [keys.inbox(space, "*")])
