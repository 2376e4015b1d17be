"""What can go wrong, by name. Every error carries its facts as attributes and names a remedy."""

from os import strerror


def layout_text(layout: int) -> str:
    """A layout word as people read it: version and fingerprint, `1.a3f2b4c1`."""
    return f"{layout >> 32}.{layout & 0xFFFFFFFF:08x}"


class RingbufError(Exception):
    """The root of this package's errors."""


class SegmentError(RingbufError):
    """A segment could not be made, opened or trusted; `name` is the one meant.

    Raised itself where the system refused for a reason without a class here; `errno` is the reason.
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
    """The memory could not be reserved: `size` bytes were wanted where `free` were left."""

    def __init__(self, name: str, size: int, free: int, remedy: str, *, errno: int) -> None:
        super().__init__(
            name,
            f"needs {size:,} bytes where {free:,} are free: {strerror(errno)}; {remedy}",
            errno=errno,
        )
        self.size = size
        self.free = free


class SegmentNotReady(SegmentError):
    """Its creator has not finished it, or died before it had."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "is not complete yet; try again, and if it stays so, unlink it")


class SegmentForeign(SegmentError):
    """It was not made by this package for this user: `what` (owner, mode or type) is `found`."""

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


class DoorbellError(RingbufError):
    """A doorbell's semaphore could not be made or opened; `name` is the one meant, `errno` the
    system's reason, if it gave one."""

    def __init__(self, name: str, problem: str, *, errno: int = 0) -> None:
        super().__init__(f"doorbell {name!r} {problem}")
        self.name = name
        self.errno = errno


class DoorbellExists(DoorbellError):
    """There is one of that name already."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name, "exists already; attach to it, or unlink it if its owner is provably dead"
        )


class DoorbellNotFound(DoorbellError):
    """There is none of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "does not exist; it was not made yet, or is unlinked")


class RingError(RingbufError):
    """Something about a ring."""


class RingFull(RingError):
    """No space became free in time; `depth` of `capacity` bytes are taken, `size` more were to go
    in."""

    def __init__(self, name: str, size: int, depth: int, capacity: int) -> None:
        super().__init__(
            f"ring {name!r} is full: {depth:,} of {capacity:,} bytes wait for its consumer and "
            f"{size:,} more do not fit; wait longer (timeout) or make the ring larger (capacity)"
        )
        self.name = name
        self.size = size
        self.depth = depth
        self.capacity = capacity


class RecordTooLarge(RingError):
    """A payload of `size` bytes where `limit` is the most; `index` is its place in `push_many`."""

    def __init__(self, name: str, size: int, limit: int) -> None:
        super().__init__(
            f"a record of {size:,} bytes is too large for ring {name!r}, which takes {limit:,} "
            "(a quarter of its capacity); make it smaller or the ring larger (capacity)"
        )
        self.name = name
        self.size = size
        self.limit = limit
        self.index = 0


class RingCorrupt(RingError):
    """The other side, or another process, wrote what no producer or consumer writes."""

    def __init__(self, name: str, what: str, head: int, tail: int, capacity: int) -> None:
        super().__init__(
            f"ring {name!r} is corrupt: {what} (head {head}, tail {tail}, capacity {capacity}); "
            "nothing in it can be trusted: end both sides and make a new one"
        )
        self.name = name
        self.what = what
        self.head = head
        self.tail = tail
        self.capacity = capacity


class RingBusy(RingError):
    """Not now: a view of a record is in use, or another thread waits."""


class RingClosed(RingError):
    """This side of the ring was closed here."""

    def __init__(self, name: str) -> None:
        super().__init__(f"ring {name!r} was closed here; open it again to use it")
        self.name = name
