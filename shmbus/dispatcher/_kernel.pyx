# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
"""What the control plane calls of the forwarding plane."""

from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from shmbus.shared._native cimport SB_REASON_DIED, SB_REASON_EVICTED, sb_bus, sb_down, sb_ready, sb_up, span_ns

from os import strerror
from typing import NamedTuple

from ringbuf._kernel import Mapping
from shmbus.dispatcher.notices import Notice
from shmbus.errors import NoThread
from shmbus.shared.segments import Shape

RECLAIMED = DP_RECLAIMED_PORT
QUARANTINED = DP_QUARANTINED_PORT
UNREAD = DP_UNREAD_INTERESTS
UNUSED_POOL = DP_UNUSED_POOL
UNUSED_PAGES = DP_UNUSED_PAGES


def up_shape(up):
    """What a segment UP asks for; None where its rings or tables do not lie within it."""
    cdef dp_shape shape
    if not dp_read_shape(<const sb_up *><uintptr_t>up.address, up.size, &shape):
        return None
    return Shape(data_bytes=shape.incoming[0], reply_bytes=shape.incoming[1],
                 urgent_bytes=shape.incoming[2], requests=shape.pending_count)


class _Mappings(NamedTuple):
    """The segments of one endpoint."""

    generation: int
    up: Mapping
    down: Mapping


cdef class Forwarder:
    """The native threads of one dispatcher: forwarding, liveness, wills."""

    cdef dp_service *service
    cdef object bus, ready  # kept mapped
    cdef dict mappings  # by slot: kept mapped until `forget`

    def __cinit__(self, bus, ready, str prefix, str bell, *, uint32_t spin_ns, bint adopting=False):
        self.bus, self.ready = bus, ready
        self.mappings = {}
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

    def miss(self):
        """Before `start`: an endpoint that may live could not be adopted, so blocks of pools that are in use stay
        so."""
        self.check()
        self.service.forwarder.incomplete = True

    @property
    def notice_fd(self):
        """Readable while there are notices."""
        self.check()
        return self.service.forwarder.orders.notice_fd

    def start(self, str bus):
        """Start the native threads. Raises NoThread."""
        self.check()
        cdef int failed = dp_service_start(self.service)
        if failed:
            raise NoThread(bus=bus, task="forwarding", reason=strerror(failed))

    def stop(self, drain):
        """End the native threads. What is accepted is forwarded first, for `drain` seconds at most (None: no limit)."""
        self.check()
        cdef uint64_t drain_ns = min(span_ns(drain), <uint64_t>1 << 62)
        with nogil:
            dp_service_stop(self.service, drain_ns)

    def wake_all(self):
        """Ring the bell of every endpoint, after `stop`."""
        self.check()
        dp_service_wake_all(self.service)

    def close(self):
        """Free the kernel's part and unmap everything."""
        cdef dp_service *service = self.service
        self.service = NULL
        if service is not NULL:
            with nogil:
                dp_service_close(service)
        self.mappings.clear()
        self.bus = self.ready = None

    def admit(self, uint32_t slot, uint32_t generation, up, down, *, str up_file, str bell, uint32_t pid, int pidfd,
              int stat, int door, bint adopted=False):
        """Begin to serve an endpoint; takes over the descriptors."""
        self.check()
        cdef int failed = dp_service_admit(self.service, slot, generation,
                                           <const sb_up *><uintptr_t>up.address, up.size, up_file.encode(),
                                           <sb_down *><uintptr_t>down.address, bell.encode(), pid, pidfd, stat, door,
                                           adopted)
        if failed:
            raise OSError(failed, strerror(failed), f"/dev/shm/sem.{bell[1:]}")
        self.mappings[slot] = _Mappings(generation, up, down)

    def evict(self, uint32_t slot, uint32_t generation):
        """Order the eviction of an endpoint."""
        self.end(slot, generation, DP_EVICT, SB_REASON_EVICTED)

    def mark_dead(self, uint32_t slot, uint32_t generation):
        """Order the end of an endpoint that is known to be dead."""
        self.end(slot, generation, DP_DEAD, SB_REASON_DIED)

    cdef int end(self, uint32_t slot, uint32_t generation, int kind, int reason) except -1:
        self.check()
        cdef dp_order order
        order.kind = <dp_order_kind>kind
        order.slot = slot
        order.generation = generation
        order.reason = reason
        if not dp_give_order(&self.service.forwarder.orders, &order):
            raise MemoryError
        return 0

    def notices(self):
        """What the forwarding thread has reported since the last call."""
        self.check()
        cdef uint32_t i, count
        cdef dp_notice *taken = dp_take_notices(&self.service.forwarder.orders, &count)
        try:
            return [Notice(kind=taken[i].kind, slot=taken[i].slot, generation=taken[i].generation,
                           reason=taken[i].reason, start=taken[i].from_, size=taken[i].bytes)
                    for i in range(count)]
        finally:
            free(taken)

    def free_pages(self, uint32_t slot, uint32_t generation, uint64_t start, uint64_t size):
        """Give back memory of an endpoint's pool in which nobody has anything any more."""
        self.check()
        with nogil:
            dp_service_free_pages(self.service, slot, generation, start, size)

    def open_door(self, uint32_t slot, uint32_t generation, int door):
        """Watch the new connection of an adopted endpoint; takes over the descriptor."""
        self.check()
        dp_service_open_door(self.service, slot, generation, door)

    def open_event(self, uint32_t slot, uint32_t generation, int event):
        """Ring this event of an endpoint, too; takes over the descriptor."""
        self.check()
        if not dp_service_open_event(self.service, slot, generation, event):
            raise MemoryError

    def forget(self, uint32_t slot, uint32_t generation):
        """Unmap the segments of a reclaimed endpoint."""
        self.check()
        dp_service_forget(self.service, slot, generation)
        kept = self.mappings.get(slot)
        if kept is not None and kept.generation == generation:
            del self.mappings[slot]
