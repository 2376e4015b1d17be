# cython: language_level=3, auto_pickle=False, autotestdict=False
"""Mappings, rings and bells: the C of ringbuf/native as Python classes."""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from ringbuf._native cimport (
    RB_CORRUPT, RB_OK, RB_SPIN_NS, SEM_FAILED, rb_abort, rb_bell, rb_bell_open, rb_bell_wait, rb_capacity_valid,
    rb_claim, rb_commit, rb_consumer, rb_consumer_open, rb_depth, rb_fence_seq, rb_head8, rb_largest_record,
    rb_load, rb_load_acquire, rb_now, rb_peek_at, rb_poster, rb_producer, rb_producer_open, rb_publish,
    rb_release_to, rb_ring_bell, rb_store_release, rb_word, sem_close, sem_open, sem_t,
)

from os import fsencode
from weakref import ref

from ringbuf.errors import RecordTooLarge, RingBusy, RingClosed, RingCorrupt, RingFull
from ringbuf.prefix import Prefix

cdef extern from "ringbuf/native/prefix.h" nogil:
    const uint64_t RB_MAGIC
    cdef struct rb_prefix:
        rb_word magic
        uint64_t layout
        uint64_t size
        uint64_t generation
        rb_word superseded_by
        uint32_t kind

cdef extern from "ringbuf/native/reserve.h" nogil:
    int rb_reserve(int, long, long)

cdef extern from "ringbuf/native/standalone.h" nogil:
    const uint32_t RB_STANDALONE_KIND
    cdef struct rb_standalone:
        uint64_t capacity
        uint64_t doorbells
        rb_word head
        rb_word high
        rb_word need
        rb_word producer_epoch
        rb_word tail
        rb_word consumer_epoch
        uint8_t *data
    cdef struct rb_reached:
        const rb_word *word
        uint64_t least
    const uint64_t RB_LAYOUT
    bint rb_look_reached(void *)
    rb_reached rb_wait_for_space(const rb_producer *, rb_word *, uint64_t)
    void rb_ring_consumer(rb_poster *)
    void rb_ring_producer(rb_poster *, const rb_consumer *, const rb_word *)

cdef extern from * nogil:
    """
    #define RB_AT(member) offsetof(struct rb_standalone, member)
    #define RB_AT_CAPACITY RB_AT(capacity)
    #define RB_AT_DOORBELLS RB_AT(doorbells)
    #define RB_AT_PRODUCER_EPOCH RB_AT(producer_epoch)
    #define RB_AT_CONSUMER_EPOCH RB_AT(consumer_epoch)
    #define RB_AT_HEAD RB_AT(head)
    #define RB_AT_TAIL RB_AT(tail)
    #define RB_AT_DATA RB_AT(data)
    """
    size_t RB_AT_CAPACITY, RB_AT_DOORBELLS, RB_AT_HEAD, RB_AT_TAIL, RB_AT_DATA
    size_t RB_AT_PRODUCER_EPOCH, RB_AT_CONSUMER_EPOCH

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int madvise(void *, size_t, int)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_SHARED, MADV_DONTDUMP

MAGIC = RB_MAGIC
PREFIX_SIZE = sizeof(rb_prefix)
RING_KIND = RB_STANDALONE_KIND
RING_CAPACITY = RB_AT_CAPACITY
RING_DOORBELLS = RB_AT_DOORBELLS
RING_HEAD = RB_AT_HEAD
RING_TAIL = RB_AT_TAIL
RING_PRODUCER_EPOCH = RB_AT_PRODUCER_EPOCH
RING_CONSUMER_EPOCH = RB_AT_CONSUMER_EPOCH
RING_DATA = RB_AT_DATA

cdef enum:
    HEADER = 8                # bytes of a record before its payload
    RECORD = 1                # its kind; 0 is padding
    SLICE = 250_000_000       # ns between two looks at signals and at whether the ring was closed


def layout_hash() -> int:
    """The layout word of the rings: version and fingerprint of what they have in shared memory."""
    return RB_LAYOUT


def capacity_valid(capacity: int) -> bool:
    """Whether a ring can have that capacity: a power of two, not too small."""
    return 0 < capacity <= 1 << 48 and rb_capacity_valid(capacity)


cdef uint64_t _deadline(timeout) except? 1:
    """The time at which `timeout` seconds are over; 0: do not wait."""
    if timeout is None:
        return UINT64_MAX
    cdef double seconds = timeout
    if seconds != seconds:
        raise ValueError("the timeout is not a number")
    if seconds <= 0:
        return 0
    if seconds >= 1e9:
        return UINT64_MAX
    return rb_now() + <uint64_t>(seconds * 1e9)


include "kernel/mapping.pxi"
include "kernel/bell.pxi"
include "kernel/ring.pxi"
include "kernel/loan.pxi"
include "kernel/producer.pxi"
include "kernel/consumer.pxi"
