"""What the dispatcher's C headers offer, as far as Cython calls it."""

from libc.stdint cimport uint32_t, uint64_t
from shmbus.shared._native cimport sb_bus, sb_down, sb_ready, sb_up

cdef extern from "shmbus/dispatcher/native/service.h" nogil:
    int DP_RECLAIMED_PORT, DP_QUARANTINED_PORT, DP_UNREAD_INTERESTS, DP_UNUSED_POOL, DP_UNUSED_PAGES
    enum dp_order_kind:
        DP_EVICT
        DP_DEAD
    struct dp_notice:
        int kind
        uint32_t slot, generation, reason
        uint64_t from_ "from", bytes
    struct dp_order:
        dp_order_kind kind
        uint32_t slot, generation
        int reason
    struct dp_orders:
        int notice_fd
    struct dp_forwarder:
        dp_orders orders
        bint adopting
        bint incomplete
    struct dp_service:
        dp_forwarder forwarder
    dp_service *dp_service_open(sb_bus *, sb_ready *, const char *, const char *, uint32_t)
    int dp_service_start(dp_service *)
    void dp_service_stop(dp_service *, uint64_t)
    void dp_service_wake_all(dp_service *)
    int dp_service_admit(dp_service *, uint32_t, uint32_t, const sb_up *, uint64_t, const char *, sb_down *,
                         const char *, uint32_t, int, int, int, bint)
    void dp_service_forget(dp_service *, uint32_t, uint32_t)
    void dp_service_open_door(dp_service *, uint32_t, uint32_t, int)
    bint dp_service_open_event(dp_service *, uint32_t, uint32_t, int)
    void dp_service_close(dp_service *)
    bint dp_give_order(dp_orders *, dp_order *)
    dp_notice *dp_take_notices(dp_orders *, uint32_t *)
    void dp_service_free_pages(dp_service *, uint32_t, uint32_t, uint64_t, uint64_t)
    cdef struct dp_shape:
        uint64_t incoming[2]
        uint64_t pending_count
    bint dp_read_shape(const sb_up *, uint64_t, dp_shape *)
