# A doorbell: to ring it, and to wait at it.


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
