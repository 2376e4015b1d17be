# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
"""A queue between processes: the C of shmbus/queues/native as a Python class.

What a thread takes, it decodes outside of every lock: no Python code runs, and nothing waits for the GIL, while a role
is held.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_FromDouble
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ
from cpython.object cimport PyObject
from libc.errno cimport ENOSPC
from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen

from ringbuf._native cimport (
    RB_SPIN_NS, rb_bell, rb_bell_open, rb_head8, rb_load, rb_load_acquire, rb_now, rb_word,
)

import logging
import os
from _pickle import dumps as _dumps, loads as _loads
from multiprocessing.reduction import ForkingPickler
from pickle import PicklingError
from queue import Empty, Full
from threading import get_native_id, local
from types import GenericAlias
from typing import NamedTuple

from ringbuf.errors import RingCorrupt, SegmentNoSpace
from ringbuf.segment import REMEDIES, Segment, available
from shmbus.errors import NoResource, QueueClosed, QueueGone
from shmbus.shared.processes import namespace

__all__ = ["KIND", "LAYOUT", "MOST_USERS", "RING_BYTES", "QueueCore", "User", "users_of"]

log = logging.getLogger("shmbus")

cdef extern from * nogil:
    """
    #include <pthread.h>
    """
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()

cdef extern from "Python.h":
    object PyLong_FromLongLong(long long)
    long long PyLong_AsLongLongAndOverflow(object, int *) except? -1
    bint PyLong_CheckExact(object)
    bint PyFloat_CheckExact(object)
    bint PyUnicode_CheckExact(object)
    bint PyBytes_CheckExact(object)
    bint PyUnicode_IS_COMPACT_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    void *PyUnicode_DATA(object)
    object PyUnicode_New(Py_ssize_t, Py_UCS4)

cdef extern from "shmbus/queues/native/leave.h" nogil:
    const uint32_t SQ_KIND
    const uint64_t SQ_LAYOUT
    enum:
        SQ_ROWS
        SQ_MAX_FILE
        SQ_SLICE_NS
        SQ_MOST_RING
    enum sq_row_state:
        SQ_FREE
        SQ_PLEDGED
        SQ_USED
    enum sq_status:
        SQ_OK
        SQ_WAIT
        SQ_BUSY
        SQ_NO_SPACE
        SQ_NO_ROW
        SQ_GONE
        SQ_CORRUPT
    struct sq_bell:
        pass
    struct sq_role:
        rb_word count
        sq_bell bell
    struct sq_book:
        rb_word lost
        sq_bell bell
    struct sq_row:
        rb_word state
        rb_word pid
        rb_word start_time
        rb_word tid
        rb_word hand_count
    struct sq_queue:
        uint64_t maxsize
        uint64_t redeliver
        rb_word orphans
        rb_word rows_used
        sq_role producers
        sq_role consumers
        sq_book book
        sq_row *rows
    struct sq_mapped:
        pass
    struct sq_core:
        sq_queue *shared
        char *name
        uint64_t pid
        uint64_t start_time
        uint64_t namespace_ "namespace"
        sq_mapped put_ring
        sq_mapped get_ring
    struct sq_user:
        uint32_t row
        rb_bell spin
        sq_mapped hand
        uint8_t *data
        uint64_t size
        uint64_t at
        uint64_t end
        bint busy
    struct sq_item:
        rb_head8 head
        uint64_t value
        const void *payload
    struct sq_look_for:
        const sq_queue *queue
    ctypedef bint (*rb_look)(void *)
    bint sq_look_room(void *)
    bint sq_look_message(void *)
    bint sq_look_finished(void *)
    void sq_sleep(sq_user *, sq_bell *, rb_look, void *, uint64_t)
    sq_status sq_create(sq_core *, uint64_t, bint, uint64_t)
    sq_status sq_claim_row(sq_core *, uint64_t, uint64_t, uint32_t *, uint64_t)
    sq_status sq_give_back_row(sq_core *, uint32_t, uint64_t)
    sq_status sq_put(sq_core *, const sq_user *, const sq_item *, uint64_t, uint64_t *, uint64_t)
    sq_status sq_get(sq_core *, sq_user *, uint64_t, uint64_t *, uint64_t)
    sq_status sq_take_over(sq_core *, sq_user *, uint64_t)
    sq_status sq_bury(sq_core *, const sq_user *, uint32_t, uint64_t, uint64_t *)
    sq_status sq_task_done(sq_core *, sq_user *, uint64_t)
    uint64_t sq_unfinished(const sq_queue *)
    void sq_empty_hand(const sq_core *, const sq_user *)
    sq_status sq_name_pledge(sq_core *, uint32_t, uint64_t, uint32_t, uint64_t)
    bint sq_take_leave(sq_core *, bint, uint64_t)
    void sq_unlink_all(const sq_core *)
    void sq_unmap(sq_mapped *)
    struct sb_stat:
        uint64_t start_time
    int sb_open_stat(uint32_t)
    int sb_read_stat(int, sb_stat *)
    int close(int)
    int getpid()

KIND = SQ_KIND
LAYOUT = SQ_LAYOUT
MOST_USERS = SQ_ROWS
RING_BYTES = 65536

cdef enum:
    MOST_ITEMS = 256  # of put_many that go into the ring at once

cdef uint64_t PATIENCE = 100_000_000  # ns that who does not want to wait waits for a lock

cdef uint64_t _pledges = 0  # that this process has made, of any queue

cdef uint64_t _forks = 0  # how often this process came out of a fork


def _count_fork():
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class User(NamedTuple):
    """A row of the queue: a thread of a process that uses it, or a pledge."""

    row: int
    pid: int
    start: int
    tid: int
    pledged: bool
    in_hand: int


cdef uint64_t _deadline(bint block, timeout) except? 1:
    """The time at which `timeout` seconds are over; 0: do not wait."""
    if not block:
        return 0
    if timeout is None:
        return UINT64_MAX
    cdef double seconds = timeout
    if seconds != seconds:
        raise ValueError("the timeout is not a number")
    if seconds <= 0:
        return 0
    return rb_now() + <uint64_t>(seconds * 1e9) if seconds < 1e9 else UINT64_MAX


cdef bint _never(void *context) noexcept nogil:
    return False


include "kernel/encoding.pxi"
include "kernel/core.pxi"
