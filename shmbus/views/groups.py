"""Groups with a key, as BUS shows them: their keys, and who owns which."""

from __future__ import annotations

from typing import Any, NamedTuple

from shmbus.shared import _kernel, keys, layout, patterns


class KeyedGroup(NamedTuple):
    """A group whose messages of one key go to one member."""

    name: str
    pattern: str
    mask: int
    generations: tuple[int, ...]
    """Those of its members."""

    @property
    def key(self) -> str:
        """As it would be given to `subscribe`."""
        return keys.text_of(self.pattern, self.mask)

    def owner(self, type: str) -> int | None:
        """The generation of the member that owns the key of this type."""
        if not patterns.covers(self.pattern, type):
            return None
        return keys.owner(type, self.mask, self.generations)


def keyed_groups(bus: Any) -> list[KeyedGroup]:
    """All of a bus. ``bus``: the segment BUS, as `layout.BUS`."""
    found = []
    for each in bus["keyed"]:
        if mask := int(each["key"]):
            epoch, members = int(each["epoch"]), each["member"]
            left = members["left"]
            there = (members["whom"] != 0) & (members["joined"] <= epoch)
            there &= (left == 0) | (left > epoch)
            whoms = members["whom"][there].tolist()
            found.append(
                KeyedGroup(
                    layout.text(each["name"]),
                    layout.text(each["pattern"]),
                    mask,
                    tuple(_kernel.unpack_whom(whom)[1] for whom in whoms),
                )
            )
    return found
