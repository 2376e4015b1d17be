"""What the host and its front-ends say to each other on the bus, beside XI's own parameters.

xi.new_view {"file_path"?}            -> its id; the same one for all who open the same file
xi.VIEW.edit Edit                     -> Accepted: it outlives the core and the host
xi.VIEW.lines {"from"?}               -> a stream: State, then lists of CachedLine
xi.VIEW.update Changed                   an event; so are xi.VIEW.scroll_to, ... of the core
xi.save, xi.close_view, xi.get_config, xi.set_theme, ...    as the core has them, and its answer
xi.measure_width                         asked by the core, handled by a front-end
xi.core.up, .down, .malformed            events: how the core is
"""

from __future__ import annotations

from typing import Any

import msgspec

from .journal import Entry
from .positions import Position


class Edit(Entry):
    """Edits of one front-end, to be done one after the other at its own carets."""

    seq: int | None = None
    """The state in which its `gesture`s name places; None: the present one."""
    run: str = ""
    """In which life of the host."""


class Accepted(msgspec.Struct):
    n: int
    """The front-end's last edit that counts; one that changes nothing has no number."""
    seq: int
    again: bool = False
    """It was accepted before."""
    result: Any = None
    """Of the last one, where it was `copy` or `cut`."""


class Changed(msgspec.Struct):
    """One step of a view. Whoever has another `run`, or not the `seq` before this one, has missed
    something, and asks for the lines."""

    run: str
    """Which life of the host counts so."""
    seq: int
    update: Any = None
    """The core's, for a cache of lines; None: ask for the lines. Where the view was closed, the
    answer is `NoSuchView`."""
    carets: dict[str, list[Position]] = {}
    """Where each front-end is."""


class State(msgspec.Struct):
    """A whole view; its lines follow."""

    run: str
    seq: int
    pristine: bool
    annotations: list[dict[str, Any]]
    carets: dict[str, list[Position]]
    styles: list[Any]
    """The parameters of each `def_style`."""
