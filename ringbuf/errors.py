"""What can go wrong, by name. Every error carries its facts as attributes and says what to do."""

from os import strerror


def layout_text(layout: int) -> str:
    """A layout word as people read it: version and fingerprint, `1.a3f2b4c1`."""
    return f"{layout >> 32}.{layout & 0xFFFFFFFF:08x}"


class RingbufError(Exception):
    """The root of this package's errors."""


class SegmentError(RingbufError):
    """A segment could not be made, opened or trusted; `name` is the one meant.

    Raised itself where the system refused for a reason that has no class here; `errno` says which.
    """

    def __init__(self, name: str, problem: str, *, errno: int = 0) -> None:
        super().__init__(f"segment {name!r} {problem}")
        self.name = name
        self.errno = errno


class SegmentExists(SegmentError):
    """There is one of that name already."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name, "exists already; attach to it, or unlink it if its owner is provably dead"
        )


class SegmentNotFound(SegmentError):
    """There is none of that name: not made yet, unlinked, or removed by a cleaner."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            "does not exist; is its owner running, as the same user and with the same /dev/shm?",
        )


class SegmentNoSpace(SegmentError):
    """The memory could not be reserved: `size` bytes were asked for where `free` were left."""

    def __init__(self, name: str, size: int, free: int, remedy: str, *, errno: int) -> None:
        super().__init__(
            name,
            f"needs {size:,} bytes where {free:,} are free: {strerror(errno)}; {remedy}",
            errno=errno,
        )
        self.size = size
        self.free = free


class SegmentNotReady(SegmentError):
    """Its creator has not finished it, or died over it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "is not complete yet; try again, and if it stays so, unlink it")


class SegmentForeign(SegmentError):
    """It is not what a segment of ours can be: `what` (owner, mode or type) is `found`."""

    def __init__(self, name: str, what: str, expected: str, found: str) -> None:
        super().__init__(
            name,
            f"is not to be trusted: its {what} is {found}, not {expected}; "
            "find out who made it and remove it, or choose another name",
        )
        self.what = what
        self.expected = expected
        self.found = found


class SegmentMismatch(SegmentError):
    """Its `what` (magic, layout, size or kind) is `found` where `expected` was needed."""

    def __init__(self, name: str, what: str, expected: int, found: int) -> None:
        if what == "layout":
            problem = (
                f"has layout {layout_text(found)}, this package {layout_text(expected)}; "
                "run the same version on both sides"
            )
        elif what == "magic":
            problem = f"is no segment of this package: it begins with {found:#018x}"
        elif what == "size":
            problem = f"has {found:,} bytes where {expected:,} belong; its owner must make it anew"
        else:
            problem = f"is of {what} {found}, not {expected}; this name belongs to something else"
        super().__init__(name, problem)
        self.what = what
        self.expected = expected
        self.found = found
