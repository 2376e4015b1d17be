# Payloads that are too large for a ring: each goes into a block of the endpoint's own pool, and its record says where.

cdef uint64_t PAGE = 4096
cdef uint64_t GRANT_NS = 50_000_000     # a call waits so long for the answer to how large the pool may be, whatever its
                                        # timeout


cdef inline uint64_t pages_of(uint64_t size) noexcept:
    return (size + PAGE - 1) // PAGE


@cython.final
@cython.no_gc_clear              # __dealloc__ needs the connection
cdef class Block:
    """A block that is being filled, or lent to the user, as a buffer. While anything views it, it is not used again."""

    cdef Connection _connection
    cdef uint32_t _index
    cdef char *_at
    cdef Py_ssize_t _size
    cdef bint readonly           # it was sent
    cdef bint _holds

    def __init__(self):
        raise TypeError("made by the bus")

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self._at, self._size, self.readonly, flags)

    def __dealloc__(self):
        if self._holds and self._connection.ours():
            if not ep_let_block(self._connection.e, self._index):
                ep_wake_watcher()


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Pool:
    """The memory of an endpoint for what it sends and is too large for rings."""

    cdef Connection _connection
    cdef object _shortage        # of Upcalls

    def __cinit__(self, Connection connection not None, shortage):
        self._connection = connection
        self._shortage = shortage

    @property
    def limit(self):
        """Bytes of the largest payload that it takes."""
        return self.most()

    cdef inline uint64_t most(self) noexcept:
        return min(self._connection.e.up.pool_limit, self._connection.e.bus.pool_total_bytes // PAGE * PAGE)

    cdef inline uint64_t inline_limit(self, uint32_t ring, bint urgent) noexcept:
        """Bytes of the longest record that goes through this outgoing ring, and through those of all receivers, as it
        is."""
        cdef uint64_t limit = min(rb_largest_record(self._connection.e.out[ring].capacity), self.fits(ring))
        if urgent:
            limit = min(limit, self.fits(SB_URGENT_EVENTS))
        return limit

    cdef inline uint64_t fits(self, uint32_t ring) noexcept:
        """Bytes of the longest record that this incoming ring of all endpoints takes."""
        cdef uint64_t fits = rb_load(&self._connection.e.bus.fits[ring])
        return fits if fits else NEVER

    cdef bint fits_ring(self, uint64_t size) noexcept:
        """Whether a record of so many bytes beside its header may go through a ring as it is."""
        return SB_HEADER + size <= max(self.inline_limit(SB_DATA, False), self.inline_limit(SB_REPLIES, False))

    cdef uint64_t inline_size(self, uint32_t ring, uint64_t type_length, uint64_t size) noexcept:
        """Bytes that a payload of so many takes in the record itself."""
        return size if SB_HEADER + type_length + size <= self.inline_limit(ring, False) else sizeof(sb_block)

    cdef bint take(self, uint64_t size, uint32_t *index) except -1:
        """Have a block of so many bytes, which the caller then holds: False where it has to wait. Raises the error of
        a trouble, `SegmentError`."""
        cdef ep_endpoint *e = self._connection.e
        cdef int failed = 0, status = EP_BLOCK_FULL
        cdef uint64_t trouble
        while True:
            ep_lock(e)
            trouble = ep_trouble(e) & EP_FOR_GOOD
            if not trouble:
                failed = ep_make_pool(e)
                if not failed:
                    status = ep_take_block(e, size, index)
            ep_unlock(e)
            if trouble:
                self._connection.raise_trouble(trouble)
            if not failed and status == EP_BLOCK_GROW:
                with nogil:
                    failed = ep_reserve_pages(e)
                ep_wake_watcher()  # which gives it back one day
                if not failed:
                    continue
            if failed:
                raise self._shortage(failed)
            if status == EP_BLOCK_FULL:
                ep_tend_in_time()
            return status == EP_BLOCK_TAKEN

    cdef bint grant_is_open(self) noexcept:
        """Whether the dispatcher is about to say how large the pool may be."""
        return ep_grant_is_open(self._connection.e)

    cdef int take_slowly(self, uint64_t size, uint32_t *index, str type, object timeout, uint64_t deadline,
                         int64_t number) except -1:
        """Have one by the deadline, which `QueueFull` calls `timeout`."""
        cdef ep_endpoint *e = self._connection.e
        if self.take(size, index):
            return 0
        self._connection.count(&e.up.pool_waits)
        cdef uint64_t answered_by = rb_now() + GRANT_NS
        while deadline < answered_by and self.grant_is_open():
            if self._connection.wait(EP_WANT_GRANT, 0, 0, self._connection.minds(), CHECKS_DISPATCHER,
                                     answered_by) == WAIT_ELAPSED:
                break
            if self.take(size, index):
                return 0
        while True:
            if self._connection.wait(EP_WANT_BLOCK, 0, pages_of(size), self._connection.minds(),
                                     CHECKS_DISPATCHER, deadline) == WAIT_ELAPSED:
                raise self.full(type, timeout, number)
            if self.take(size, index):
                return 0

    cdef object full(self, str type, object timeout, int64_t number):
        """The error of a call that has waited so long for a block."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t lent, payloads, largest
        ep_lock(e)
        lent, payloads, largest = ep_held_bytes(e), ep_blocks_most(e), ep_largest_gap(e)
        ep_unlock(e)
        return self._connection._explain_full(Full(
            type=type, depth=rb_load(&e.up.pool_in_use), capacity=self.most(), seconds=timeout, setting="pool_bytes",
            number=number_of(number), lent=lent, payloads=payloads, largest=largest))

    cdef Block lend(self, uint32_t index, uint64_t size, bint holds):
        """The block as a buffer, which from now on `holds` it, or leaves that to the caller."""
        cdef Block block = Block.__new__(Block)
        block._at = <char *>ep_block_memory(self._connection.e, index)
        block._size = size
        block._index = index
        block._connection = self._connection
        block._holds = holds
        return block

    cdef void give_back(self, uint32_t index) noexcept:
        """It was sent, or is not needed: whoever filled it holds it no more."""
        if self._connection.ours():
            if not ep_let_block(self._connection.e, index):
                ep_wake_watcher()

    cdef int fill(self, ep_message *m, uint32_t index, sb_block *block) except -1:
        """Copy the payload there, and make the message the one that names it."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint8_t *at = ep_block_memory(e, index)
        if m.frame != NULL:
            (<object>m.frame).write_into(self.lend(index, m.size, False))
        elif m.size > <uint64_t>LARGE:
            with nogil:
                ep_write_payload(at, m)
        else:
            ep_write_payload(at, m)
        ep_describe_block(e, index, 0, m.size, block)
        m.payload = block
        m.size = sizeof(sb_block)
        m.head_size = 0
        m.origin = NULL
        m.flags |= SB_POOLED
        return 0
