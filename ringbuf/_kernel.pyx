# cython: language_level=3, auto_pickle=False, autotestdict=False
"""Mappings, rings and bells: the C of ringbuf/native as Python classes."""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from os import fsencode
from weakref import ref

from ringbuf.errors import RecordTooLarge, RingBusy, RingClosed, RingCorrupt, RingFull
from ringbuf.prefix import Prefix

cdef extern from "ringbuf/native/order.h" nogil:
    ctypedef struct rb_word:
        pass
    uint64_t rb_load(const rb_word *)
    uint64_t rb_load_acquire(const rb_word *)
    void rb_store_release(rb_word *, uint64_t)
    void rb_fence_seq()

cdef extern from "ringbuf/native/prefix.h" nogil:
    const uint64_t RB_MAGIC
    cdef struct rb_prefix:
        rb_word magic
        uint64_t layout
        uint64_t size
        uint64_t generation
        rb_word superseded_by
        uint32_t kind

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    sem_t *SEM_FAILED
    sem_t *sem_open(const char *, int)
    int sem_close(sem_t *)

cdef extern from "ringbuf/native/bell.h" nogil:
    cdef struct rb_bell:
        uint64_t parks
    cdef struct rb_poster:
        rb_word *epoch
        sem_t *semaphore
        uint64_t posted
    ctypedef bint (*rb_look)(void *)
    uint64_t rb_now()
    void rb_bell_open(rb_bell *, rb_word *, sem_t *, uint32_t)
    const uint32_t RB_SPIN_NS
    int rb_bell_wait(rb_bell *, rb_look, void *, uint64_t)
    void rb_ring_bell(rb_poster *)

cdef extern from "ringbuf/native/ring.h" nogil:
    int RB_OK, RB_EMPTY, RB_FULL, RB_CORRUPT
    cdef struct rb_head8:
        uint32_t length
        uint16_t kind
        uint16_t user
    cdef struct rb_producer:
        uint64_t next
        uint64_t published
        uint64_t tail_seen
    cdef struct rb_consumer:
        uint64_t next
        uint64_t released
        uint64_t head_seen
    bint rb_capacity_valid(uint64_t)
    uint64_t rb_largest_record(uint64_t)
    uint64_t rb_depth(const rb_word *, const rb_word *)
    int rb_producer_open(rb_producer *, rb_word *, const rb_word *, rb_word *, uint8_t *, uint64_t)
    int rb_claim(rb_producer *, uint64_t, uint64_t, uint8_t **)
    void rb_commit(rb_producer *, uint64_t)
    void rb_abort(rb_producer *)
    void rb_publish(rb_producer *)
    int rb_consumer_open(rb_consumer *, const rb_word *, rb_word *, const uint8_t *, uint64_t)
    int rb_peek_at(rb_consumer *, uint64_t *, uint32_t, rb_head8 *, const uint8_t **)
    void rb_release_to(rb_consumer *, uint64_t)

cdef extern from "ringbuf/native/standalone.h" nogil:
    const uint32_t RB_STANDALONE_KIND
    cdef struct rb_standalone:
        uint64_t capacity
        uint64_t doorbells
        rb_word head
        rb_word high
        rb_word need
        rb_word producer_epoch
        rb_word tail
        rb_word consumer_epoch
        uint8_t *data
    cdef struct rb_reached:
        const rb_word *word
        uint64_t least
    const uint64_t RB_LAYOUT
    bint rb_look_reached(void *)
    rb_reached rb_wait_for_space(const rb_producer *, rb_word *, uint64_t)
    void rb_ring_consumer(rb_poster *)
    void rb_ring_producer(rb_poster *, const rb_consumer *, const rb_word *)

cdef extern from * nogil:
    """
    #define RB_AT(member) offsetof(struct rb_standalone, member)
    #define RB_AT_CAPACITY RB_AT(capacity)
    #define RB_AT_DOORBELLS RB_AT(doorbells)
    #define RB_AT_PRODUCER_EPOCH RB_AT(producer_epoch)
    #define RB_AT_CONSUMER_EPOCH RB_AT(consumer_epoch)
    #define RB_AT_HEAD RB_AT(head)
    #define RB_AT_TAIL RB_AT(tail)
    #define RB_AT_DATA RB_AT(data)
    """
    size_t RB_AT_CAPACITY, RB_AT_DOORBELLS, RB_AT_HEAD, RB_AT_TAIL, RB_AT_DATA
    size_t RB_AT_PRODUCER_EPOCH, RB_AT_CONSUMER_EPOCH

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int madvise(void *, size_t, int)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_SHARED, MADV_DONTDUMP

