"""What all pages are made of: the application that samples a bus, and a page that shows the last
sample below the state of the bus."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import ClassVar

from textual.app import App, ComposeResult, ScreenStackError
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widget import Widget

from shmtop import figures, keys, lines
from shmtop.keys import Key
from shmtop.sampler import Sample, Sampler

from .bindings import bindings
from .line import KeyLine, Line
from .prompt import Prompt


class SamplingApp(App[None]):
    """Samples a bus at intervals, and shows the last sample on the page in front."""

    def __init__(self, sampler: Sampler, interval: float = 1.0) -> None:
        super().__init__()
        self.sampler, self.interval = sampler, interval
        self.sample = sampler.sample()
        self.paused = False
        self.attached: threading.Thread | None = None
        """What has attached to the bus for a page, and may still be leaving it."""

    async def on_mount(self) -> None:
        self._timer = self.set_interval(self.interval, self.look)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, self.exit)

    def look(self) -> None:
        """Look at the bus now, and show it."""
        if not self.paused:
            self.sample = self.sampler.sample()
        self.show()

    def show(self) -> None:
        """Show the last look on the page in front."""
        with suppress(ScreenStackError):  # at the end there may be no page any more
            if isinstance(self.screen, Page):
                self.screen.bring_up()

    def help(self) -> None:
        """Open the help."""
        raise NotImplementedError

    def pause(self) -> None:
        """Look no more, or go on."""
        self.paused = not self.paused
        self.show()

    def faster(self, factor: float) -> None:
        """Look more often, or less."""
        self.interval = min(max(self.interval * factor, 0.05), 60.0)
        self._timer.stop()
        self._timer = self.set_interval(self.interval, self.look)
        self.notify(f"a look every {figures.duration(self.interval)}", timeout=2)


class Page(Screen[None]):
    """A page that shows the last look."""

    KEYS: ClassVar[tuple[Key, ...]] = (keys.BACK,)
    """Its own; each calls the action of its name."""
    BINDINGS: ClassVar[list[BindingType]] = bindings((*keys.EVERYWHERE, keys.TAKE))
    AUTO_FOCUS = ""

    def __init_subclass__(cls, **kwargs: object) -> None:
        cls.BINDINGS = bindings(cls.KEYS)
        super().__init_subclass__(**kwargs)  # type: ignore[arg-type]

    @property
    def top(self) -> SamplingApp:
        assert isinstance(self.app, SamplingApp)
        return self.app

    def compose(self) -> ComposeResult:
        yield Line(id="headline")
        yield from self.body()
        yield KeyLine(id="keys")

    def body(self) -> Iterable[Widget]:
        """What the page has between the state of the bus and its keys."""
        raise NotImplementedError

    def show(self, sample: Sample) -> None:
        """Show this sample in its body."""
        raise NotImplementedError

    def bring_up(self) -> None:
        """Show the last sample, if the page is complete: it may just be made or removed."""
        with suppress(NoMatches):
            remark = "PAUSED" if self.top.paused else ""
            headline = lines.headline(self.top.sample, remark, self.size.width - 2)
            self.query_one("#headline", Line).put(headline)
            self.show(self.top.sample)
            self.show_keys()

    def on_mount(self) -> None:
        self.bring_up()

    def on_screen_resume(self) -> None:
        self.bring_up()

    def on_resize(self) -> None:
        self.bring_up()

    # Keys -----------------------------------------------------------------------------------------

    @property
    def typing(self) -> Prompt | None:
        """The prompt in which something is typed now."""
        return self.focused if isinstance(self.focused, Prompt) else None

    def keys_now(self) -> list[Key]:
        """Those that do something now."""
        known = [*self.KEYS, *keys.EVERYWHERE]
        if (prompt := self.typing) is None:
            return known
        return [keys.TAKE, *(key for key in known if self._passes(prompt, key))]

    @staticmethod
    def _passes(prompt: Prompt, key: Key) -> bool:
        """Whether this key does what it does elsewhere, also while something is typed."""
        return not key.types or (key.names == "space" and not prompt.spaces)

    def show_keys(self) -> None:
        self.query_one(KeyLine).show(self.keys_now())

    def on_descendant_focus(self) -> None:
        self.show_keys()

    def on_descendant_blur(self) -> None:
        self.show_keys()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key acts, or goes to what has the focus."""
        prompt = self.typing
        if action == keys.TAKE.action:
            return prompt is not None
        known = (*self.KEYS, *keys.EVERYWHERE)
        return prompt is None or all(
            self._passes(prompt, key) for key in known if key.action.partition("(")[0] == action
        )

    def action_help(self) -> None:
        self.top.help()

    def action_pause(self) -> None:
        self.top.pause()

    def action_faster(self, factor: float) -> None:
        self.top.faster(factor)

    def action_leave(self) -> None:
        self.app.exit()

    def action_quit(self) -> None:
        self.app.exit()

    def action_back(self) -> None:
        self.app.pop_screen()
