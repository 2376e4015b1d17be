# A ring's consumer.


cdef class ConsumerCore(RingCore):
    """The consuming side of a ring."""

    cdef rb_consumer _side
    cdef Loan _lent              # the oldest record, while it is peeked at
    cdef uint64_t _lent_end

    def __cinit__(self, str name, Mapping mapping not None, Bell consumer=None, Bell producer=None):
        cdef rb_standalone *ring = self._ring
        mapping._word(0, True)
        self._own, self._peer = consumer, producer
        if rb_consumer_open(&self._side, &ring.head, &ring.tail, ring.data, self._capacity) != RB_OK:
            raise self._corrupt("positions out of bounds")

    cdef int _ready(self) except -1:
        self._open()
        if self._broken:
            raise self._corrupt("an earlier call found it so")
        if self._lent is not None and not self._lent._returned():
            raise RingBusy(f"views of the oldest record of ring {self.name!r} are alive; drop them first")
        self._lent = None
        return 0

    cdef int _peek(self, uint64_t *position, rb_head8 *head, const uint8_t **record) except -1:
        """Whether there is a record at `position`, which moves past padding."""
        cdef int status = rb_peek_at(&self._side, position, HEADER, head, record)
        if status == RB_CORRUPT:
            raise self._corrupt(f"no valid record at {position[0]}")
        return status == RB_OK

    cdef int _front(self, uint64_t *position, rb_head8 *head, const uint8_t **record,
                    uint64_t deadline) except -1:
        """Whether there is a record to take."""
        cdef rb_reached reached
        while True:
            position[0] = self._side.released
            if self._peek(position, head, record):
                return True
            if position[0] != self._side.released:  # nothing but padding: free it
                self._release(position[0])
            reached = rb_reached(&self._ring.head, self._side.head_seen + 1)
            if not self._wait(reached, deadline):
                return False

    cdef void _release(self, uint64_t position):
        rb_release_to(&self._side, position)
        if self._peer is not None:
            rb_ring_producer(&self._peer._poster, &self._side, &self._ring.need)

    def pop(self, timeout=0.0) -> bytes | None:
        """Take one record out; None where there is none.

        `timeout`: seconds to wait for one, None for ever. Raises RingCorrupt, RingBusy, RingClosed.
        """
        cdef uint64_t position
        cdef rb_head8 head
        cdef const uint8_t *record
        self._ready()
        if not self._front(&position, &head, &record, _deadline(timeout)):
            return None
        data = PyBytes_FromStringAndSize(<const char *>record + HEADER, head.length - HEADER)
        self._release(position + ((head.length + 7) & ~7))
        return data

    def pop_many(self, Py_ssize_t limit, timeout=0.0) -> list[bytes]:
        """Take out up to `limit` records, at least one unless there is none.

        `timeout`: seconds to wait for the first, None for ever. Raises as `pop` does; if a record is
        not valid, those before it come first and the next call raises.
        """
        cdef uint64_t position
        cdef rb_head8 head
        cdef const uint8_t *record
        cdef list taken = []
        self._ready()
        if limit < 1 or not self._front(&position, &head, &record, _deadline(timeout)):
            return taken
        while True:
            taken.append(PyBytes_FromStringAndSize(<const char *>record + HEADER, head.length - HEADER))
            position += (head.length + 7) & ~7
            if len(taken) >= limit or rb_peek_at(&self._side, &position, HEADER, &head, &record) != RB_OK:
                break
        self._release(position)
        return taken

    def peek(self, timeout=0.0) -> memoryview | None:
        """A read-only view of the oldest record, which stays in the ring; None where there is none.

        `timeout`: seconds to wait for one, None for ever. `release` or the next call takes the view
        back. Raises RingCorrupt, RingClosed, and RingBusy while views made from an earlier one are alive.
        """
        cdef uint64_t position
        cdef rb_head8 head
        cdef const uint8_t *record
        self._ready()
        if not self._front(&position, &head, &record, _deadline(timeout)):
            return None
        self._lent = _lend(self, record + HEADER, head.length - HEADER, False)
        self._lent_end = position + ((head.length + 7) & ~7)
        return _view(self._lent)

    def release(self) -> None:
        """Take the peeked record out of the ring, and its view back.

        Raises RingBusy while views made from it are alive, or if no record is peeked at.
        """
        self._open()
        if self._lent is None:
            raise RingBusy(f"no record of ring {self.name!r} is peeked at: there is nothing to release")
        self._ready()
        self._release(self._lent_end)
