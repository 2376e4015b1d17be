"""The space that a bus is joined to: joining it, and which sites' tokens come and go there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from shmbus.aio.endpoint import Endpoint
from shmbus.aio.threads import in_thread
from shmbus.errors import BusError, LinkFailed, SiteTaken

from . import keys
from .config import LinkConfig
from .membership import Change, Down, Membership, Rival, Up, rival
from .peers import Peers
from .reach import Reach
from .session import Frame, Session, Sign


class Space:
    """The part that one link has in it."""

    def __init__(
        self,
        config: LinkConfig,
        run: str,
        peers: Peers,
        on_frames: Callable[[list[Frame]], None],
        end: Callable[[BusError], None],
    ) -> None:
        """`end`: called where the link must give way to another of its site."""
        self._config, self._run, self._peers = config, run, peers
        self._on_frames, self._end = on_frames, end
        self.on_refused: list[Callable[[], None]] = []
        """Called when sites that speak another version have come, or have gone."""
        self._session: Session | None = None
        self._reach: Reach | None = None
        self._membership = Membership(config.site, run)
        self._rivals: set[str] = set()
        self._rivals_changed = asyncio.Event()
        self._joined = False
        self._outliving: asyncio.Task[None] | None = None

    async def join(self, endpoint: Endpoint) -> None:
        """Join it to the bus of this endpoint. Raises `NotSupported`, `LinkFailed` and
        `SiteTaken`."""
        config = self._config
        await self._apart(partial(self._require_sole, endpoint))
        session = Session(config, endpoint.bus.name, self._on_frames, self.take_signs)
        self._session = session
        await self._apart(session.open)
        self._reach = reach = Reach(config, session.connected)
        await self._apart(partial(session.watch_connections, reach.look))
        reach.look()
        await self._apart(partial(session.watch, keys.tokens(config.space)))
        await self._alone(session)
        await self._apart(partial(session.receive, keys.inbox(config.space, config.site)))
        token = keys.token(config.space, config.site, self._run)
        self._joined = True
        await self._apart(partial(session.declare_token, token))

    async def _apart(self, function: Callable[[], None]) -> None:
        """Call what may wait, in a thread."""
        await in_thread(f"@{self._config.name}", "session", function)

    def _require_sole(self, endpoint: Endpoint) -> None:
        """Raises `LinkFailed` where another link joins this bus to the same space: all would cross
        twice."""
        space = self._config.space
        for other in endpoint.bus.sites():
            if (other.state, other.space) == ("here", space) and other.link != endpoint.name:
                raise LinkFailed(
                    bus=endpoint.bus.name,
                    site=self._config.site,
                    reason=f"{other.link!r} joins it to space {space!r} already, as site "
                    f"{other.name!r}",
                    remedy="End that link, or give this one another space",
                )

    # Rivals ----------------------------------------------------------------------------------

    async def _alone(self, session: Session) -> None:
        """Wait until no other link has this site's name. Raises `SiteTaken`."""
        config = self._config
        mine = keys.token(config.space, config.site, "*")
        found: list[str] = []
        await self._apart(lambda: found.extend(session.tokens(mine, config.detection)))
        other = rival(config.site, self._run, found)
        if other is not None:
            self._rivals.add(other)
            await self._outlive()

    async def _outlive(self) -> None:
        """Wait for the end of rivals. Raises `SiteTaken`."""
        try:
            async with asyncio.timeout(self._config.detection):
                while self._rivals:
                    self._rivals_changed.clear()
                    await self._rivals_changed.wait()
        except TimeoutError:
            raise SiteTaken(
                space=self._config.space,
                site=self._config.site,
                run=min(self._rivals),
                seconds=self._config.detection,
            ) from None

    async def _outlive_later(self) -> None:
        """Two links of one site had not seen each other when they began: one of them gives way."""
        try:
            await self._outlive()
        except SiteTaken as why:
            self._end(why)
        self._outliving = None

    # Tokens ----------------------------------------------------------------------------------

    def take_signs(self, signs: list[Sign]) -> None:
        """Tokens have come, or have gone."""
        refused = dict(self._membership.refused)
        for key, there in signs:
            for change in self._membership.sign(key, there):
                self._changed(change)
        if self._membership.refused != refused:
            for call in self.on_refused:
                call()

    def _changed(self, change: Change) -> None:
        match change:
            case Up(site, run):
                assert self._session is not None
                self._peers.meet(site, run, self._session.put)
            case Down(site, _, reason):
                self._peers.down(site, reason)
            case Rival(run, there):
                (self._rivals.add if there else self._rivals.discard)(run)
                self._rivals_changed.set()
                if there and self._joined and self._outliving is None and run < self._run:
                    loop = asyncio.get_running_loop()
                    self._outliving = loop.create_task(self._outlive_later())

    # Facts -----------------------------------------------------------------------------------

    @property
    def refused(self) -> dict[str, str]:
        """Sites whose links speak another version, and which."""
        return self._membership.refused

    @property
    def listening(self) -> tuple[str, ...]:
        """Where others may connect to."""
        return () if self._session is None else self._session.listening

    @property
    def unreached(self) -> dict[str, str]:
        """Addresses that are not reached, and why."""
        return {} if self._reach is None else self._reach.troubles

    @property
    def overrun(self) -> int:
        """Frames that were dropped because the loop did not take them."""
        return 0 if self._session is None else self._session.overrun

    # Ending ----------------------------------------------------------------------------------

    def rest(self) -> None:
        """Look no more for addresses and rivals: the link ends."""
        if self._reach is not None:
            self._reach.close()
        if self._outliving is not None:
            self._outliving.cancel()

    async def close(self) -> None:
        """Leave it."""
        if self._session is not None:
            await self._apart(self._session.close)
