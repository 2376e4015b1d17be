"""Why an address in `connect` is not reached: what a connection to it says.

Zenoh goes on trying and tells nobody why. So where there is no connection, the link tries as well,
now and then: the name, the connection, and with TLS the handshake, which says whose certificate is
refused, and by whom.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Collection
from contextlib import suppress

from .config import LinkConfig, Tls

log = logging.getLogger("shmbus")

FIRST, LONGEST = 1.0, 60.0
"""Seconds between tries: they double."""

_WAIT = 2.0  # seconds for a connection and its handshake
_REFUSAL = 0.2  # seconds in which the other side may refuse afterwards


class Reach:
    """The addresses of one link, in its loop."""

    def __init__(self, config: LinkConfig, connected: Callable[[], Collection[str]]) -> None:
        """`connected`: the addresses at the other ends of zenoh's connections."""
        self._config, self._connected = config, connected
        self._looking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._answered: set[str] = set()
        self.troubles: dict[str, str] = {}
        """Why it is not reached, for each address that is not."""

    def look(self) -> None:
        """Connections have come or gone, or are to come."""
        self._changed.set()
        if self._config.connect and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look())

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        """Until all is well."""
        pause = FIRST
        while True:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            pause = min(2 * pause, LONGEST)
            for address in self._config.connect:
                self._told(address, await self._trouble(address))
            if self._connected() and not self.troubles:
                return

    def _told(self, address: str, trouble: str | None) -> None:
        if trouble is None:
            self.troubles.pop(address, None)
        elif self.troubles.get(address) != trouble:
            self.troubles[address] = trouble
            log.warning("link %s: %s is not reached: %s", self._config.site, address, trouble)

    async def _trouble(self, address: str) -> str | None:
        connected = self._connected()
        if await resolved(address) & set(connected):
            return None
        found = await trouble(address, self._config.tls)
        if found is not None:
            self._answered.discard(address)
        elif connected or self._connected() or address not in self._answered:
            self._answered.add(address)  # zenoh may be about to connect
        elif self._config.auth is None:
            found = "it answers, but wants a user and a password, or is no link"
        else:
            found = "it answers, but refuses this site's user or password"
        return found


async def resolved(address: str) -> set[str]:
    """The same with the numbers of its host, as zenoh shows it of a connection."""
    protocol, host, port = _parts(address)
    if port is None:
        return {address}
    found: list[tuple[object, ...]] = []
    with suppress(OSError):
        loop = asyncio.get_running_loop()
        found = [a[4] for a in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    numbers = (str(number) for number, *_ in found)
    return {f"{protocol}/{f'[{n}]' if ':' in n else n}:{port}" for n in numbers}


async def trouble(address: str, tls: Tls | None) -> str | None:
    """What keeps a connection to it from being made; None: nothing that can be seen from here."""
    protocol, host, port = _parts(address)
    if protocol not in ("tcp", "tls") or port is None:
        return None  # of others only zenoh knows
    try:
        context = None if protocol == "tcp" or tls is None else certificates(tls)
        async with asyncio.timeout(_WAIT):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as why:
        return f"its certificate is refused here: {why.verify_message}"
    except ssl.SSLError as why:
        return f"there is no TLS with it: {_said(why)}"
    except TimeoutError:
        return f"it does not answer within {_WAIT:g} s"
    except socket.gaierror as why:
        return f"its name is not known: {why.strerror}"
    except OSError as why:
        return os.strerror(why.errno).lower() if why.errno else str(why)
    try:
        return None if context is None else await _refusal(reader)
    finally:
        writer.transport.abort()


async def _refusal(reader: asyncio.StreamReader) -> str | None:
    """With TLS 1.3 the other side refuses a certificate after the handshake has succeeded here."""
    try:
        async with asyncio.timeout(_REFUSAL):
            await reader.read(1)
    except ssl.SSLError as why:
        return f"it refuses this site's certificate: {_said(why)}"
    except OSError:  # a timeout is one
        pass
    return None


def certificates(tls: Tls) -> ssl.SSLContext:
    """With its files. Raises OSError, also where they do not belong together."""
    context = ssl.create_default_context(cafile=tls.ca)
    context.load_cert_chain(tls.certificate, tls.key)
    return context


def _parts(address: str) -> tuple[str, str, int | None]:
    """Protocol, host and port of ``tls/192.0.2.7:7447?options``."""
    protocol, _, rest = address.partition("/")
    host, _, port = rest.partition("?")[0].partition("#")[0].rpartition(":")
    return protocol, host.strip("[]"), int(port) if port.isdecimal() else None


def _said(why: ssl.SSLError) -> str:
    return (why.reason or str(why)).lower().replace("_", " ")