MAGIC = RB_MAGIC
PREFIX_SIZE = sizeof(rb_prefix)
RING_KIND = RB_STANDALONE_KIND
RING_CAPACITY = RB_AT_CAPACITY
RING_DOORBELLS = RB_AT_DOORBELLS
RING_HEAD = RB_AT_HEAD
RING_TAIL = RB_AT_TAIL
RING_PRODUCER_EPOCH = RB_AT_PRODUCER_EPOCH
RING_CONSUMER_EPOCH = RB_AT_CONSUMER_EPOCH
RING_DATA = RB_AT_DATA

cdef enum:
    HEADER = 8                # bytes of a record before its payload
    RECORD = 1                # its kind; 0 is padding
    SLICE = 250_000_000       # ns between two looks at signals and at whether the ring was closed


def layout_hash() -> int:
    """The layout word of the rings: version and fingerprint of what they have in shared memory."""
    return RB_LAYOUT


def capacity_valid(capacity: int) -> bool:
    """Whether a ring can have that capacity: a power of two, not too small."""
    return 0 < capacity <= 1 << 48 and rb_capacity_valid(capacity)


cdef uint64_t _deadline(timeout) except? 1:
    """The time at which `timeout` seconds are over; 0: do not wait."""
    if timeout is None:
        return UINT64_MAX
    cdef double seconds = timeout
    if seconds != seconds:
        raise ValueError("the timeout is not a number")
    if seconds <= 0:
        return 0
    if seconds >= 1e9:
        return UINT64_MAX
    return rb_now() + <uint64_t>(seconds * 1e9)


@cython.final
cdef class Mapping:
    """A file's first `size` bytes in memory, shared with all who map it, and left out of core dumps.

    A buffer, read-only unless `writable`. It stays mapped as long as anything refers to it or views it.
    Raises OSError.
    """

    cdef char *_at
    cdef readonly size_t size
    cdef readonly bint writable

    def __cinit__(self, int fd, size_t size, *, bint writable=False):
        cdef void *at = mmap(NULL, size, PROT_READ | (PROT_WRITE if writable else 0), MAP_SHARED, fd, 0)
        if at == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        madvise(at, size, MADV_DONTDUMP)  # if Linux refuses, core dumps are larger, no more
        self._at = <char *>at
        self.size = size
        self.writable = writable

    def __dealloc__(self):
        if self._at != NULL:
            munmap(self._at, self.size)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self._at, <Py_ssize_t>self.size, not self.writable, flags)

    def __len__(self):
        return self.size

    @property
    def address(self):
        """Where it begins, for native code that holds a reference to this object meanwhile."""
        return <uintptr_t>self._at

    cdef rb_word *_word(self, uint64_t offset, bint write) except NULL:
        if offset & 7 or self.size < 8 or offset > self.size - 8:
            raise IndexError(f"no 8-byte word at offset {offset} of {self.size} bytes")
        if write and not self.writable:
            raise TypeError("the mapping is read-only")
        return <rb_word *>(self._at + offset)

    def load(self, uint64_t offset) -> int:
        """The unsigned 64-bit word at `offset`, and with it (acquire) all that its writer wrote before."""
        return rb_load_acquire(self._word(offset, False))

    def store(self, uint64_t offset, uint64_t value) -> None:
        """Store an unsigned 64-bit word and with it (release) publish all that was written before."""
        rb_store_release(self._word(offset, True), value)

    cdef rb_prefix *_prefix(self) except NULL:
        if self.size < sizeof(rb_prefix):
            raise IndexError(f"{self.size} bytes are too few for a prefix of {sizeof(rb_prefix)}")
        return <rb_prefix *>self._at

    def write_prefix(self, uint64_t layout, uint32_t kind, uint64_t generation=0) -> None:
        """Make this a segment that others may open; whatever else they read must have been written already."""
        cdef rb_prefix *prefix = self._prefix()
        cdef rb_word *magic = self._word(0, True)
        prefix.layout = layout
        prefix.size = self.size
        prefix.generation = generation
        prefix.kind = kind
        rb_store_release(magic, RB_MAGIC)

    def read_prefix(self) -> Prefix:
        """The prefix, unchecked."""
        cdef rb_prefix *prefix = self._prefix()
        cdef uint64_t magic = rb_load_acquire(&prefix.magic)
        if magic == 0:
            return Prefix(0, 0, 0, 0, 0, 0)
        return Prefix(magic=magic, layout=prefix.layout, size=prefix.size, generation=prefix.generation,
                      superseded_by=rb_load_acquire(&prefix.superseded_by), kind=prefix.kind)


