# Loans: blocks of the pool that the user fills in place, so that nothing is copied.

cdef enum:           # how far a loan is
    LOAN_ASKED = 0
    LOAN_LENT = 1
    LOAN_PUBLISHING = 2  # by a thread that may wait for space
    LOAN_PUBLISHED = 3
    LOAN_DISCARDED = 4


@cython.final
cdef class Loan:
    """Memory that is filled in place and then published; see `Endpoint.loan`.

    `type`: of the event.
    `nbytes`: of its payload, of an array without what names its dtype and shape.
    """

    cdef Outbox _outbox
    cdef readonly str type       # of the event
    cdef readonly object nbytes  # of its payload
    cdef uint16_t _flags
    cdef object _timeout
    cdef object _blank           # frames.Blank: it is an array; None: bytes
    cdef bytes _head             # what stands before the elements
    cdef Block _block            # while it is lent
    cdef uint32_t _index
    cdef object _data            # memoryview; None: nobody asked for it
    cdef object _array           # likewise
    cdef int _state

    def __init__(self):
        raise TypeError(MAKERS[Loan])

    # What it lends ---------------------------------------------------------------------------

    @property
    def data(self):
        """The memory as bytes, to be written. Raises `ValueError` where it is not lent: outside the block, or once it
        is published or given back."""
        self._require_lent()
        if self._data is None:
            self._data = memoryview(self._block)[len(self._head):<Py_ssize_t>self._size()]
        return self._data

    @property
    def array(self):
        """The memory as the array that was asked for, not initialised; of a loan of bytes, as an array of those. Raises
        like `data`."""
        self._require_lent()
        if self._array is None:
            if self._blank is None:
                self._array = numpy.frombuffer(self._block, numpy.uint8, self.nbytes)
            else:
                self._array = self._blank.array(self._block)
        return self._array

    @property
    def published(self):
        """Whether it was."""
        return self._state == LOAN_PUBLISHED

    @property
    def lent(self):
        """Whether it can be filled: it has begun, and is neither published nor given back."""
        return self._state == LOAN_LENT

    cdef int _require_lent(self) except -1:
        if self._state == LOAN_ASKED:
            raise ValueError(f"the loan of {self.type!r} has not begun: use it in a `with` statement")
        if self._state == LOAN_PUBLISHING:
            raise ValueError(f"the loan of {self.type!r} is being published by another thread")
        if self._state != LOAN_LENT:
            raise ValueError(f"the loan of {self.type!r} is over: it was "
                             f"{'published' if self._state == LOAN_PUBLISHED else 'given back'}")
        return 0

    # Its life --------------------------------------------------------------------------------

    cdef int begin(self, uint32_t index) except -1:
        """It has this block."""
        self._index = index
        self._block = self._outbox.pool.lend(index, self.block_size(), True)
        if self._head:
            memcpy(self._block._at, PyBytes_AS_STRING(self._head), len(self._head))
        self._state = LOAN_LENT
        return 0

    cdef uint64_t _size(self):
        """Bytes of the payload, with what stands before the elements."""
        return <uint64_t>self.nbytes + len(self._head)

    cdef uint64_t block_size(self):
        """Bytes of its block: it has one though the payload is empty."""
        return max(self._size(), <uint64_t>1)

    cdef bint try_begin(self) except -1:
        """False where there is no block now."""
        cdef uint32_t index = 0
        if self._state != LOAN_ASKED:
            raise ValueError(f"the loan of {self.type!r} was used before: ask for another")
        self._outbox._connection.check()
        if not self._outbox.pool.take(self.block_size(), &index):
            return False
        self.begin(index)
        return True

    def __enter__(self):
        cdef uint32_t index = 0
        if not self.try_begin():
            self._outbox.pool.take_slowly(self.block_size(), &index, self.type, self._timeout,
                                          deadline_after(span_ns(self._timeout), rb_now()), ALONE)
            self.begin(index)
        return self

    def __exit__(self, kind, value, trace):
        if self._state != LOAN_LENT:
            return               # or another thread is about to publish it
        if kind is not None:
            self.discard()
            return
        try:
            self.publish()
        finally:
            self.discard()

    def publish(self):
        """Publish it now, rather than at the end of the block. From here on nobody may write there: `array` becomes
        read-only, and `data` is released unless other views of it are alive. While any is alive, the memory is not used
        again. Raises like `Endpoint.publish`; then it is still lent."""
        cdef ep_message m
        cdef sb_block block
        self._require_lent()
        self.message(&m, &block)
        self._state = LOAN_PUBLISHING  # other threads run while this one waits
        try:
            self._outbox.put_placed(&m, self.type, self._timeout, self._outbox.always(), ALONE)
        except BaseException:
            self._state = LOAN_LENT
            raise
        self.was_published()

    cdef int message(self, ep_message *m, sb_block *block) except -1:
        """The message that publishes it. Nothing may be written there any more."""
        self._outbox._connection.check()
        self._outbox.fill(m, self.type, None, ALONE)
        m.kind = SB_EVENT
        m.peer = 0
        m.peer_generation = 0
        m.deadline_ns = 0
        m.correlation = NULL
        m.flags = self._flags | (SB_RAW if self._blank is None else SB_FRAMED)
        if self._size():
            ep_describe_block(self._outbox._connection.e, self._index, 0, self._size(), block)
            m.flags |= SB_POOLED
            m.payload = block
            m.size = sizeof(sb_block)
        return 0

    cdef int was_published(self) except -1:
        cdef Outbox outbox = self._outbox
        self._state = LOAN_PUBLISHED
        self._block.readonly = True
        if self._array is not None:
            self._array.flags.writeable = False
        self._let_go()
        if outbox.granted:
            outbox.check_grant(SB_EVENT, self.type, ALONE)
        return 0

    def discard(self):
        """Give it back: nothing is published. Harmless if that is over. Raises `ValueError` while another thread
        publishes it."""
        if self._state == LOAN_PUBLISHING:
            self._require_lent()  # raises
        if self._state == LOAN_ASKED or self._state == LOAN_LENT:
            self._state = LOAN_DISCARDED
            self._let_go()

    cdef int _let_go(self) except -1:
        data, self._data = self._data, None
        self._array = self._block = None
        if data is not None:
            try:
                data.release()
            except BufferError:    # others look at it, and keep the block
                pass
        return 0

    def __repr__(self):
        how = ("not begun", "lent", "being published", "published", "given back")[self._state]
        return f"<loan of {self.nbytes} bytes for {self.type!r}, {how}>"


