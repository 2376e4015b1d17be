"""Single-producer single-consumer rings in shared memory, with doorbells; usable on its own.

with Producer.create("numbers", 1 << 16) as ring:       # in one process
    ring.push(b"one")

with Consumer.attach("numbers") as ring:                # in another
    ring.pop(timeout=1.0)
"""

import sys

try:
    import _interpreters  # type: ignore[import-not-found]
except ImportError:
    import _xxsubinterpreters as _interpreters  # type: ignore[import-not-found]

if _interpreters.get_current() != _interpreters.get_main():
    raise ImportError(
        "ringbuf and shmbus run in the main interpreter only, and this is a subinterpreter: use "
        "processes, or threads of the main interpreter"
    )

try:
    from ringbuf._kernel import Mapping, layout_hash
except ModuleNotFoundError as error:
    if error.name != "ringbuf._kernel":
        raise
    raise ImportError(
        f"{__path__[0]} has the sources of ringbuf, not compiled for this Python. If shmbus is "
        "installed, run Python in another directory than this checkout; to work on the sources, "
        "install them: pip install -e ."
    ) from None
from ringbuf.doorbell import Doorbell
from ringbuf.errors import (
    DoorbellError,
    DoorbellExists,
    DoorbellNotFound,
    RecordTooLarge,
    RingbufError,
    RingBusy,
    RingClosed,
    RingCorrupt,
    RingError,
    RingFull,
    SegmentError,
    SegmentExists,
    SegmentForeign,
    SegmentMismatch,
    SegmentNoSpace,
    SegmentNotFound,
    SegmentNotReady,
    layout_text,
)
from ringbuf.prefix import Prefix
from ringbuf.ring import Consumer, Producer, Ring
from ringbuf.segment import Segment

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "ringbuf and shmbus need the GIL, which was kept off: leave out PYTHON_GIL=0 and -X gil=0, "
        "and a free-threaded Python turns it on when it imports them"
    )

__all__ = [
    "Consumer",
    "Doorbell",
    "DoorbellError",
    "DoorbellExists",
    "DoorbellNotFound",
    "Mapping",
    "Prefix",
    "Producer",
    "RecordTooLarge",
    "Ring",
    "RingBusy",
    "RingClosed",
    "RingCorrupt",
    "RingError",
    "RingFull",
    "RingbufError",
    "Segment",
    "SegmentError",
    "SegmentExists",
    "SegmentForeign",
    "SegmentMismatch",
    "SegmentNoSpace",
    "SegmentNotFound",
    "SegmentNotReady",
    "layout_hash",
    "layout_text",
]
