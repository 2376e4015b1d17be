"""Serving a bus: the dispatcher in this process, and the bus seen from it."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from typing import Any, Literal

from . import errors
from .dispatcher.asking import check
from .dispatcher.control import Dispatcher
from .endpoint.attach import attach
from .endpoint.endpoint import Endpoint
from .endpoint.payloads import DecodeHook, EncodeHook
from .settings import Settings, check_settings
from .shared import green, names, shortage
from .shared._kernel import seconds
from .shared.grants import Grants
from .shared.signals import uninterrupted
from .views.observe import BusView

_serving: set[Bus] = set()
"""Buses not ended yet; they are ended when the interpreter exits."""


class Bus(BusView):
    """A bus that this process serves. Leaving its ``with`` block ends it.

    `grants`: those with which it is served."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.grants = dispatcher.grants
        self._ending = threading.RLock()  # reentrant: a signal's handler may close meanwhile
        try:
            super().__init__(dispatcher.bus)
        except BaseException:  # the caller gets no bus that it could close
            dispatcher.close(0.0, handover=dispatcher.adopting)
            raise
        _serving.add(self)

    def attach(
        self,
        name: str | None = None,
        *,
        timeout: float | None = 5.0,
        settings: Settings | None = None,
        types: Mapping[str, Any] | None = None,
        encode: EncodeHook | None = None,
        decode: DecodeHook | None = None,
        reconnect: bool | Literal["always"] = False,
    ) -> Endpoint:
        """An endpoint of this bus; the arguments are those of `shmbus.attach`."""
        return attach(
            self.name,
            name=name,
            timeout=timeout,
            settings=settings,
            types=types,
            encode=encode,
            decode=decode,
            reconnect=reconnect,
        )

    def evict(self, name: str) -> None:
        """Evict the endpoint of that name: end it, whatever state its process is in. Requests that
        it was handling end with ``EndpointDied``, messages that it had not begun are handed on,
        and its own calls raise ``Evicted``.

        Raises ``InvalidName``; ``NoSuchEndpoint`` where no endpoint has that name."""
        names.check_attached(name)
        if not self._dispatcher.evict(name):
            there = tuple(e.name for e in self.endpoints() if e.site is None)
            raise errors.NoSuchEndpoint(bus=self.name, endpoint=name, there=there)

    def close(self, *, timeout: float | None = 5.0, handover: bool = False) -> None:
        """End the bus. What endpoints have accepted is forwarded first, for ``timeout`` seconds at
        most (None: no limit); then they get ``BusDown``, all but those attached with
        ``reconnect="always"``: these wait for the next `serve`, which adopts the bus with them, its
        settings included. With ``handover`` everything is left as it stands for the next `serve` to
        adopt. In the main thread, what signals call waits until it has ended. Harmless if done
        before."""
        timeout = seconds(timeout)
        with uninterrupted(), self._ending:
            self._dispatcher.close(timeout, handover=handover)
            _serving.discard(self)
            super().close()


def serve(
    name: str,
    *,
    settings: Settings | None = None,
    replace: bool = False,
    grants: Grants | None = None,
) -> Bus:
    """Host the dispatcher of a bus in this process, until the returned bus is closed.

    ``settings`` hold for the bus; their sizes are the defaults of its endpoints. ``replace`` puts a
    bus of another layout, which another version of this package left running, out of service;
    without it that is a ``LayoutMismatch``. ``grants`` says for each endpoint of another process,
    when it attaches, what it may do: a `Grant`, or None for everything. It is a mapping by
    endpoint name, with ``*`` for all others (who has neither is refused), or a function of a
    `Candidate`, which raises `Forbidden` for one that may not attach. The function is called in
    threads of its own, several at a time, and must answer within a second. In the main thread, what
    signals call waits until the bus is served.

    Raises ``BusExists`` (with the pid of who serves it), ``LayoutMismatch``, ``SegmentError``,
    ``InvalidName``, ``InvalidSetting``, ``NotSupported``; ``NoResource`` or ``NoThread`` where the
    system gives no more. Then nothing of it is left, whoever keeps the error.
    """
    green.refuse("serving a bus")
    names.check_bus(name)
    settings = check_settings(settings) or Settings()
    grants = check(grants)
    bus = None
    try:
        with shortage.nothing_kept(), shortage.told(name, "memory to serve with"), uninterrupted():
            bus = Bus(Dispatcher(name, settings, replace=replace, grants=grants))
    except BaseException:
        if bus is not None:
            bus.close()
        raise
    return bus


@atexit.register  # later than the endpoints' hook, whose module is imported above: it runs first
def _close_all() -> None:
    for bus in list(_serving):
        try:
            bus.close(timeout=1.0)
        except errors.BusError:
            pass
