"""What all pages are made of: the application that samples a bus, and a page that shows the last
sample."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from textual.app import App, ScreenStackError
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.screen import Screen

from shmtop import cells
from shmtop.sampler import Sample, Sampler


class SamplingApp(App[None]):
    """Samples a bus at intervals, and shows the last sample on the page in front."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("space", "pause", "Pause"),
        Binding("plus", "faster(0.5)", "Faster", show=False),
        Binding("minus", "faster(2)", "Slower", show=False),
    ]

    def __init__(self, sampler: Sampler, interval: float = 1.0) -> None:
        super().__init__()
        self.sampler, self.interval = sampler, interval
        self.sample = sampler.sample()
        self.paused = False

    def on_mount(self) -> None:
        self._timer = self.set_interval(self.interval, self.look)

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

    def action_pause(self) -> None:
        self.paused = not self.paused
        self.show()

    def action_faster(self, factor: float) -> None:
        self.interval = min(max(self.interval * factor, 0.05), 60.0)
        self._timer.stop()
        self._timer = self.set_interval(self.interval, self.look)
        self.notify(f"a look every {cells.duration(self.interval)}", timeout=2)


class Page(Screen[None]):
    """A page that shows the last look."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.pop_screen", "Back")]

    @property
    def top(self) -> SamplingApp:
        assert isinstance(self.app, SamplingApp)
        return self.app

    def bring_up(self) -> None:
        """Show the last sample, if the page is complete: it may just be made or removed."""
        with suppress(NoMatches):
            self.show(self.top.sample)

    def on_mount(self) -> None:
        self.bring_up()

    def on_screen_resume(self) -> None:
        self.bring_up()

    def on_resize(self) -> None:
        self.bring_up()

    def show(self, sample: Sample) -> None:
        """Show this sample."""
        raise NotImplementedError
