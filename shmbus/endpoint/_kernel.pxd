"""What the endpoint's C headers offer, as far as Cython calls it."""

from cpython.object cimport PyTypeObject
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
    bint PyUnicode_IS_COMPACT_ASCII(object)
    const void *PyUnicode_1BYTE_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    const char *PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)
    char *PyByteArray_AS_STRING(object)
    bytearray PyByteArray_FromStringAndSize(const char *, Py_ssize_t)
    Py_buffer *PyMemoryView_GET_BUFFER(object)
    bint PyBytes_CheckExact(object)
    bint PyByteArray_CheckExact(object)
    Py_ssize_t PyByteArray_GET_SIZE(object)
    bytes PyBytes_FromStringAndSize(const char *, Py_ssize_t)
    unsigned long PyThread_get_thread_ident() nogil
    void Py_INCREF(PyObject *)
    void Py_XDECREF(PyObject *)
    PyTypeObject *Py_TYPE(object)
    void PyErr_Clear()
    bint PyCoro_CheckExact(object)
    bint PyGen_CheckExact(object)
    bint PyAsyncGen_CheckExact(object)
    bint PyIter_Check(object)
    PyObject *PyIter_Next(object) except? NULL

cdef extern from "shmbus/shared/native/type.h" nogil:
    bint sb_is_type(const char *, size_t)

cdef extern from "shmbus/shared/native/hashtable.h" nogil:
    uint64_t sb_hash(const void *, size_t, uint64_t)

cdef extern from "shmbus/shared/native/trie.h" nogil:
    cdef struct sb_node:
        uint32_t patterns

cdef extern from "shmbus/endpoint/native/patterns.h" nogil:
    cdef struct ep_pattern:
        sb_node at
        int64_t *keys
        uint32_t version
        void *callbacks
    cdef struct ep_patterns:
        ep_pattern **found
        uint32_t count
    uint64_t EP_NO_MEMORY
    bint ep_patterns_open(ep_patterns *)
    void ep_patterns_close(ep_patterns *)
    bint ep_add_key(ep_patterns *, const char *, size_t, int64_t)
    bint ep_remove_key(ep_patterns *, const char *, size_t, int64_t)
    uint64_t ep_match_type(ep_patterns *, const char *, size_t)

cdef extern from "shmbus/endpoint/native/fork.h" nogil:
    bint ep_fork_watch()
    bint ep_forked(uint64_t)

