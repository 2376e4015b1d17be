"""What a link is asked on its bus: how it is, and how far away a site is.

Every link of a bus answers who gathers; so whoever asks does not need to know their names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from shmbus.errors import NoRoute, NoSuchSite

from .status import LinkStatus

if TYPE_CHECKING:
    from shmbus.aio.endpoint import Endpoint as LoopEndpoint
    from shmbus.endpoint._kernel import Message
    from shmbus.endpoint.endpoint import Endpoint

STATUS, PING = "shmbus.link.status", "shmbus.link.ping"
"""The types of those requests."""

_ANSWER = 5.0  # seconds that a link of this machine has


class Pinged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a ping."""

    seconds: float | None = None
    """To the site and back; None: no such site is up."""
    space: str
    there: tuple[str, ...] = ()
    """The sites that are."""


def serve(
    endpoint: LoopEndpoint,
    status: Callable[[], LinkStatus],
    ping: Callable[[str], Awaitable[float]],
) -> None:
    """Answer that from now on. `ping` raises `NoSuchSite`."""

    async def tell(_: Message) -> bytes:
        return _answer(endpoint.name, status())

    async def measure(message: Message) -> bytes:
        try:
            took = await ping(str(message.payload))
            found = Pinged(seconds=took, space=status().space)
        except NoSuchSite as why:
            found = Pinged(space=why.space, there=why.there)
        return _answer(endpoint.name, found)

    endpoint.handle(STATUS, tell)
    endpoint.handle(PING, measure)


def _answer(name: str, value: msgspec.Struct) -> bytes:
    """As links answer who gathers: with the replies of several endpoints, here itself alone."""
    return msgspec.msgpack.encode([[name, "reply", 0, msgspec.msgpack.encode(value)]])


def ask_status(endpoint: Endpoint) -> list[LinkStatus]:
    """How the links of its bus are, those that answer. Raises `NoRoute` where there is none, and
    what `gather` raises."""
    return _ask(endpoint, STATUS, None, LinkStatus, _ANSWER)


def ask_ping(endpoint: Endpoint, site: str, timeout: float) -> list[Pinged]:
    """How far away a site is, as each link of the bus has found. Raises likewise."""
    return _ask(endpoint, PING, site, Pinged, timeout)


def _ask(endpoint: Endpoint, type: str, payload: object, of: Any, timeout: float) -> list[Any]:
    found = endpoint.gather(type, payload, timeout=timeout, reply_type=of)
    links = {name: one for name, one in found.items() if name.startswith("@")}
    if not links:
        raise NoRoute(type=type)
    return [one.payload for _, one in sorted(links.items()) if not isinstance(one, Exception)]
