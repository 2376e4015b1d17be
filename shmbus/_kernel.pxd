"""What the kernel's C headers offer, as far as Cython calls it."""

from cpython.ref cimport PyObject
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

cdef extern from *:
    """
    #ifndef SB_VARIANT
    #ifdef SB_FAILPOINTS
    #define SB_VARIANT "failpoints"
    #else
    #define SB_VARIANT ""
    #endif
    #endif
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
    const char *SB_VARIANT
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

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    sem_t *sem_open(const char *, int)
    int sem_close(sem_t *)
    sem_t *SEM_FAILED

cdef extern from "ringbuf/native/order.h" nogil:
    ctypedef struct rb_word:
        pass
    uint64_t rb_load(const rb_word *)
    uint64_t rb_load_acquire(const rb_word *)
    void rb_add(rb_word *, uint64_t)
    void rb_store_release(rb_word *, uint64_t)
    void rb_fence_acquire()

cdef extern from "ringbuf/native/bell.h" nogil:
    enum rb_wake:
        RB_READY
        RB_ELAPSED
    uint64_t rb_now()
    cdef struct rb_bell:
        uint64_t parks
        uint64_t hogs

cdef extern from "ringbuf/native/ring.h" nogil:
    enum rb_status:
        RB_OK
    cdef struct rb_producer:
        uint64_t next
        uint64_t published
        uint64_t tail_seen
        uint64_t capacity
    cdef struct rb_consumer:
        uint64_t next
        uint64_t capacity
    uint64_t rb_largest_record(uint64_t)

cdef extern from "shmbus/native/record.h" nogil:
    enum:
        SB_EVENT
        SB_SEND
        SB_REQUEST
        SB_REPLY
        SB_ERROR
        SB_RAW
        SB_NONE
        SB_REDELIVERED
        SB_REMOTE
        SB_PLAIN
        SB_FROM_BUS
    uint32_t SB_HEADER
    cdef struct sb_record:
        uint32_t length
        uint16_t kind
        uint16_t flags
        uint32_t interests
        uint16_t peer
        uint16_t attempt
        uint32_t peer_generation
        uint64_t sent_ns
        uint64_t deadline_ns
        uint8_t correlation[16]
        uint16_t type_length, extension_length
        uint32_t lost
    int SB_TAP
    cdef struct sb_tap:
        uint64_t forwarded_ns
        uint32_t target_generation
        uint16_t target
        uint8_t kind, outcome
    cdef struct sb_fault:
        uint32_t code
        uint32_t pid
        uint64_t limit
        char name[48]
    uint64_t sb_payload_offset(const sb_record *)

cdef extern from "shmbus/native/layout.h" nogil:
    enum:
        SB_NAME
        SB_DATA
        SB_REPLIES
        SB_CLOSED
        SB_FREE
        SB_LIVE
        SB_HELD_OPEN
        SB_HELD_DONE
        SB_HELD_FINAL
    uint64_t SB_NOWHERE
    cdef struct sb_identity:
        uint32_t pid
        uint32_t uid
        uint64_t start_time
        uint64_t pid_namespace
        uint64_t time_namespace
    cdef struct sb_row:
        rb_word seq
        rb_word state
        rb_word generation
        rb_word reason
        sb_identity identity
        char name[64]
    cdef struct sb_bus:
        sb_identity identity
        uint64_t slots
        uint64_t rows_offset
        uint64_t ring_bytes
        uint64_t max_requests
        uint64_t block_timeout_ns
        rb_word state
        rb_word control_ns
    cdef struct sb_ready:
        pass
    cdef struct sb_outgoing:
        rb_word head
    cdef struct sb_incoming:
        rb_word tail
        rb_word taken_count
    cdef struct sb_up:
        sb_identity identity
        sb_outgoing outgoing[2]
        sb_incoming incoming[2]
        rb_word receivers
        rb_word expired
        rb_word handler_errors
        rb_word decode_errors
        rb_word timeouts
    cdef struct sb_down_incoming:
        rb_word head
        rb_word delivered
    cdef struct sb_down_outgoing:
        rb_word tail
    cdef struct sb_down:
        uint64_t slot
        uint64_t generation
        rb_word state
        sb_down_outgoing outgoing[2]
        sb_down_incoming incoming[2]
    cdef struct sb_interest:
        uint8_t op
        uint8_t role
        uint8_t bit
        uint8_t flags
        uint64_t id
        uint16_t pattern_length
        uint16_t group_length
    cdef struct sb_interests:
        rb_word bytes
    uint64_t sb_layout()
    uint32_t sb_whom_slot(uint64_t)
    uint32_t sb_whom_generation(uint64_t)

cdef extern from "shmbus/native/endpoint.h" nogil:
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

cdef extern from "shmbus/native/watcher.h" nogil:
    int sb_watcher_add(sb_endpoint *)
    void sb_watcher_remove(sb_endpoint *)
    void sb_arm_watcher(const sb_endpoint *)
    void sb_leave_door(sb_endpoint *)

cdef extern from "shmbus/native/wait.h" nogil:
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

cdef extern from "shmbus/native/service.h" nogil:
    int SB_RECLAIMED_PORT, SB_QUARANTINED_PORT, SB_UNREAD_INTERESTS
    enum sb_order_kind:
        SB_EVICT
        SB_DEAD
    enum sb_reason:
        SB_EVICTED
        SB_DIED
    struct sb_notice:
        int kind
        uint32_t slot, generation, reason
    struct sb_order:
        sb_order_kind kind
        uint32_t slot, generation
        sb_reason reason
    struct sb_forwarder:
        int notice_fd
        bint adopting
    struct sb_service:
        sb_forwarder forwarder
    sb_service *sb_service_open(sb_bus *, sb_ready *, const char *, const char *, uint32_t)
    int sb_service_start(sb_service *)
    void sb_service_stop(sb_service *, uint64_t)
    void sb_service_wake_all(sb_service *)
    int sb_service_admit(sb_service *, uint32_t, uint32_t, const sb_up *, uint64_t, sb_down *, const char *, uint32_t,
                         int, int, int, bint)
    void sb_service_forget(sb_service *, uint32_t, uint32_t)
    void sb_service_open_door(sb_service *, uint32_t, uint32_t, int)
    void sb_service_close(sb_service *)
    bint sb_give_order(sb_forwarder *, sb_order *)
    sb_notice *sb_take_notices(sb_forwarder *, uint32_t *)
    cdef struct sb_shape:
        uint64_t incoming[2]
        uint64_t pending_count
    bint sb_read_shape(const sb_up *, uint64_t, sb_shape *)
