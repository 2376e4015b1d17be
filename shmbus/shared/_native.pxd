"""What both sides agree on, as far as Cython calls it."""

from libc.math cimport NAN
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from ringbuf._native cimport rb_word
from shmbus.shared._layout cimport *

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

cdef extern from "shmbus/shared/native/layout.h" nogil:
    const uint64_t SB_LAYOUT
    uint64_t sb_payload_offset(const sb_record *)
    uint64_t sb_origin_size(uint16_t, uint64_t)
    uint64_t sb_latency_floor(uint32_t)
    uint64_t sb_whom(uint32_t, uint32_t)
    uint32_t sb_whom_slot(uint64_t)
    uint32_t sb_whom_generation(uint64_t)

cdef extern from "shmbus/shared/native/guard.h" nogil:
    int sb_end_with(uint32_t, int, int)


cdef inline const sb_row *row_at(object mapping, uint64_t slot) except? NULL:
    """The row of a slot; NULL where there is none."""
    cdef uintptr_t address = mapping.address
    cdef const sb_bus *bus = <const sb_bus *>address
    if slot >= bus.slots or bus.rows_offset + bus.slots * sizeof(sb_row) > <uint64_t>len(mapping):
        return NULL
    return <const sb_row *>(<const char *>bus + bus.rows_offset) + slot


cdef inline uint64_t span_ns(object seconds, str what="timeout") except? 0:
    """Seconds to nanoseconds; None, and what no clock reaches, for ever. Raises `InvalidSetting`."""
    if seconds is None:
        return NEVER
    cdef double number
    try:
        number = seconds
    except TypeError:
        number = NAN
    if number != number:
        from shmbus.errors import InvalidSetting
        raise InvalidSetting(setting=what, value=seconds, reason="it is no number of seconds",
                             remedy="Give a number such as 1.5")
    if number <= 0:
        return 0
    if number > 3.2e8:
        return NEVER
    return <uint64_t>(number * 1e9)
