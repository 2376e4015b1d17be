"""What the endpoint's C headers offer, as far as Cython calls it."""

from cpython.ref cimport PyObject
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from ringbuf._native cimport *
from shmbus.shared._native cimport *

cdef extern from *:
    """
    /* Under the endpoint's lock, where an exception must not jump out: NULL is looked at by hand. */
    #define sb_new_bytes PyBytes_FromStringAndSize
    #define sb_new_ascii(data, size) PyUnicode_DecodeASCII((data), (size), "replace")

    /* Is `text`, an ASCII string, the same? Eight bytes at a time: a call would take longer. */
    static inline int sb_is_text(PyObject *text, const char *other, Py_ssize_t length)
    {
        const char *own = (const char *)PyUnicode_1BYTE_DATA(text);
        uint64_t a, b;
        if (PyUnicode_GET_LENGTH(text) != length)
            return 0;
        if (length < 8)
            return memcmp(own, other, (size_t)length) == 0;
        for (Py_ssize_t i = 0;; i = i + 8 < length - 8 ? i + 8 : length - 8) {
            memcpy(&a, own + i, 8);
            memcpy(&b, other + i, 8);
            if (a != b)
                return 0;
            if (i == length - 8)
                return 1;
        }
    }
    """
    PyObject *sb_new_bytes(const void *, Py_ssize_t)
    PyObject *sb_new_ascii(const char *, Py_ssize_t)
    bint sb_is_text(PyObject *, const char *, Py_ssize_t)

cdef extern from "<stdbool.h>" nogil:
    ctypedef unsigned char flag "bool"

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL
    const char *PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)
    char *PyByteArray_AS_STRING(object)
    bint PyBytes_CheckExact(object)
    bint PyByteArray_CheckExact(object)
    Py_ssize_t PyByteArray_GET_SIZE(object)
    PyObject *PyDict_GetItem(object, PyObject *)
    unsigned long PyThread_get_thread_ident() nogil
    void Py_INCREF(PyObject *)
    void Py_XDECREF(PyObject *)
    void PyErr_Clear()

cdef extern from "shmbus/endpoint/native/endpoint.h" nogil:
    bint sb_fork_watch()
    bint sb_forked(uint64_t)
    enum:
        SB_CLOSED_HERE
        SB_STOPPING
        SB_NO_REQUEST
    uint64_t SB_FOR_GOOD
    uint64_t SB_FOR_NOW
    cdef struct sb_message:
        uint16_t kind
        uint16_t flags
        uint16_t peer
        uint32_t peer_generation
        uint64_t deadline_ns
        const uint8_t *correlation
        const char *type
        uint32_t type_length
        const void *payload
        uint64_t size
    cdef struct sb_batch:
        uint64_t messages
        uint64_t bytes
        uint64_t delay_ns
    cdef struct sb_request:
        sb_record header
        uint8_t *payload
        uint64_t size
        uint64_t asked
    cdef struct sb_place:
        uint64_t moves
    cdef struct sb_endpoint:
        char door_path[108]
        char bus_path[108]
        uint64_t bus_file
        uint64_t fork_mark
        const sb_bus *bus
        const sb_down *down
        sb_up *up
        uint32_t slot
        uint32_t generation
        rb_producer out[2]
        rb_consumer incoming "in"[2]
        uint32_t lost_seen
        uint32_t request_count
        uint32_t held_count
        uint32_t inside
        sb_request *requests
        bint nudge
        uint32_t bad_ring
        uint64_t bad_position
        rb_bell bell
        sb_place place
    cdef struct sb_log:
        sb_interests *at
        uint64_t size
    void sb_lock(sb_endpoint *)
    void sb_unlock(sb_endpoint *)
    void sb_kick(sb_endpoint *)
    void sb_set_trouble(sb_endpoint *, uint64_t, uint64_t)
    uint64_t sb_trouble(sb_endpoint *)
    uint32_t sb_ring_of(uint16_t)
    uint64_t sb_record_length(const sb_message *)
    void sb_flush(sb_endpoint *)
    uint64_t sb_stamp(sb_endpoint *)
    rb_status sb_push(sb_endpoint *, const sb_message *, uint64_t, const sb_batch *, flag *)
    void sb_set_in_hand(sb_endpoint *, uint64_t, uint64_t)
    void sb_release_data(sb_endpoint *)
    void sb_done(sb_endpoint *, uint64_t)
    void sb_unhold_all(sb_endpoint *)
    rb_status sb_front(sb_endpoint *, sb_record *, const uint8_t **)
    uint64_t sb_take(sb_endpoint *, const sb_record *, uint64_t)
    void sb_mark_progress(sb_endpoint *)
    uint32_t sb_begin_request(sb_endpoint *, uint64_t, bint, uint8_t *)
    bint sb_request_waits(const sb_endpoint *, uint32_t)
    uint32_t sb_next_completed(sb_endpoint *)
    uint64_t sb_chosen(sb_endpoint *, uint32_t)
    bint sb_append_interest(sb_log *, const sb_interest *, const char *, const char *)
    uint64_t sb_announce_interests(sb_endpoint *, uint64_t)
    uint64_t sb_up_size(uint64_t, uint64_t, uint64_t)
    void sb_up_prepare(sb_up *, const sb_identity *, uint64_t, const char *, uint64_t, uint64_t, uint64_t)
    bint sb_down_sound(const sb_down *, uint64_t, const sb_up *)
    bint sb_open(sb_endpoint *, const sb_bus *, sb_ready *, sb_up *, const sb_down *, sem_t *, sem_t *, uint64_t,
                 uint32_t, bint, uint32_t)
    void sb_free(sb_endpoint *)
    void sb_set_state(sb_endpoint *, uint64_t)

cdef extern from "shmbus/endpoint/native/watcher.h" nogil:
    int sb_watcher_add(sb_endpoint *)
    void sb_watcher_remove(sb_endpoint *)
    void sb_arm_watcher(const sb_endpoint *)
    void sb_leave_door(sb_endpoint *)

cdef extern from "shmbus/endpoint/native/wait.h" nogil:
    enum:
        SB_WANT_REPLY
        SB_WANT_DATA
        SB_WANT_SPACE
        SB_WANT_SEEN
        SB_WANT_STATE
        SB_WANT_FUTURE
        SB_WANT_ENTRY
        SB_WANT_ALONE
    cdef struct sb_waiter:
        uint32_t want
        uint32_t index
        uint64_t value
        uint64_t minds
        bint vigilant
        uint64_t trouble
    void sb_pass_on_data(sb_endpoint *)
    void sb_finish_request(sb_endpoint *, uint32_t)
    rb_wake sb_wait(sb_endpoint *, sb_waiter *, uint64_t)
