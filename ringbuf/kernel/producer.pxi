# A ring's producer, and the record that it fills in place.


cdef class ProducerCore(RingCore):
    """The producing side of a ring."""

    cdef rb_producer _side
    cdef Loan _lent              # the reserved record, while it is open or views of it are alive
    cdef uint64_t _lent_length

    def __cinit__(self, str name, Mapping mapping not None, Bell consumer=None, Bell producer=None):
        cdef rb_standalone *ring = self._ring
        mapping._word(0, True)
        self._own, self._peer = producer, consumer
        if rb_producer_open(&self._side, &ring.head, &ring.tail, &ring.high, ring.data,
                            self._capacity) != RB_OK:
            raise self._corrupt("positions out of bounds")

    cdef int _ready(self) except -1:
        self._open()
        if self._broken:
            raise self._corrupt("an earlier call found it so")
        if self._lent is not None:
            if self._lent_length or not self._lent._returned():
                raise RingBusy(f"ring {self.name!r} has a reserved record open, or views of one alive; "
                               "end its block and drop the views first")
            self._lent = None
        return 0

    cdef uint64_t _length(self, Py_ssize_t size) except 0:
        if size < 0:
            raise ValueError("the size of a record cannot be negative")
        if <uint64_t>size + HEADER > rb_largest_record(self._capacity):
            raise RecordTooLarge(self.name, size, self.largest)
        return <uint64_t>size + HEADER

    cdef uint8_t *_claim(self, uint64_t length, uint64_t deadline) except? NULL:
        """Where the record goes; NULL while it is full, and what was committed is published then."""
        cdef uint8_t *at = NULL
        cdef int status
        while True:
            status = rb_claim(&self._side, length, 0, &at)
            if status == RB_OK:
                return at
            if status == RB_CORRUPT:
                rb_abort(&self._side)
                raise self._corrupt("the consumer's position is out of bounds")
            self._publish()
            if not self._wait(rb_wait_for_space(&self._side, &self._ring.need, length), deadline):
                return NULL

    cdef void _publish(self):
        if self._side.next != self._side.published:
            rb_publish(&self._side)
            if self._peer is not None:
                rb_ring_consumer(&self._peer._poster)

    cdef void _seal(self, uint8_t *at, uint64_t length):
        cdef rb_head8 head = rb_head8(<uint32_t>length, RECORD, 0)
        memcpy(at, &head, sizeof(head))
        rb_commit(&self._side, length)

    cdef bint _push(self, data, uint64_t deadline) except -1:
        """Commit one record; False where no space became free."""
        cdef Py_buffer view
        cdef uint64_t length
        cdef uint8_t *at
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            length = self._length(view.len)
            at = self._claim(length, deadline)
            if at == NULL:
                return False
            memcpy(at + HEADER, view.buf, view.len)
            self._seal(at, length)
            return True
        finally:
            PyBuffer_Release(&view)

    def push(self, data, timeout=0.0) -> None:
        """Put one record into the ring.

        `timeout`: seconds to wait for space, None for ever. Raises RingFull, RecordTooLarge,
        RingCorrupt, RingBusy, RingClosed.
        """
        self._ready()
        if not self._push(data, _deadline(timeout)):
            raise RingFull(self.name, memoryview(data).nbytes, self.depth, self._capacity)
        self._publish()

    def push_many(self, records, timeout=0.0) -> int:
        """Put records into the ring, in order and published together; how many went in.

        `timeout`: seconds in all to wait for space, None for ever; all that fits meanwhile goes in.
        Raises RecordTooLarge, with its `index`, after those before it went in; and as `push` does.
        """
        cdef uint64_t deadline = _deadline(timeout)
        cdef int done = 0
        self._ready()
        try:
            for record in records:
                if not self._push(record, deadline):
                    break
                done += 1
        except RecordTooLarge as problem:
            problem.index = done
            raise
        finally:
            if self._ring != NULL and not self._broken:
                self._publish()
        return done

    def reserve(self, size, timeout=0.0):
        """A record of `size` bytes to be written in place: `with ring.reserve(100) as view: ...`.

        The view is writable; what it contains at first is undefined. The record is in the ring once the block
        ends, and is not if it ends with an exception. `timeout`: seconds to wait for space, None for
        ever. Entering raises as `push` does; leaving raises RingBusy, and nothing is in the ring,
        while views made from this one are alive.
        """
        return Reservation(self, size, timeout)

    cdef object _begin(self, Py_ssize_t size, timeout):
        self._ready()
        cdef uint64_t length = self._length(size)
        cdef uint8_t *at = self._claim(length, _deadline(timeout))
        if at == NULL:
            raise RingFull(self.name, size, self.depth, self._capacity)
        self._lent = _lend(self, at + HEADER, size, True)
        self._lent_length = length
        return _view(self._lent)

    cdef int _end(self, bint commit) except -1:
        cdef uint64_t length = self._lent_length
        cdef Loan lent = self._lent
        cdef bint returned = lent._returned()
        self._lent_length = 0
        if returned:
            self._lent = None
        if not commit or not returned or self._ring == NULL:
            rb_abort(&self._side)
            if commit:
                self._open()
                raise RingBusy(f"nothing went into ring {self.name!r}: views of the reserved record are "
                               "still alive; drop them inside the block")
            return 0
        self._seal(<uint8_t *>lent._at - HEADER, length)
        self._publish()
        return 0


@cython.final
cdef class Reservation:
    """The block of `ProducerCore.reserve`."""

    cdef ProducerCore _producer
    cdef Py_ssize_t _size
    cdef object _timeout
    cdef Loan _loan

    def __cinit__(self, ProducerCore producer not None, Py_ssize_t size, timeout=0.0):
        self._producer = producer
        self._size = size
        self._timeout = timeout

    def __enter__(self):
        view = self._producer._begin(self._size, self._timeout)
        self._loan = self._producer._lent
        return view

    def __exit__(self, kind, value, traceback):
        if self._loan is None or self._producer._lent is not self._loan:
            raise RingBusy("this reservation is not open")
        self._loan = None
        self._producer._end(kind is None)
