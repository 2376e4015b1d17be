# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
"""What either side, or who only looks, reads of a bus natively."""

import time

from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy
from ringbuf._native cimport rb_fence_acquire, rb_load, rb_load_acquire
from shmbus.shared._native cimport (
    NEVER, SB_ROW_FREE, SB_ROW_LIVE, SB_VARIANT, row_at, sb_bus, sb_layout, sb_row, span_ns,
)


def build_info():
    """What was compiled: the `variant`, empty for an ordinary build."""
    return {"variant": SB_VARIANT.decode()}


def layout_hash():
    """The second word of every segment that this kernel understands."""
    return sb_layout()


def bus_facts(mapping):
    """What an attach needs to know of a bus: state, slots, ring_bytes, max_requests, the
    dispatcher's pid, when its control plane last ran (CLOCK_MONOTONIC, ns), block_timeout (ns)."""
    if <size_t>len(mapping) < sizeof(sb_bus):
        raise ValueError("too small for a bus")
    cdef uintptr_t address = mapping.address
    cdef const sb_bus *bus = <const sb_bus *>address
    return (rb_load_acquire(&bus.state), bus.slots, bus.ring_bytes, bus.max_requests, bus.identity.pid,
            rb_load(&bus.control_ns), bus.block_timeout_ns)


def row_of(mapping, str name):
    """Slot, generation, pid and state of the row that has this name, a live one if there is, or None."""
    cdef uintptr_t address = mapping.address
    cdef const sb_bus *bus = <const sb_bus *>address
    cdef uint64_t slot
    found = None
    for slot in range(bus.slots):
        row = read_row(mapping, slot)
        if row is None or row[4] != name or row[1] == SB_ROW_FREE:
            continue
        found = slot, row[0], row[2], row[1]
        if row[1] == SB_ROW_LIVE:
            break
    return found


def read_row(mapping, uint64_t slot):
    """Generation, state, pid, reason and name of a slot's row, or None where it does not stop
    changing: its writer died over it."""
    cdef const sb_row *row = row_at(mapping, slot)
    cdef char name[65]
    cdef uint64_t seq, generation, state, reason
    cdef uint32_t pid
    cdef int tries
    if row == NULL:
        return None
    for tries in range(100):
        if tries >= 10:
            time.sleep(0.001)  # its writer has lost the CPU over it, or waits for our GIL
        seq = rb_load_acquire(&row.seq)
        if seq & 1:
            continue
        generation = rb_load(&row.generation)
        state = rb_load(&row.state)
        reason = rb_load(&row.reason)
        pid = row.identity.pid
        memcpy(name, row.name, 64)
        name[64] = 0
        rb_fence_acquire()
        if rb_load(&row.seq) == seq:
            return generation, state, pid, reason, (<bytes>name).decode("ascii", "replace")
    return None


def seconds(timeout):
    """A timeout as a caller gave it, in seconds; None where it never comes."""
    return None if span_ns(timeout) == NEVER else max(0.0, float(timeout))
