# What both ends of a ring have in common.


cdef class RingCore:
    """A ring in a segment of its own: what its observers and its two sides have in common."""

    cdef Mapping _mapping
    cdef rb_standalone *_ring    # NULL once closed
    cdef uint64_t _capacity
    cdef bint _broken
    cdef Bell _own, _peer        # this side waits at the one and rings the other
    cdef readonly str name

    def __cinit__(self, str name, Mapping mapping not None, Bell consumer=None, Bell producer=None):
        if mapping.size < RB_AT_DATA:
            raise RingCorrupt(name, f"{mapping.size} bytes are no ring", 0, 0, 0)
        self.name = name
        self._ring = <rb_standalone *>mapping._at
        self._capacity = self._ring.capacity
        self._mapping = mapping
        if not rb_capacity_valid(self._capacity) or mapping.size - RB_AT_DATA != self._capacity:
            raise self._corrupt(f"a capacity of {self._capacity} in {mapping.size} bytes")

    cdef rb_standalone *_open(self) except NULL:
        if self._ring == NULL:
            raise RingClosed(self.name)
        return self._ring

    cdef object _corrupt(self, str what):
        self._broken = True
        head, tail = rb_load(&self._ring.head), rb_load(&self._ring.tail)
        return RingCorrupt(self.name, what, head, tail, self._capacity)

    @property
    def capacity(self) -> int:
        """Bytes of record space; a record takes 8 more than its payload, rounded up to eights."""
        return self._capacity

    @property
    def largest(self) -> int:
        """The largest payload in bytes: a quarter of the capacity, less the record's header."""
        return rb_largest_record(self._capacity) - HEADER

    @property
    def depth(self) -> int:
        """Bytes in the ring, padding included. Raises RingClosed, RingCorrupt."""
        cdef rb_standalone *ring = self._open()
        cdef uint64_t depth = rb_depth(&ring.head, &ring.tail)
        if depth > self._capacity:
            raise self._corrupt("its depth exceeds its capacity")
        return depth

    @property
    def high_water(self) -> int:
        """The largest depth so far, in bytes; exact above a 64th of the capacity."""
        return rb_load(&self._open().high)

    @property
    def closed(self) -> bool:
        return self._ring == NULL

    def close(self) -> None:
        """Unmap the ring here; it and its records stay for the other side."""
        self._ring = NULL
        self._mapping = None
        self._own = self._peer = None

    cdef int _wait(self, rb_reached reached, uint64_t deadline) except -1:
        """Wait a while: True to try again, False when the time is over."""
        if deadline == 0 or rb_now() >= deadline:
            return False
        cdef Bell own = self._own  # keeps the mapping if another thread closes the ring meanwhile
        if own is None:
            raise ValueError(f"ring {self.name!r} has no doorbells to wait at; timeout must be 0")
        own._turn(reached, deadline)
        self._open()
        return True
