# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
"""The forwarding plane, as the control plane drives it."""

from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from shmbus.shared._native cimport sb_bus, sb_down, sb_ready, sb_up, span_ns

RECLAIMED = DP_RECLAIMED_PORT
QUARANTINED = DP_QUARANTINED_PORT
UNREAD = DP_UNREAD_INTERESTS


def up_shape(up):
    """What a segment UP asks for: the capacities of its incoming data and reply rings, and how many
    requests; None where what it says does not lie within it."""
    cdef dp_shape shape
    if not dp_read_shape(<const sb_up *><uintptr_t>up.address, up.size, &shape):
        return None
    return shape.incoming[0], shape.incoming[1], shape.pending_count


cdef class Forwarder:
    """The forwarding thread and the watcher of one dispatcher."""

    cdef dp_service *service
    cdef object held
    cdef dict guests

    def __cinit__(self, bus, ready, str prefix, str bell, *, uint32_t spin_ns, bint adopting=False):
        self.held = (bus, ready)
        self.guests = {}
        self.service = dp_service_open(<sb_bus *><uintptr_t>bus.address, <sb_ready *><uintptr_t>ready.address,
                                       prefix.encode(), bell.encode(), spin_ns)
        if self.service is NULL:
            PyErr_SetFromErrno(OSError)
        self.service.forwarder.adopting = adopting

    def __dealloc__(self):
        if self.service is not NULL:
            with nogil:
                dp_service_close(self.service)

    cdef int check(self) except -1:
        if self.service is NULL:
            raise ValueError("the dispatcher is closed")
        return 0

    @property
    def notice_fd(self):
        """Readable while there are notices."""
        self.check()
        return self.service.forwarder.notice_fd

    def start(self):
        """Start both threads."""
        self.check()
        cdef int failed = dp_service_start(self.service)
        if failed:
            raise OSError(failed, "a native thread could not be started")

    def stop(self, drain):
        """End both threads; what is on its way is forwarded first, for `drain` seconds at the most
        (None: no limit)."""
        self.check()
        cdef uint64_t drain_ns = min(span_ns(drain), <uint64_t>1 << 62)
        with nogil:
            dp_service_stop(self.service, drain_ns)

    def wake_all(self):
        """Ring the bell of every endpoint, after `stop`."""
        self.check()
        dp_service_wake_all(self.service)

    def close(self):
        """Let go of everything."""
        cdef dp_service *service = self.service
        self.service = NULL
        if service is not NULL:
            with nogil:
                dp_service_close(service)
        self.guests.clear()
        self.held = None

    def admit(self, uint32_t slot, uint32_t generation, up, down, str bell, uint32_t pid, int pidfd, int stat, int door,
              bint adopted=False):
        """Begin to serve an endpoint; takes over the descriptors."""
        self.check()
        cdef int failed = dp_service_admit(self.service, slot, generation,
                                           <const sb_up *><uintptr_t>up.address, up.size,
                                           <sb_down *><uintptr_t>down.address, bell.encode(), pid, pidfd, stat, door,
                                           adopted)
        if failed:
            raise OSError(failed, f"the bell {bell} could not be opened")
        self.guests[slot] = (generation, up, down)

    def evict(self, uint32_t slot, uint32_t generation):
        """Put an endpoint out."""
        self.end(slot, generation, DP_EVICT, SB_REASON_EVICTED)

    def bury(self, uint32_t slot, uint32_t generation, int reason=SB_REASON_DIED):
        """An endpoint is known to be dead."""
        self.end(slot, generation, DP_DEAD, reason)

    cdef int end(self, uint32_t slot, uint32_t generation, int kind, int reason) except -1:
        self.check()
        cdef dp_order order
        order.kind = <dp_order_kind>kind
        order.slot = slot
        order.generation = generation
        order.reason = <sb_reason>reason
        if not dp_give_order(&self.service.forwarder, &order):
            raise MemoryError
        return 0

    def notices(self):
        """What the forwarding thread has to say since the last call: (kind, slot, generation, reason)."""
        self.check()
        cdef uint32_t i, count
        cdef dp_notice *told = dp_take_notices(&self.service.forwarder, &count)
        try:
            return [(told[i].kind, told[i].slot, told[i].generation, told[i].reason) for i in range(count)]
        finally:
            free(told)

    def open_door(self, uint32_t slot, uint32_t generation, int door):
        """An adopted endpoint has shown a connection; takes over the descriptor."""
        self.check()
        dp_service_open_door(self.service, slot, generation, door)

    def forget(self, uint32_t slot, uint32_t generation):
        """Let go of what a reclaimed endpoint had."""
        self.check()
        dp_service_forget(self.service, slot, generation)
        guest = self.guests.get(slot)
        if guest is not None and guest[0] == generation:
            del self.guests[slot]
