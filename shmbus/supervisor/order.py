"""In which order processes can be started and stopped, from what they need and what they handle."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shmbus.shared.patterns import overlaps

Patterns = Mapping[str, Collection[str]]
"""By the name of a process."""


def providers(needs: Patterns, handles: Patterns) -> dict[str, set[str]]:
    """Whom each process needs: those that handle something that one of its patterns matches."""
    return {
        name: {
            other
            for other, handled in handles.items()
            if any(overlaps(need, pattern) for need in wanted for pattern in handled)
        }
        for name, wanted in needs.items()
    }


def cycle(needed: Mapping[str, Collection[str]]) -> list[str]:
    """Processes that need each other in a ring, each the next; empty where there are none."""
    left = {name: needed.keys() & others for name, others in needed.items()}
    while free := [name for name, others in left.items() if not left.keys() & others]:
        for name in free:
            del left[name]
    path = list(left)[:1]
    while path:
        name = min(left.keys() & left[path[-1]])  # there is one: else it had been free
        if name in path:
            return path[path.index(name) :]
        path.append(name)
    return []


def waves(needed: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Names in the order of a start: those in one list together, each behind all that it needs.
    Those in a ring come last, together."""
    left, found = dict(needed), list[list[str]]()
    while left:
        wave = [
            name
            for name, others in left.items()
            if not any(o in left and o != name for o in others)
        ]
        wave = wave or list(left)
        found.append(wave)
        for name in wave:
            del left[name]
    return found
