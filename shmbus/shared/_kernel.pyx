# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
"""What endpoints, the dispatcher and observers read of a bus natively."""

import time

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset
from ringbuf._native cimport rb_fence_acquire, rb_load, rb_load_acquire, rb_now
from shmbus.shared._native cimport (
    NEVER, SB_LATENCY_BUCKETS, SB_LAYOUT, SB_NAME, SB_ROW_FREE, SB_ROW_LIVE, SB_VARIANT, row_at, sb_bus,
    sb_end_with, sb_latency_floor, sb_row, sb_whom_generation, sb_whom_slot, span_ns,
)

from shmbus.shared.bus_facts import BusFacts, Row


def build_info():
    """What was compiled: the `variant`, empty for an ordinary build."""
    return {"variant": SB_VARIANT.decode()}


def aligned(data not None, Py_ssize_t begin, Py_ssize_t alignment):
    """The bytes from `begin` on, read-only and aligned: what has them, where in it they begin, and how many they are.
    It is `data` itself where they are that there, else a copy of them."""
    cdef Py_buffer view
    cdef Py_ssize_t size, shift
    cdef const char *at
    cdef char *to
    cdef bytes copied
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        at = <const char *>view.buf + begin
        size = view.len - begin
        if size <= 0:
            return b"", 0, 0
        if view.readonly and <uintptr_t>at % alignment == 0:
            return data, begin, size
        copied = PyBytes_FromStringAndSize(NULL, size + alignment)
        to = PyBytes_AS_STRING(copied)
        shift = (alignment - <uintptr_t>to % alignment) % alignment
        with nogil:
            memset(to, 0, shift)
            memcpy(to + shift, at, size)
            memset(to + shift + size, 0, alignment - shift)
        return copied, shift, size
    finally:
        PyBuffer_Release(&view)


def layout_hash():
    """The layout word of every segment that this build can read."""
    return SB_LAYOUT


def bus_facts(mapping):
    """What an attach needs of a bus."""
    if <size_t>len(mapping) < sizeof(sb_bus):
        raise ValueError("too small for a bus")
    cdef uintptr_t address = mapping.address
    cdef const sb_bus *bus = <const sb_bus *>address
    return BusFacts(state=rb_load_acquire(&bus.state), slots=bus.slots, in_bytes=bus.in_bytes,
                    out_bytes=bus.out_bytes, reply_bytes=bus.reply_bytes, max_requests=bus.max_requests,
                    prefetch=bus.prefetch, pool_bytes=bus.pool_bytes, loans=bus.loans,
                    pid=bus.identity.pid, control_ns=rb_load(&bus.control_ns),
                    block_timeout_ns=bus.block_timeout_ns)


def find_row(mapping, str name):
    """The row that has this name, a live one if there is; None where there is none."""
    cdef uintptr_t address = mapping.address
    cdef const sb_bus *bus = <const sb_bus *>address
    cdef uint64_t slot
    found = None
    for slot in range(bus.slots):
        row = read_row(mapping, slot)
        if row is None or row.name != name or row.state == SB_ROW_FREE:
            continue
        found = row
        if row.state == SB_ROW_LIVE:
            break
    return found


def read_row(mapping, uint64_t slot):
    """A slot's row; None where it stays half written because its writer died."""
    cdef const sb_row *row = row_at(mapping, slot)
    cdef char name[SB_NAME + 1]
    cdef uint64_t seq, generation, state, reason
    cdef uint32_t pid
    cdef int tries
    if row == NULL:
        return None
    for tries in range(100):
        if tries >= 10:
            time.sleep(0.001)  # its writer has lost the CPU, or waits for our GIL
        seq = rb_load_acquire(&row.seq)
        if seq & 1:
            continue
        generation = rb_load(&row.generation)
        state = rb_load(&row.state)
        reason = rb_load(&row.reason)
        pid = row.identity.pid
        memcpy(name, row.name, SB_NAME)
        name[SB_NAME] = 0
        rb_fence_acquire()
        if rb_load(&row.seq) == seq:
            return Row(slot=slot, generation=generation, state=state, pid=pid, reason=reason,
                       name=(<bytes>name).decode("ascii", "replace"))
    return None


def unpack_whom(uint64_t whom):
    """Slot and the low half of the generation, from a word that names an endpoint."""
    return sb_whom_slot(whom), sb_whom_generation(whom)


def end_with(uint32_t pid, int stat, int pidfd):
    """From now on this process ends, with what is in the process group that it leads, when that process does, whatever
    happens here then. The descriptors are of that process, -1 for one that is missing, and stay open. Raises
    `OSError`."""
    cdef int failed = sb_end_with(pid, stat, pidfd)
    if failed:
        raise OSError(failed, "no thread to watch the other process")


def latency_floors():
    """Where each latency bucket begins, in nanoseconds, and where the last would end."""
    cdef uint32_t bucket
    return [sb_latency_floor(bucket) for bucket in range(SB_LATENCY_BUCKETS + 1)]


def monotonic_ns():
    """CLOCK_MONOTONIC in nanoseconds, by the system: `time.monotonic_ns` may be frozen by a library for tests."""
    return rb_now()


def monotonic():
    """The same in seconds."""
    return rb_now() / 1e9


def seconds(timeout, what="timeout"):
    """A timeout as a caller gave it, in seconds; None where it never comes. Raises `InvalidSetting`,
    which calls it `what`."""
    return None if span_ns(timeout, what) == NEVER else max(0.0, float(timeout))
