"""The bus's native parts, as Python sees them."""

cdef extern from *:
    """
    #ifndef SB_VARIANT
    #define SB_VARIANT ""
    #endif
    """
    const char *SB_VARIANT


def build_info():
    """What was compiled: the `variant`, empty for an ordinary build."""
    return {"variant": SB_VARIANT.decode()}


# The dispatcher's half ------------------------------------------------------------------------

from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t

cdef extern from "shmbus/native/service.h" nogil:
    uint64_t sb_layout()
    int SB_RECLAIMED_PORT, SB_QUARANTINED_PORT
    enum sb_order_kind:
        SB_EVICT
        SB_DEAD
    enum sb_reason:
        SB_EVICTED
        SB_DIED
    struct sb_bus:
        pass
    struct sb_ready:
        pass
    struct sb_up:
        pass
    struct sb_down:
        pass
    struct sb_notice:
        int kind
        uint32_t slot, generation, reason
    struct sb_order:
        sb_order_kind kind
        uint32_t slot, generation
        sb_reason reason
    struct pthread_mutex_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    struct sb_forwarder:
        pthread_mutex_t lock
        sb_notice *notices
        uint32_t notice_count
        int notice_fd
        bint adopting
    struct sb_service:
        sb_forwarder forwarder
    sb_service *sb_service_open(sb_bus *, sb_ready *, const char *, const char *, bint)
    int sb_service_start(sb_service *)
    void sb_service_stop(sb_service *, uint64_t)
    void sb_service_wake_all(sb_service *)
    int sb_service_admit(sb_service *, uint32_t, uint32_t, const sb_up *, sb_down *, const char *, uint32_t, int, int, int, bint)
    void sb_service_forget(sb_service *, uint32_t, uint32_t)
    void sb_service_close(sb_service *)
    bint sb_give_order(sb_forwarder *, sb_order *)
    bint c_up_sound "sb_up_sound"(const sb_up *, uint64_t)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int, void *, size_t)

RECLAIMED = SB_RECLAIMED_PORT
QUARANTINED = SB_QUARANTINED_PORT


def layout_hash():
    """The second word of every segment that this kernel understands."""
    return sb_layout()


def up_sound(up):
    """Do the structures that a segment UP describes lie within it?"""
    return bool(c_up_sound(<const sb_up *><uintptr_t>up.address, up.size))


cdef class Forwarder:
    """The forwarding thread and the watcher of one dispatcher."""

    cdef sb_service *service
    cdef object held
    cdef dict guests

    def __cinit__(self, bus, ready, str prefix, str bell, *, bint spin=True, bint adopting=False):
        self.held = (bus, ready)
        self.guests = {}
        self.service = sb_service_open(<sb_bus *><uintptr_t>bus.address, <sb_ready *><uintptr_t>ready.address,
                                       prefix.encode(), bell.encode(), spin)
        if self.service is NULL:
            PyErr_SetFromErrno(OSError)
        self.service.forwarder.adopting = adopting

    def __dealloc__(self):
        if self.service is not NULL:
            with nogil:
                sb_service_close(self.service)

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
        cdef int failed = sb_service_start(self.service)
        if failed:
            raise OSError(failed, "a native thread could not be started")

    def stop(self, double drain):
        """End both threads; what is on its way is forwarded first, for `drain` seconds at the most."""
        self.check()
        cdef uint64_t drain_ns = <uint64_t>(drain * 1e9)
        with nogil:
            sb_service_stop(self.service, drain_ns)

    def wake_all(self):
        """Ring the bell of every endpoint, after `stop`."""
        self.check()
        sb_service_wake_all(self.service)

    def close(self):
        """Let go of everything."""
        cdef sb_service *service = self.service
        self.service = NULL
        if service is not NULL:
            with nogil:
                sb_service_close(service)
        self.guests.clear()
        self.held = None

    def admit(self, uint32_t slot, uint32_t generation, up, down, str bell, uint32_t pid, int pidfd, int stat, int door,
              bint adopted=False):
        """Begin to serve an endpoint; takes over the descriptors."""
        self.check()
        cdef int failed = sb_service_admit(self.service, slot, generation, <const sb_up *><uintptr_t>up.address,
                                           <sb_down *><uintptr_t>down.address, bell.encode(), pid, pidfd, stat, door,
                                           adopted)
        if failed:
            raise OSError(failed, f"the bell {bell} could not be opened")
        self.guests[slot] = (generation, up, down)

    def evict(self, uint32_t slot, uint32_t generation):
        """Put an endpoint out."""
        self.end(slot, generation, SB_EVICT, SB_EVICTED)

    def bury(self, uint32_t slot, uint32_t generation):
        """An endpoint is known to be dead."""
        self.end(slot, generation, SB_DEAD, SB_DIED)

    cdef int end(self, uint32_t slot, uint32_t generation, int kind, int reason) except -1:
        self.check()
        cdef sb_order order
        order.kind = <sb_order_kind>kind
        order.slot = slot
        order.generation = generation
        order.reason = <sb_reason>reason
        if not sb_give_order(&self.service.forwarder, &order):
            raise MemoryError
        return 0

    def notices(self):
        """What the forwarding thread has to say since the last call: (kind, slot, generation, reason)."""
        self.check()
        cdef sb_forwarder *f = &self.service.forwarder
        cdef uint64_t count
        cdef uint32_t i
        read(f.notice_fd, &count, sizeof(count))
        result = []
        pthread_mutex_lock(&f.lock)
        for i in range(f.notice_count):
            result.append((f.notices[i].kind, f.notices[i].slot, f.notices[i].generation, f.notices[i].reason))
        f.notice_count = 0
        pthread_mutex_unlock(&f.lock)
        return result

    def forget(self, uint32_t slot, uint32_t generation):
        """Let go of what a reclaimed endpoint had."""
        self.check()
        sb_service_forget(self.service, slot, generation)
        guest = self.guests.get(slot)
        if guest is not None and guest[0] == generation:
            del self.guests[slot]
