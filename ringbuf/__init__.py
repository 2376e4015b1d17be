"""Single-producer single-consumer rings in shared memory, with doorbells; usable on its own."""

from ringbuf.errors import (
    RingbufError,
    SegmentError,
    SegmentExists,
    SegmentForeign,
    SegmentMismatch,
    SegmentNoSpace,
    SegmentNotFound,
    SegmentNotReady,
    layout_text,
)
from ringbuf.segment import Prefix, Segment

__all__ = [
    "Prefix",
    "RingbufError",
    "Segment",
    "SegmentError",
    "SegmentExists",
    "SegmentForeign",
    "SegmentMismatch",
    "SegmentNoSpace",
    "SegmentNotFound",
    "SegmentNotReady",
    "layout_text",
]
