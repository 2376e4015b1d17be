"""What both sides agree on, as far as Cython calls it."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from ringbuf._native cimport rb_word

cdef extern from *:
    """
    #ifndef SB_VARIANT
    #ifdef SB_FAILPOINTS
    #define SB_VARIANT "failpoints"
    #else
    #define SB_VARIANT ""
    #endif
    #endif
    """
    const char *SB_VARIANT
    const uint64_t NEVER "UINT64_MAX" # no deadline

cdef extern from "shmbus/shared/native/record.h" nogil:
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

cdef extern from "shmbus/shared/native/layout.h" nogil:
    enum:
        SB_NAME
        SB_DATA
        SB_REPLIES
        SB_UP_CLOSED
        SB_ROW_FREE
        SB_ROW_LIVE
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


cdef inline const sb_row *row_at(object mapping, uint64_t slot) except? NULL:
    """The row of a slot; NULL where there is none."""
    cdef uintptr_t address = mapping.address
    cdef const sb_bus *bus = <const sb_bus *>address
    if slot >= bus.slots or bus.rows_offset + bus.slots * sizeof(sb_row) > <uint64_t>len(mapping):
        return NULL
    return <const sb_row *>(<const char *>bus + bus.rows_offset) + slot


cdef inline uint64_t span_ns(object timeout) except? 0:
    """Seconds to nanoseconds; None, and what no clock reaches, for ever."""
    if timeout is None:
        return NEVER
    cdef double seconds = timeout
    if seconds != seconds:
        raise ValueError("a timeout is a number of seconds, or None")
    if seconds <= 0:
        return 0
    if seconds > 3.2e8:
        return NEVER
    return <uint64_t>(seconds * 1e9)
