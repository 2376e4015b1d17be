"""The first words of every segment, as they are read."""

from typing import NamedTuple


class Prefix(NamedTuple):
    """`superseded_by` is a layout; 0: none. All are 0 until the segment is complete."""

    magic: int
    layout: int
    size: int
    generation: int
    superseded_by: int
    kind: int