cdef class Bell:
    """A semaphore that exists, and the epoch word of the one thread that waits at it.

    The epoch is at `offset` of `mapping`, which must be writable for `wait`. Raises OSError.
    """

    cdef Mapping _mapping
    cdef rb_word *_epoch
    cdef sem_t *_semaphore
    cdef rb_bell _bell
    cdef rb_poster _poster
    cdef bint _opened
    cdef bint _waiting

    def __cinit__(self, str name, Mapping mapping not None, uint64_t offset):
        self._epoch = mapping._word(offset, False)
        self._mapping = mapping
        cdef bytes path = fsencode("/" + name)
        cdef sem_t *semaphore = sem_open(path, 0)
        if semaphore == SEM_FAILED:
            PyErr_SetFromErrno(OSError)
        self._semaphore = semaphore
        self._poster = rb_poster(self._epoch, semaphore, 0)

    def __dealloc__(self):
        if self._semaphore != NULL:
            sem_close(self._semaphore)

    def ring(self) -> None:
        """Wake the waiting thread, if one is parked. What it waits for must be stored before."""
        rb_fence_seq()
        rb_ring_bell(&self._poster)

    def wait(self, Mapping mapping not None, uint64_t offset, uint64_t least, timeout=None) -> bool:
        """Wait until the word at `offset` of `mapping` is at least `least`; whether it is.

        `timeout` is in seconds, None waits for ever. The word is a counter or a position that its one
        writer only raises, before it rings. Raises RingBusy when another thread waits here already.
        """
        cdef rb_reached reached = rb_reached(mapping._word(offset, False), least)
        cdef uint64_t deadline = _deadline(timeout)
        while not rb_look_reached(&reached):
            if rb_now() >= deadline:
                return False
            self._turn(reached, deadline)
        return True

    cdef int _turn(self, rb_reached reached, uint64_t deadline) except -1:
        """Wait once, until rung, for a slice at most; the caller looks again. Signal handlers run."""
        if self._waiting:
            raise RingBusy("another thread waits here already; one thread at a time may")
        if not self._opened:
            self._mapping._word(0, True)  # raises unless it is writable
            rb_bell_open(&self._bell, self._epoch, self._semaphore, RB_SPIN_NS)
            self._opened = True
        cdef uint64_t until = min(deadline, rb_now() + SLICE)
        self._waiting = True
        with nogil:
            rb_bell_wait(&self._bell, rb_look_reached, &reached, until)
        self._waiting = False
        PyErr_CheckSignals()
        return 0


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


@cython.final
@cython.internal
cdef class Loan:
    """A piece of a ring as a buffer that counts its views."""

    cdef RingCore _ring
    cdef Mapping _mapping
    cdef void *_at
    cdef Py_ssize_t _size
    cdef bint _writable
    cdef int _views
    cdef object _view            # the one handed out first; weakly, as it refers to this object

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self._at, self._size, not self._writable, flags)
        self._views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self._views -= 1

    cdef bint _returned(self):
        """Take back the view handed out; False while others, made from it, are alive."""
        view = self._view()
        if view is not None:
            try:
                view.release()
            except BufferError:
                return False
        return self._views == 0


cdef Loan _lend(RingCore ring, const void *at, Py_ssize_t size, bint writable):
    cdef Loan loan = Loan.__new__(Loan)
    loan._ring = ring
    loan._mapping = ring._mapping
    loan._at = <void *>at
    loan._size = size
    loan._writable = writable
    return loan


cdef object _view(Loan loan):
    view = memoryview(loan)
    loan._view = ref(view)
    return view


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