cdef extern from "shmbus/endpoint/native/share.h" nogil:
    cdef enum:
        EP_NO_ENTRY
        EP_VIEW_ALIGN
    cdef struct ep_share:
        sb_block block
        int unmapped
        uint32_t entry
        bint first
    bint ep_out_of_shares(ep_endpoint *)
    void ep_pass_share(ep_endpoint *)
    const uint8_t *ep_share_data(const ep_share *)
    uint64_t ep_share_size(const ep_share *)
    bint ep_copies_share(const ep_share *)
    void ep_copy_share(ep_share *)
    void ep_unpin_share(ep_share *)
    void ep_free_share(ep_share *)
    void ep_part_shares(ep_endpoint *)
    void ep_end_shares(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/stream.h" nogil:
    cdef struct ep_stream:
        uint64_t granted
        uint64_t received
        uint64_t consumed
        bint owes
        bint failed
        void *owner
    ep_stream *ep_open_stream(ep_endpoint *)
    const uint8_t *ep_next_part(const ep_stream *, sb_record *)
    ep_share *ep_part_share(const sb_record *, const uint8_t *)
    bint ep_took_part(ep_endpoint *, ep_stream *, const sb_record *)
    bint ep_push_credit(ep_endpoint *, ep_stream *, const uint8_t *)
    ep_stream *ep_next_stirred(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/outflow.h" nogil:
    enum:
        EP_PART_SENT
        EP_PART_FULL
        EP_PART_NO_CREDIT
        EP_PART_BROKEN_OFF
        EP_PART_TROUBLE
    cdef struct ep_outflow:
        uint8_t id[16]
        uint64_t sent
        uint64_t granted
        bint broken_off
        bint aside
        void *owner
    void ep_begin_outflow(ep_endpoint *, ep_outflow *)
    void ep_end_outflow(ep_endpoint *, ep_outflow *)
    bint ep_can_go_on(const ep_outflow *)
    bint ep_await_credit(ep_endpoint *, ep_outflow *)
    void ep_await_space(ep_endpoint *, ep_outflow *)
    void ep_make_due(ep_endpoint *, ep_outflow *)
    ep_outflow *ep_next_due(ep_endpoint *)
    void ep_note_broken_off(ep_endpoint *, const uint8_t *)
    int ep_push_part(ep_endpoint *, ep_outflow *, const ep_message *, uint64_t, const ep_batch_limits *, flag *)

cdef extern from "shmbus/endpoint/native/request.h" nogil:
    enum:
        EP_NO_REQUEST
    cdef struct ep_request:
        sb_record header
        uint8_t *payload
        uint64_t size
        uint64_t serial
        ep_share *share
        uint64_t asked
        ep_stream *stream

cdef extern from "shmbus/endpoint/native/mailbox.h" nogil:
    enum:
        EP_MAIL_TAKEN
        EP_MAIL_ASKED
        EP_MAIL_LEFT
    cdef struct ep_mailbox:
        uint64_t whom
        const sb_mailbox *memory
        int state
    uint32_t ep_mail_unmapped(const ep_endpoint *)
    bint ep_mail_waits(const ep_endpoint *)
    bint ep_begin_mailbox(ep_endpoint *, uint32_t, uint64_t, int)
    bint ep_open_mailbox(ep_endpoint *, uint32_t, uint64_t, const sb_mailbox *, uint64_t)
    void ep_close_mailbox(ep_endpoint *, uint32_t)
    uint32_t ep_next_mail(ep_endpoint *, sb_record *, bint)
    void ep_take_mail(ep_endpoint *, uint32_t)

cdef extern from "shmbus/endpoint/native/endpoint.h" nogil:
    enum:
        EP_CANCELS
    cdef struct ep_endpoint:
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
        rb_consumer incoming "in"[3]
        uint32_t lost_seen
        ep_mailbox *mailboxes[SB_OWN_MAILBOXES]
        uint32_t mailbox_count
        bint mail_first
        bint mail_asked
        uint8_t *mail
        ep_share *mail_share
        int unmapped
        uint32_t request_count
        uint32_t free_count
        uint32_t futures
        uint32_t held_count
        uint64_t postponed
        uint64_t deferred
        bint recalled
        ep_stream *stirred
        ep_outflow *due
        uint64_t part_length
        uint64_t part_pages
        uint32_t streams
        uint32_t inside
        ep_request *requests
        uint32_t alerting
        uint64_t completions
        uint64_t cancels_seen
        uint8_t cancels[EP_CANCELS][16]
        uint32_t completed
        bint nudge
        bint resting
        int event_fd
        uint64_t event_minds
        char event_refusal[480]
        uint32_t bad_ring
        uint64_t bad_position
    void ep_lock(ep_endpoint *)
    void ep_unlock(ep_endpoint *)
    void ep_wake(ep_endpoint *, uint64_t)

cdef extern from "shmbus/endpoint/native/pool.h" nogil:
    int ep_make_pool(ep_endpoint *)
    bint ep_grant_is_open(const ep_endpoint *)
    int ep_reserve_pages(ep_endpoint *)
    void ep_part_pool(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/block.h" nogil:
    enum:
        EP_BLOCK_TAKEN
        EP_BLOCK_FULL
        EP_BLOCK_GROW
    int ep_take_block(ep_endpoint *, uint64_t, uint32_t *)
    bint ep_block_to_be_had(ep_endpoint *, uint64_t)
    uint8_t *ep_block_memory(const ep_endpoint *, uint32_t)
    void ep_describe_block(const ep_endpoint *, uint32_t, uint64_t, uint64_t, sb_block *)
    bint ep_let_block(ep_endpoint *, uint32_t)
    uint64_t ep_held_bytes(const ep_endpoint *)
    uint32_t ep_blocks_most(const ep_endpoint *)
    uint64_t ep_largest_gap(const ep_endpoint *)

cdef extern from "shmbus/endpoint/native/trouble.h" nogil:
    enum:
        EP_CLOSED_HERE
        EP_RING_BAD
        EP_STOPPING
    uint64_t EP_FOR_GOOD
    uint64_t EP_FOR_NOW
    void ep_set_trouble(ep_endpoint *, uint64_t, uint64_t)
    uint64_t ep_trouble(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/send.h" nogil:
    cdef struct ep_message:
        uint16_t kind
        uint16_t flags
        uint16_t peer
        uint16_t attempt
        uint32_t peer_generation
        uint64_t deadline_ns
        uint64_t grant
        const uint8_t *correlation
        const char *type
        uint32_t type_length
        const void *payload
        uint64_t size
        const void *head
        uint64_t head_size
        void *frame
        const sb_origin *origin
        const char *group
        uint32_t group_length
    cdef struct ep_batch_limits:
        uint64_t messages
        uint64_t bytes
        uint64_t delay_ns
    uint32_t ep_ring_of(uint16_t)
    void ep_write_payload(uint8_t *, const ep_message *)
    uint64_t ep_record_length(const ep_message *)
    bint ep_has_space(const ep_endpoint *, uint32_t, uint64_t)
    bint ep_has_room(const ep_endpoint *, uint32_t, uint64_t)
    void ep_flush(ep_endpoint *)
    uint64_t ep_stamp(ep_endpoint *)
    rb_status ep_push(ep_endpoint *, const ep_message *, uint64_t, const ep_batch_limits *, flag *)

cdef extern from "shmbus/endpoint/native/cancel.h" nogil:
    bint ep_cancelled_since(const ep_endpoint *, const uint8_t *, uint64_t)
    bint ep_withdrawn(const ep_endpoint *, const sb_record *)

cdef extern from "shmbus/endpoint/native/hold.h" nogil:
    void ep_set_in_hand(ep_endpoint *, uint64_t, uint64_t)
    void ep_set_work_done(ep_endpoint *, uint64_t)
    void ep_release_data(ep_endpoint *)
    void ep_done(ep_endpoint *, uint64_t)
    void ep_settle(ep_endpoint *, uint64_t, uint32_t)
    uint64_t ep_postpone(ep_endpoint *, uint64_t)
    void ep_resume(ep_endpoint *, uint64_t, uint64_t)
    void ep_unhold_all(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/want.h" nogil:
    bint ep_data_waits(const ep_endpoint *)
    void ep_want_part_space(ep_endpoint *, uint64_t, uint64_t)

cdef extern from "shmbus/endpoint/native/limit.h" nogil:
    enum:
        EP_NO_LIMIT
    uint32_t ep_begin_limit(ep_endpoint *, const sb_record *, const char *, const sb_origin *, uint64_t, uint64_t)
    void ep_end_limit(ep_endpoint *, uint32_t, uint64_t)

cdef extern from "shmbus/endpoint/native/take.h" nogil:
    rb_status ep_peek(ep_endpoint *, sb_record *, const uint8_t **)
    uint64_t ep_take(ep_endpoint *, const sb_record *, uint64_t)
    ep_share *ep_enter_peeked(ep_endpoint *, const sb_record *, const uint8_t *, bint)
    bint ep_drop_revoked(ep_share *, const uint8_t *)
    uint32_t ep_lost_before(ep_endpoint *, const sb_record *)
    void ep_mark_progress(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/nack.h" nogil:
    cdef struct ep_returned:
        uint64_t position
        const sb_record *header
        uint32_t bit
        flag final
        const char *type
        const char *reason
        uint32_t reason_length
        const void *payload
        uint64_t size
        sb_block *own
        uint64_t whole
    bint ep_fit_returned(const ep_endpoint *, ep_returned *)
    uint64_t ep_returned_length(const ep_returned *)
    rb_status ep_nack(ep_endpoint *, const ep_returned *, uint32_t, bint)

cdef extern from "shmbus/endpoint/native/request.h" nogil:
    bint ep_entry_to_be_had(const ep_endpoint *)
    uint32_t ep_begin_request(ep_endpoint *, uint64_t, bint, uint8_t *)
    bint ep_request_waits(const ep_endpoint *, uint32_t)
    void ep_sent_request(ep_endpoint *, uint32_t, const uint8_t *)
    void ep_drain_replies(ep_endpoint *)
    void ep_drain_new_replies(ep_endpoint *)
    uint32_t ep_next_completed(ep_endpoint *)
    uint64_t ep_chosen(ep_endpoint *, uint32_t)
    bint ep_has_part(const ep_request *)
    bint ep_await_part(ep_endpoint *, uint32_t)
    void ep_repeat_credit(ep_endpoint *, uint32_t)
    void ep_end_request(ep_endpoint *, uint32_t)
    sb_pending *ep_pending_entry(ep_endpoint *, uint32_t)

cdef extern from "shmbus/endpoint/native/interest_log.h" nogil:
    cdef struct ep_interest_log:
        sb_interests *segment
        uint64_t size
    bint ep_append_interest(ep_interest_log *, const sb_interest *, const char *, const char *, const char *)
    uint64_t ep_commit_interests(ep_endpoint *, uint64_t)
    uint64_t ep_refused(const ep_endpoint *, uint64_t)
    void ep_watch_tail(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/open.h" nogil:
    cdef struct ep_span:
        void *at
        size_t size
        flag writable
    uint64_t ep_up_size(uint64_t, uint64_t, uint64_t)
    void ep_up_prepare(sb_up *, const sb_identity *, uint64_t, const char *, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t)
    bint ep_down_sound(const sb_down *, uint64_t, const sb_up *)
    bint ep_open(ep_endpoint *, const sb_bus *, sb_ready *, sb_up *, const sb_down *, sem_t *, sem_t *, uint64_t,
                 uint32_t, uint32_t)
    bint ep_vacate(ep_endpoint *, const ep_span *, uint32_t)
    void ep_free(ep_endpoint *)
    void ep_set_state(ep_endpoint *, uint64_t)

cdef extern from "shmbus/endpoint/native/door.h" nogil:
    void ep_leave_door(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/show.h" nogil:
    int ep_event_open(ep_endpoint *)
    void ep_drop_event(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/event.h" nogil:
    void ep_event_need(ep_endpoint *, uint32_t, uint64_t)
    void ep_event_need_block(ep_endpoint *, uint64_t)
    void ep_event_disarm(ep_endpoint *)
    bint ep_event_arm(ep_endpoint *, uint64_t)
    void ep_event_rest(ep_endpoint *)

cdef extern from "shmbus/endpoint/native/spin.h" nogil:
    bint ep_spin_reply(ep_endpoint *, uint64_t, flag *)
    void ep_note_slept(ep_endpoint *, bint, uint64_t)
    bint ep_linger(ep_endpoint *, uint64_t, flag *)
    void ep_note_lingered(ep_endpoint *, bint, uint64_t)

cdef extern from "shmbus/endpoint/native/watcher.h" nogil:
    void ep_wake_watcher()
    int ep_watcher_add(ep_endpoint *)
    void ep_watcher_remove(ep_endpoint *)
    void ep_arm_watcher(const ep_endpoint *)
    void ep_tend_in_time()

cdef extern from "shmbus/endpoint/native/want.h" nogil:
    bint ep_data_waits(const ep_endpoint *)
    enum:
        EP_WANT_REPLY
        EP_WANT_DATA
        EP_WANT_SPACE
        EP_WANT_SEEN
        EP_WANT_STATE
        EP_WANT_FUTURE
        EP_WANT_ENTRY
        EP_WANT_ALONE
        EP_WANT_ANSWERED
        EP_WANT_EVENT
        EP_WANT_COMPLETION
        EP_WANT_BLOCK
        EP_WANT_GRANT
    cdef struct ep_waiter:
        uint32_t want
        uint32_t index
        uint64_t value
        uint64_t minds
        bint checks_dispatcher
        uint64_t trouble

cdef extern from "shmbus/endpoint/native/wait.h" nogil:
    void ep_pass_on_data(ep_endpoint *)
    void ep_finish_request(ep_endpoint *, uint32_t)
    void ep_give_up_request(ep_endpoint *, uint32_t)
    bint ep_alert(ep_endpoint *, uint32_t)
    void ep_nudge(ep_endpoint *)
    rb_wake ep_wait(ep_endpoint *, ep_waiter *, uint64_t)
    uint64_t ep_end_looks(ep_endpoint *)
    bint ep_looked(const ep_endpoint *, uint64_t)