cdef Loan lend_bytes(
    Outbox outbox, str type, object nbytes, object align, object retain, object urgent, object timeout
):
    """A loan of so many bytes. Raises `InvalidSetting`, `InvalidType`, `MessageTooLarge`."""
    if not is_size(nbytes):
        raise InvalidSetting(setting="nbytes", value=nbytes, reason="it is no number of bytes",
                             remedy="Give a whole number, 0 or more")
    if not isinstance(align, int) or isinstance(align, bool) or align < 1 or align > PAGE or align & (align - 1):
        raise InvalidSetting(setting="align", value=align, reason="memory cannot be aligned to it",
                             remedy=f"Give a power of two, {PAGE} at most")
    return new_loan(outbox, type, int(nbytes), None, b"", retain, urgent, timeout)


cdef inline bint is_size(object value):
    """Whether it is a whole number, 0 or more: of Python, or of numpy, whose `prod` makes one of a shape."""
    return isinstance(value, (int, numpy.integer)) and not isinstance(value, bool) and value >= 0


cdef Loan lend_array(Outbox outbox, str kind, object shape, object dtype, object order, object retain, object urgent,
                     object timeout):
    """A loan of an array. Raises like `lend_bytes`."""
    blank = outbox.blank         # mostly it is like the one before
    if blank is None or dtype is not outbox.dtype or order is not outbox.order or not same_shape(shape, outbox.shape):
        blank = blank_of(outbox, kind, shape, dtype, order)
        lasts = (type(shape) is tuple or type(shape) is int) and (isinstance(dtype, (str, type)))
        outbox.shape, outbox.dtype, outbox.order, outbox.blank = shape, dtype, order, blank if lasts else None
    cdef bytes head = blank.head
    return new_loan(outbox, kind, blank.size - len(head), blank, head, retain, urgent, timeout)


cdef inline bint same_shape(object shape, object before) noexcept:
    return shape is before or (PyLong_CheckExact(shape) and PyLong_CheckExact(before) and shape == before)


cdef object blank_of(Outbox outbox, str kind, object shape, object dtype, object order):
    """Raises `InvalidSetting`, `MessageTooLarge`."""
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not all(is_size(size) for size in sizes):
        raise InvalidSetting(setting="shape", value=shape, reason="it is no shape of an array",
                             remedy="Give a whole number, or a tuple of these")
    sizes = tuple(int(size) for size in sizes)
    if order not in ("C", "F"):
        raise InvalidSetting(setting="order", value=order, reason="no such choice", remedy='Give "C" or "F"')
    try:
        made = numpy.dtype(dtype)
        nbytes = math.prod(sizes) * made.itemsize
        if nbytes > outbox.pool.most():  # and perhaps than any frame can say
            raise outbox.too_large(nbytes, kind, ALONE)
        return frames.Blank(sizes, made, order)
    except (TypeError, ValueError) as why:
        reason = str(why)
        if isinstance(why, NotCarried):  # which says, too, what to send instead
            reason = reason.partition(": ")[0]
        raise InvalidSetting(setting="dtype", value=dtype, reason=reason,
                             remedy="Give a dtype of numpy without Python objects, such as numpy.uint8") from why


cdef Loan new_loan(Outbox outbox, str type, object nbytes, object blank, bytes head, object retain, object urgent,
                   object timeout):
    cdef Loan loan = Loan.__new__(Loan)
    outbox._connection.check()
    span_ns(timeout)             # raises
    if not is_type(type):
        check_type(type)         # raises
    loan._flags = ways(retain, urgent)
    loan._outbox, loan.type, loan.nbytes, loan._timeout = outbox, type, nbytes, timeout
    loan._blank, loan._head = blank, head
    if nbytes + len(head) > outbox.pool.most():
        raise outbox.too_large(nbytes + len(head), type, ALONE)
    return loan
