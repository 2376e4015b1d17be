"""A link in this process: `link`, and the `Link` that it returns."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from shmbus.errors import ForkedEndpoint, InvalidSetting, LinkClosed, NoThread
from shmbus.shared import names, threads

from . import on_bus
from .announcing import Announcing
from .config import LinkConfig
from .confirmed import Confirmed
from .ends import Ends
from .events import Events
from .handling import Handling
from .keeper import Tell
from .loop import SharedLoop
from .node import Node
from .notes import Notes
from .pings import ping_peers
from .status import LinkStatus, status_of
from .watch import Watch
from .wire import new_run

log = logging.getLogger("shmbus")

CLOSING = 10.0
"""Seconds that `Link.close` waits at the most."""

T = TypeVar("T")

_links: set[Link] = set()
"""Those not closed yet; they are closed when the interpreter exits."""


class Link:
    """A bus joined to others, in a thread of its own; made by `link`. Thread-safe, a context
    manager: leaving its block ends it.

    `config`: what it was told.
    """

    def __init__(
        self,
        bus: str | None,
        config: LinkConfig,
        keep: Tell | None = None,
        former: Collection[str] = (),
    ) -> None:
        """`former`: what `Keeper.sites` says."""
        self.config = config
        self._bus, self._keep, self._former = bus, keep, former
        self._pid = os.getpid()
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._reason: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"shmbus-link-{config.site}")
        self._thread.daemon = True  # an exit closes it, and does not wait for ever
        self._loop: asyncio.AbstractEventLoop | None = None
        self._node: Node | None = None
        self._stop = asyncio.Event()
        try:
            threads.start(self._thread)
        except RuntimeError as why:
            raise NoThread(bus=bus, task="link", reason=str(why)) from None
        _links.add(self)
        try:
            self._ready.result()
        except BaseException:
            self.close()
            raise

    def status(self) -> LinkStatus:
        """Itself, and the other sites, at this moment. Raises `LinkClosed`, and in a forked child
        `ForkedEndpoint`."""
        return self._call(status_of)

    def ping(self, site: str) -> float:
        """Seconds to this site and back, measured now. Raises `NoSuchSite`, `LinkClosed`."""
        return self._await(lambda node: node.ping(site))

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended. False after `timeout` seconds (None: no limit). Raises what has
        ended it, but `close`."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        if self._reason is not None:
            raise self._reason
        return True

    def close(self) -> None:
        """Leave the other sites and the bus. Harmless if done before, and in a forked child."""
        loop = self._loop
        if loop is not None and os.getpid() == self._pid:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSING)
        _links.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # In its thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            loop = SharedLoop()
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve(loop))
        except BaseException as why:
            self._reason = why
            if not self._ready.done():
                self._ready.set_exception(why)
            else:
                log.error("link %s has ended: %s", self.config.site, why)

    async def _serve(self, loop: SharedLoop) -> None:
        self._loop = loop
        node = Node(self._bus, self.config, new_run(), self._keep, self._former)
        opening = asyncio.ensure_future(_open(node, loop))
        stopped = asyncio.ensure_future(self._stop.wait())
        waiting: list[asyncio.Future[Any]] = [stopped, node.ended]
        try:
            await asyncio.wait([opening, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                opening.cancel()
            await opening
            self._node = node
            self._ready.set_result(None)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if node.ended.done():
                node.ended.result()
        finally:
            stopped.cancel()
            self._node = None
            await node.close()

    def _call(self, function: Callable[[Node], T]) -> T:
        """What it returns, called in the loop. Raises `LinkClosed`."""

        async def call(node: Node) -> T:
            return function(node)

        return self._await(call)

    def _await(self, function: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
        """Likewise, where that is to be awaited."""
        loop, node = self._loop, self._node
        if os.getpid() != self._pid:
            raise ForkedEndpoint(endpoint=f"@{self.config.name}", pid=self._pid)
        if loop is None or node is None or self.closed:
            raise self._closed()
        calling = function(node)
        try:
            return asyncio.run_coroutine_threadsafe(calling, loop).result(CLOSING)
        except (RuntimeError, concurrent.futures.CancelledError):
            calling.close()
            raise self._closed() from None

    def _closed(self) -> LinkClosed:
        reason = "" if self._reason is None else str(self._reason)
        return LinkClosed(site=self.config.site, reason=reason)


async def _open(node: Node, loop: SharedLoop) -> None:
    """Join the space with all that a link does."""
    await node.attach()
    watch = Watch(node.relay, loop)
    node.asked = watch.expect
    node.on_close.append(watch.close)
    notes = Notes(node)
    ping_peers(node)
    Ends(node)
    handling = Handling(node)
    Events(node)
    Confirmed(node, handling.answer)
    Announcing(node)
    on_bus.serve(node.endpoint, partial(status_of, node), node.ping)
    await node.join()
    notes.write()


def link(bus: str | None = None, config: LinkConfig | Mapping[str, Any] | None = None) -> Link:
    """Join a bus to others, by a link in this process: a context manager, at whose end it leaves.

    `bus`: None takes the one that SHMBUS_BUS in the environment names, or else the only one that
    runs. `config`: a `LinkConfig`, or a mapping of what its file says. Needs
    ``pip install 'shmbus[link]'``. Other sites come and go later, of themselves.

    Raises `InvalidSetting`, `NotSupported` (the package is missing), `LinkFailed`, `SiteTaken`,
    `NoThread`, and what `attach` raises.
    """
    if isinstance(config, Mapping):
        config = LinkConfig.of(config)
    if not isinstance(config, LinkConfig):
        raise InvalidSetting(
            setting="config",
            value=config,
            reason=f"it is of type {type(config).__name__}",
            remedy='Give shmbus.LinkConfig(site="berlin", ...), or read a file: '
            'LinkConfig.read("link.toml")',
        )
    if bus is not None:
        names.check_bus(bus)
    return Link(bus, config)


@atexit.register  # later than those of buses and endpoints, whose modules are imported above
def _close_all() -> None:
    for each in list(_links):
        each.close()
