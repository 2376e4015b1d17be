"""The terminal application: a table of endpoints, a page for each, routes, deaths, a live tail."""

from __future__ import annotations

from .pages.bus import BusPage
from .pages.help import HelpPage
from .pages.page import SamplingApp


class ShmTop(SamplingApp):
    """Begins with the page of the bus."""

    CSS_PATH = "shmtop.tcss"
    ENABLE_COMMAND_PALETTE = False

    async def on_mount(self) -> None:
        await self.push_screen(BusPage())

    def help(self) -> None:
        self.push_screen(HelpPage())
