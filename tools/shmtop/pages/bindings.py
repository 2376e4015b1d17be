"""Keys as textual binds them."""

from __future__ import annotations

from collections.abc import Iterable

from textual.binding import Binding, BindingType

from shmtop.keys import Key


def bindings(keys: Iterable[Key], *, first: bool = True) -> list[BindingType]:
    """Bindings for these keys. ``first``: they are looked up before anything else gets the key,
    so that what is typed next already meets what this key has opened."""
    return [
        Binding(key.names, key.action, key.label or key.meaning, show=False, priority=first)
        for key in keys
    ]
