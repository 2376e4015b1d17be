"""What the dispatcher's C headers offer, as far as Cython calls it."""

from libc.stdint cimport uint32_t, uint64_t
from shmbus.shared._native cimport sb_bus, sb_down, sb_ready, sb_up

cdef extern from "shmbus/dispatcher/native/service.h" nogil:
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
