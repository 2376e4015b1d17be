"""The session with zenoh: what carries between machines.

zenoh calls in threads of its own. Where the link's loop sleeps, they take its place and see to what
has come; else they put it down here, and wake the loop once for all of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmbus.errors import LinkFailed, NoThread, NotSupported
from shmbus.shared import threads
from shmbus.shared.frames import Bytes

from .config import LinkConfig
from .loop import SharedLoop
from .reach import certificates
from .transport import settings, use_one_thread

if TYPE_CHECKING:
    import zenoh

log = logging.getLogger("shmbus")

Frame = tuple[str, bytes, bytes]
"""Key, attachment, payload."""
Sign = tuple[str, bool]
"""The key of a token, and whether it is there."""

_TRIES = 8  # to listen at a port that was free a moment ago
_PLACES = re.compile(r" at /\S+:\d+\.|[\[\]]")
"""In zenoh's errors: where in its source they were raised."""

_ENDING = 3.0  # seconds that `Session.close` waits for threads at the most

_FIRST = 0.1  # seconds until the next try to open it; then double
_FRAME = 512  # bytes of a frame besides its head and payload: objects of Python's
_MOST = 256 << 20  # bytes that may wait for the loop: more only from who keeps to no window


class Session:
    """That of one link, in the loop that runs."""

    def __init__(
        self,
        config: LinkConfig,
        bus: str,
        on_frames: Callable[[list[Frame]], None],
        on_signs: Callable[[list[Sign]], None],
    ) -> None:
        self._config, self._bus = config, bus
        self._loop = loop = asyncio.get_running_loop()
        self._shared = loop if isinstance(loop, SharedLoop) else None
        self._on_frames, self._on_signs = on_frames, on_signs
        self._frames: deque[Frame] = deque()
        self._signs: deque[Sign] = deque()
        self._waiting = 0
        self._awake = False
        self._lock = threading.Lock()
        self._session: zenoh.Session | None = None
        self._opening = threading.Lock()
        self._closing = threading.Event()
        self._declared: list[Any] = []
        self._later: list[Callable[[zenoh.Session], Any]] = []
        self._calling = 0
        self._called: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
        self._trying: threading.Thread | None = None
        self.listening: tuple[str, ...] = ()
        """Where others may connect to, with the ports that were chosen."""
        self.overrun = 0
        """Frames that were dropped because the loop did not take them."""

    def open(self) -> None:
        """Open it; waits, so a thread of its own calls this. Raises `NotSupported`,
        `LinkFailed`."""
        zenoh = _zenoh()
        self._check_files()
        use_one_thread()
        for tries_left in reversed(range(_TRIES)):
            listening = tuple(map(_with_port, self._config.listen))
            chosen = listening != tuple(self._config.listen)
            try:
                self._session = zenoh.open(self._settings(zenoh, listening))
                break
            except zenoh.ZError as why:
                if self._config.mode == "client":
                    self._open_later(zenoh)
                    break
                if not (chosen and tries_left):
                    raise self._failed(str(why)) from None
        self.listening = listening
        self._zenoh = zenoh
        self._block = {"congestion_control": zenoh.CongestionControl.BLOCK}

    def _open_later(self, zenoh: Any) -> None:
        """zenoh opens a client's session only when it reaches somebody: go on trying."""

        def trying() -> None:
            pause = _FIRST
            while not self._closing.wait(pause):
                pause = min(2 * pause, max(1.0, self._config.detection))
                try:
                    session = zenoh.open(self._settings(zenoh, ()))
                except zenoh.ZError:
                    continue
                with self._opening:
                    if not self._closing.is_set():
                        self._session = session
                        self._declared += [declare(session) for declare in self._later]
                        return
                session.close()

        thread = threading.Thread(target=trying, name="shmbus-link-client", daemon=True)
        try:
            threads.start(thread)
        except RuntimeError as why:
            raise NoThread(bus=self._bus, task="link", reason=str(why)) from None
        self._trying = thread

    def _settings(self, zenoh: Any, listening: tuple[str, ...]) -> zenoh.Config:
        made = zenoh.Config()
        for key, value in settings(self._config, listening).items():
            try:
                made.insert_json5(key, json.dumps(value))
            except zenoh.ZError as why:
                raise self._failed(f"zenoh takes no {key} = {value!r}: {why}") from None
        return made

    def _check_files(self) -> None:
        """zenoh looks at some of them only when somebody connects. Raises `LinkFailed`."""
        config = self._config
        try:
            for file in config.files():
                Path(file).read_bytes()
            if config.tls is not None:
                certificates(config.tls)
        except OSError as why:  # ssl's errors are
            raise LinkFailed(
                bus=self._bus,
                site=config.site,
                reason=f"its files cannot be used: {why}",
                remedy="See [tls] and [auth] in its configuration",
            ) from None

    def _failed(self, reason: str) -> LinkFailed:
        return LinkFailed(
            bus=self._bus,
            site=self._config.site,
            reason=f"zenoh has refused: {_PLACES.sub('', reason)}",
            remedy="See listen, connect and [zenoh] in its configuration",
        )

    # What comes ------------------------------------------------------------------------------

    def receive(self, key: str) -> None:
        """Get the frames that match this key."""
        self._declare(lambda session: session.declare_subscriber(key, self._by(self._framed)))

    def watch(self, key: str) -> None:
        """Be told of the tokens that match this key, those that are there first."""
        self._declare(
            lambda session: session.liveliness().declare_subscriber(
                key, self._by(self._signed), history=True
            )
        )

    def tokens(self, key: str, timeout: float) -> list[str]:
        """The keys of the tokens that match this one and are there; waits."""
        session = self._session
        found = () if session is None else session.liveliness().get(key, timeout=timeout)
        return [str(reply.ok.key_expr) for reply in found if reply.ok is not None]

    def declare_token(self, key: str) -> None:
        """Say that this link is alive."""
        self._declare(lambda session: session.liveliness().declare_token(key))

    def watch_connections(self, changed: Callable[[], None]) -> None:
        """Have this called in the loop when connections have come or gone."""

        def told(_: zenoh.LinkEvent) -> None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(changed)

        self._declare(lambda session: session.info.declare_link_events_listener(self._by(told)))

    def connected(self) -> set[str]:
        """The addresses at the other ends of its connections."""
        session = self._session
        return set() if session is None else {link.dst for link in session.info.links()}

    def _by(self, function: Callable[[Any], None]) -> Any:
        """What has zenoh call this, in a thread that `close` waits for."""

        def dropped() -> None:  # the last that zenoh calls in that thread
            self._called.put(threading.current_thread())

        self._calling += 1
        return self._zenoh.handlers.Callback(function, dropped)

    def _framed(self, sample: zenoh.Sample) -> None:
        """In a thread of zenoh's."""
        attachment = sample.attachment
        payload = sample.payload.to_bytes()
        head = b"" if attachment is None else attachment.to_bytes()
        size = _size(head, payload)
        with self._lock:
            if self._waiting > _MOST:
                self.overrun += 1
                return
            self._waiting += size
        self._frames.append((str(sample.key_expr), head, payload))
        shared = self._shared
        if self._awake or shared is None or not shared.in_its_place(self._take):
            self._wake()

    def _signed(self, sample: zenoh.Sample) -> None:
        there = sample.kind == self._zenoh.SampleKind.PUT
        self._signs.append((str(sample.key_expr), there))
        self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        """In the loop: all that waits."""
        self._awake = False  # first: what comes from now on wakes it again
        signs = [self._signs.popleft() for _ in range(len(self._signs))]
        frames = [self._frames.popleft() for _ in range(len(self._frames))]
        size = sum(_size(head, payload) for _, head, payload in frames)
        with self._lock:
            self._waiting -= size
        if signs:
            self._on_signs(signs)
        if frames:
            self._on_frames(frames)

    # What goes -------------------------------------------------------------------------------

    def put(self, key: str, attachment: bytes, payload: Bytes) -> None:
        """Send a frame; waits where the way there is full. Thread-safe."""
        session = self._session
        if session is not None:
            try:
                # zenoh copies what it gets, and takes no views.
                content = payload if isinstance(payload, bytes) else bytes(payload)
                session.put(key, content, attachment=attachment, **self._block)
            except (
                self._zenoh.ZError,
                BufferError,
            ) as why:  # a payload whose pool cannot be mapped
                log.debug("frame %s not sent: %s", key, why)

    # Ending ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Withdraw what was declared, and end it; waits, so a thread of its own calls this."""
        self._closing.set()
        with self._opening:
            session, self._session = self._session, None
        if session is not None:
            for each in reversed(self._declared):
                with suppress(self._zenoh.ZError):
                    each.undeclare()
            self._declared.clear()
            with suppress(self._zenoh.ZError):
                session.close()
        self._join()

    def _join(self) -> None:
        """Wait for the threads that run code of zenoh's. One that is left when the interpreter
        ends aborts the process: CPython unwinds it, through frames of Rust."""
        end = time.monotonic() + _ENDING
        with suppress(queue.Empty):
            for _ in range(self._calling):
                called = self._called.get(timeout=max(0.0, end - time.monotonic()))
                called.join(max(0.0, end - time.monotonic()))
        if self._trying is not None:
            self._trying.join(max(0.0, end - time.monotonic()))

    def _declare(self, declare: Callable[[zenoh.Session], Any]) -> None:
        """Now, or when it is open."""
        with self._opening:
            if self._session is not None:
                self._declared.append(declare(self._session))
            else:
                self._later.append(declare)


def _size(head: bytes, payload: bytes) -> int:
    """What a frame takes while it waits, roughly."""
    return _FRAME + len(head) + len(payload)


def _zenoh() -> Any:
    try:
        import zenoh
    except ImportError as why:
        raise NotSupported(
            feature="joining buses across machines",
            reason=f"Eclipse Zenoh is not installed ({why})",
            remedy="Install it: pip install 'shmbus[link]'",
        ) from None
    return zenoh


def _with_port(endpoint: str) -> str:
    """With a port that is free now, where it is 0."""
    address, _, port = endpoint.rpartition(":")
    if port != "0":
        return endpoint
    host = address.partition("/")[2].strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as found:
        found.bind((host, 0))
        return f"{address}:{found.getsockname()[1]}"
