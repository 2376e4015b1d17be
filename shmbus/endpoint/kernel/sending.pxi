# From a payload to a record in an outgoing ring.

cdef Py_ssize_t LARGE = 32768           # bytes; larger payloads are copied without the GIL
cdef Py_ssize_t SCRATCH = 65536         # bytes; an encoding buffer that grew beyond is not kept

cdef enum: ALONE = -1                   # the index of a message that is in no batch

cdef Py_ssize_t LOOKED_AT = 4096        # types of which an endpoint remembers that its grant covers them

cdef tuple SETTINGS = ("out_bytes", "reply_bytes")  # of the outgoing rings, by ring


cdef inline bint is_type(str text):
    """Whether a user may send messages of this type."""
    return PyUnicode_IS_COMPACT_ASCII(text) and sb_is_type(<const char *>PyUnicode_1BYTE_DATA(text),
                                                           PyUnicode_GET_LENGTH(text))


cpdef uint16_t ways(object retain, object urgent) except? 0xffff:
    """The flags of an event that is published so. Raises `InvalidSetting`."""
    if retain is False and urgent is False:
        return 0
    check_flag("retain", retain)
    check_flag("urgent", urgent)
    return (SB_RETAIN if retain else 0) | (SB_URGENT if urgent else 0)


cdef object number_of(int64_t index):
    """The index as errors have it."""
    return None if index == ALONE else index


cdef tuple pair_of(object item):
    """Type and payload of what is to be sent with others."""
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return tuple(item)
    raise InvalidSetting(setting="items", value=item, reason="this one is no pair",
                         remedy='Give pairs of type and payload, such as ("buffer.changed", 12)')


cdef bytearray in_full(object frame):
    """All of a `frames.Frame`."""
    cdef bytearray whole = PyByteArray_FromStringAndSize(NULL, frame.size)
    frame.write_into(whole)
    return whole


cdef struct Lack:
    # What a message would have needed to be sent at once; both 0: nothing, or others wait for that.
    uint64_t space               # bytes of the record that did not fit its ring, or
    uint64_t pages               # of the block that could not be had


@cython.final
cdef class Encoding:
    """From payloads to MessagePack, one at a time."""

    cdef bytearray encoded
    cdef object encode_into      # runs the endpoint's hook, if it has one
    cdef object within           # frames.Arrays: what MessagePack had no word for
    cdef list exts               # its own

    def __cinit__(self, codec not None):
        encoder, self.within = codec.encoder()
        self.encode_into, self.exts = encoder.encode_into, self.within.exts
        self.encoded = bytearray(512)


@cython.final
cdef class ArrayHead:
    """What goes before the elements of an array that is the payload; mostly the one before was like it."""

    cdef object dtype, shape
    cdef bint fortran
    cdef bytes content


cdef ArrayHead array_head(object dtype, object shape, bint fortran):
    """Raises `NotCarried`."""
    cdef ArrayHead head = ArrayHead.__new__(ArrayHead)
    head.dtype, head.shape, head.fortran = dtype, shape, fortran
    head.content = frames.head_of(shape, dtype, fortran).content
    return head


@cython.final
@cython.no_gc                    # an array knows nothing of it
@cython.freelist(8)
cdef class Elements:
    """The elements of an array, where they lie without gaps."""

    cdef Py_buffer view
    cdef ArrayHead head

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Outbox:
    """What an endpoint sends: encodes it, puts it into its ring, and waits where that is full."""

    cdef Connection _connection
    cdef Pool pool
    cdef object _codec           # payloads.Codec
    cdef Encoding _encoding      # None while a thread has it
    cdef bint _hooked            # the endpoint's hook has a say in arrays
    cdef ArrayHead _array_head   # of the last array
    cdef Lack lack               # in an event loop: of the last that was to be sent;
    cdef bint large              # it goes by the pool;
    cdef bint behind[2]          # it waits for others before it tries, by `large`
    cdef bint _batching
    cdef ep_batch_limits _always        # if so: the limits of all that is published and sent
    cdef bint granted            # what it may send is limited by a grant, whatever stands in the next
    cdef set _may_publish, _may_send    # types that it covers
    cdef str _published          # the last that it covered of an event
    cdef object _look_at_grant   # of Upcalls
    cdef object shape, dtype, order     # as the last array was asked for that was lent, if that
    cdef object blank                   # says what its frames.Blank is

    def __cinit__(self, Connection connection not None, codec, batch, upcalls):
        self._connection = connection
        self.pool = Pool(connection, upcalls.explain_shortage)
        self.granted = upcalls.granted
        self._look_at_grant = upcalls.look_at_grant
        self._may_publish, self._may_send = set(), set()
        self._codec, self._hooked = codec, codec.encodes
        self._encoding = Encoding(codec)
        self._batching = batch is not None
        if batch is not None:
            self._always = self.limits(batch.max_messages, batch.max_bytes, batch.max_delay)

    cdef ep_batch_limits limits(self, object max_messages, object max_bytes, object max_delay):
        cdef ep_batch_limits limits
        limits.messages = max_messages if max_messages is not None else NEVER
        limits.bytes = rb_largest_record(self._connection.e.out[SB_DATA].capacity)
        if max_bytes is not None and max_bytes < limits.bytes:
            limits.bytes = max_bytes
        limits.delay_ns = 0 if max_delay is None else max(<uint64_t>span_ns(max_delay), <uint64_t>1)
        return limits

    cdef inline const ep_batch_limits *always(self) noexcept:
        return &self._always if self._batching else NULL

    cdef int flush(self) except -1:
        """Publish what is batched."""
        cdef ep_endpoint *e = self._connection.e
        if self._connection.ours():
            ep_lock(e)
            ep_flush(e)
            ep_unlock(e)
        return 0

    cdef int post(self, uint16_t kind, uint16_t flags, str type, object payload, object timeout,
                  const ep_batch_limits *batch, int64_t index) except -1:
        """Send an event or a command. `flags`: beside those of its payload."""
        cdef ep_message m
        self._connection.check()
        if not PyFloat_CheckExact(timeout) or <double>timeout != <double>timeout:
            span_ns(timeout)     # raises, also where nothing is waited for
        m.kind = kind
        m.peer = 0
        m.peer_generation = 0
        m.deadline_ns = 0
        m.correlation = NULL
        owner = self.fill(&m, type, payload, index)
        m.flags |= flags
        self.put(&m, type, timeout, batch, index)
        self.give_back(owner)
        if self.granted:
            self.check_grant(kind, type, index)
        return 0

    cdef inline int check_grant(self, uint16_t kind, str type, int64_t index) except -1:
        """Raises `Forbidden` where this endpoint may not send what it has just sent: the dispatcher refuses it, too,
        and counts and tells of that."""
        if kind == SB_EVENT and type is self._published:
            return 0
        cdef set may = self._may_publish if kind == SB_EVENT else self._may_send
        if type not in may and not self._is_of_links(type):
            self._look_at_grant("publish" if kind == SB_EVENT else "request", type, number_of(index))
            if len(may) >= LOOKED_AT:
                may.clear()
            may.add(type)
        if kind == SB_EVENT:
            self._published = type
        return 0

    cdef int post_many(self, object items, object timeout) except -1:
        """Send events, pairs of type and payload, as one batch."""
        self._connection.check()
        cdef ep_batch_limits limits = self.limits(256, None, None)
        cdef int64_t index = 0
        try:
            for item in items:
                type, payload = pair_of(item)
                self.post(SB_EVENT, 0, type, payload, timeout, &limits, index)
                index += 1
        finally:
            self.flush()
        return 0

    cdef object fill(self, ep_message *m, str type, object payload, int64_t index):
        """Fill in type and payload; returns what owns the payload's bytes."""
        cdef Encoding encoding
        if not is_type(type) and not self._is_of_links(type):
            check_type(type)     # raises
        m.type = <const char *>PyUnicode_1BYTE_DATA(type)
        m.type_length = <uint32_t>PyUnicode_GET_LENGTH(type)
        m.attempt = 1
        m.grant = m.head_size = m.group_length = 0
        m.frame = NULL
        m.origin = NULL
        if payload is None:
            m.flags = SB_NONE
            m.payload = NULL
            m.size = 0
            return None
        if PyBytes_CheckExact(payload):
            m.flags = SB_RAW
            m.payload = PyBytes_AS_STRING(payload)
            m.size = PyBytes_GET_SIZE(payload)
            return payload
        if Py_TYPE(payload) == <PyTypeObject *>Encoded:
            (<Encoded>payload).fill(m)
            return payload
        if isinstance(payload, (bytes, bytearray, memoryview)):
            m.flags = SB_RAW
            view = memoryview(payload)
            if view.nbytes > LARGE and view.c_contiguous:  # copied once, from where it is
                m.payload = PyMemoryView_GET_BUFFER(view).buf
                m.size = view.nbytes
                return view
            raw = bytes(payload)
            m.payload = PyBytes_AS_STRING(raw)
            m.size = PyBytes_GET_SIZE(raw)
            return raw
        if Py_TYPE(payload) == <PyTypeObject *>ndarray and not self._hooked:
            elements = self._fill_array(m, payload)
            if elements is not None:
                return elements
        encoding = self._encoding
        self._encoding = None    # encoding may run Python code, which may send, too
        if encoding is None:
            encoding = Encoding(self._codec)
        m.flags = 0
        try:
            encoding.encode_into(payload, encoding.encoded)
            if len(encoding.exts):
                return self._fill_framed(m, encoding)
        except Exception as why:
            encoding.within.clear()
            self._encoding = encoding
            raise EncodeError(type=type, reason=payloads.reason_of(why), index=number_of(index)) from why
        m.payload = PyByteArray_AS_STRING(encoding.encoded)
        m.size = PyByteArray_GET_SIZE(encoding.encoded)
        return encoding

    cdef Elements _fill_array(self, ep_message *m, object array):
        """Likewise of an array that is the payload, which is copied from where it is. None: it is none of those that
        can be copied as they lie."""
        cdef Elements elements = Elements.__new__(Elements)
        cdef ArrayHead head = self._array_head
        cdef bint fortran
        dtype, shape = array.dtype, array.shape
        try:
            PyObject_GetBuffer(array, &elements.view, PyBUF_ANY_CONTIGUOUS)
            fortran = not PyBuffer_IsContiguous(&elements.view, b"C")
            if head is None or dtype is not head.dtype or fortran != head.fortran or shape != head.shape:
                head = array_head(dtype, shape, fortran)
                if dtype.names is None:  # those of fields may be changed
                    self._array_head = head
        except (BufferError, ValueError):  # NotCarried, too
            return None
        elements.head = head
        m.flags = SB_FRAMED
        m.head = PyBytes_AS_STRING(head.content)
        m.head_size = PyBytes_GET_SIZE(head.content)
        m.payload = elements.view.buf
        m.size = m.head_size + <uint64_t>elements.view.len
        return elements

    cdef object _fill_framed(self, ep_message *m, Encoding encoding):
        """Likewise of a payload with arrays in it. What goes through the pool in any case is written there later."""
        cdef bytearray whole
        frame = encoding.within.frame(encoding.encoded)
        self._encoding = encoding
        m.flags = SB_FRAMED
        m.size = frame.size
        if not self.pool.fits_ring(m.size + m.type_length):
            m.frame, m.payload = <void *>frame, NULL
            return frame
        whole = in_full(frame)
        m.payload = PyByteArray_AS_STRING(whole)
        return whole

    cdef bint _is_of_links(self, str type):
        """Whether links publish such events, and this endpoint is one."""
        return self._connection.name.startswith("@") and type.startswith("$bus.link.") and is_type(type[1:])

    cdef object fill_query(self, ep_message *m, str pattern):
        """Fill in a type or a pattern, and no payload."""
        if not is_type(pattern):
            check_pattern(pattern)  # raises
        m.type = <const char *>PyUnicode_1BYTE_DATA(pattern)
        m.type_length = <uint32_t>PyUnicode_GET_LENGTH(pattern)
        m.attempt = 1
        m.flags = SB_NONE
        m.payload = NULL
        m.size = 0
        m.grant = m.head_size = m.group_length = 0
        m.frame = NULL
        m.origin = NULL
        return None

    cdef inline void give_back(self, object owner) noexcept:
        if Py_TYPE(owner) == <PyTypeObject *>Encoding and PyByteArray_GET_SIZE((<Encoding>owner).encoded) <= SCRATCH:
            self._encoding = <Encoding>owner

    cdef int put(self, ep_message *m, str type, object timeout, const ep_batch_limits *batch, int64_t index) except -1:
        if self.pooled(m, type, index):
            return self.put_pooled(m, type, timeout, deadline_after(span_ns(timeout), rb_now()), batch, index)
        return self.put_placed(m, type, timeout, batch, index)

    cdef int put_pooled(self, ep_message *m, str type, object timeout, uint64_t deadline, const ep_batch_limits *batch,
                        int64_t index) except -1:
        """Send it by the pool."""
        cdef uint32_t number = 0
        cdef sb_block block
        self.pool.take_slowly(m.size, &number, type, timeout, deadline, index)
        try:
            self.pool.fill(m, number, &block)
            if not self.put_at_once(m, batch):
                self.put_slowly(m, type, timeout, deadline, batch, index)
        finally:
            self.pool.give_back(number)
        return 0

    cdef inline int put_placed(self, ep_message *m, str type, object timeout, const ep_batch_limits *batch,
                               int64_t index) except -1:
        """Send what fits its ring."""
        if not self.put_at_once(m, batch):
            self.put_slowly(m, type, timeout, deadline_after(span_ns(timeout), rb_now()), batch, index)
        return 0

    cdef bint try_put(self, ep_message *m, bint pooled, const ep_batch_limits *batch, Lack *lack) except -1:
        """Send it unless that has to wait: False then, and the message is as before."""
        cdef ep_message placed
        cdef uint32_t number = 0
        cdef sb_block block
        cdef bint sent
        lack.space = lack.pages = 0
        if not pooled:
            sent = self.put_at_once(m, batch)
            lack.space = 0 if sent else ep_record_length(m)
            return sent
        placed = m[0]
        if not self.try_place(&placed, &number, &block, lack):
            return False
        sent = self.put_at_once(&placed, batch)
        lack.space = 0 if sent else ep_record_length(&placed)
        self.pool.give_back(number)
        return sent

    cdef bint try_place(self, ep_message *m, uint32_t *number, sb_block *block, Lack *lack) except -1:
        """Copy the payload of a message that is `pooled` into a block, if its ring, as far as it is known, has space
        for it then: it can be put like others, and the block is given back. False where there is no space, or no
        block."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t length = ep_record_length(m) - m.size + sizeof(sb_block)
        cdef bint space
        ep_lock(e)
        space = ep_has_space(e, ep_ring_of(m.kind), length)
        if not space:
            ep_flush(e)            # only what is published can make space
        ep_unlock(e)
        lack.space = 0 if space else length
        lack.pages = 0
        if not space:
            return False
        if not self.pool.take(m.size, number):
            lack.pages = pages_of(m.size)
            return False
        try:
            self.pool.fill(m, number[0], block)
        except BaseException:
            self.pool.give_back(number[0])
            raise
        return True

    cdef inline bint pooled(self, const ep_message *m, str type, int64_t index) except -1:
        """Whether it is too large for a ring that it has to pass. Raises `MessageTooLarge`: for the pool, too."""
        if m.frame == NULL and ep_record_length(m) <= self.pool.inline_limit(ep_ring_of(m.kind), m.flags & SB_URGENT):
            return False         # a frame was not written anywhere, as it was too large before
        if not m.size or m.size > self.pool.most():
            raise self.too_large(m.size, type, index)
        return True

    cdef uint64_t ring_bytes(self, const ep_message *m, str type) except? 0:
        """What it takes of its ring. Raises `MessageTooLarge`."""
        cdef uint64_t length = ep_record_length(m)
        return length - m.size + sizeof(sb_block) if self.pooled(m, type, ALONE) else length

    cdef bint has_room(self, uint64_t length) noexcept:
        """Whether the ring of what it sends has so many bytes free, or is empty."""
        cdef ep_endpoint *e = self._connection.e
        cdef bint space
        ep_lock(e)
        space = ep_has_room(e, SB_DATA, length)
        if not space:
            ep_flush(e)            # only what is published can make space
        ep_unlock(e)
        return space

    cdef object too_large(self, object size, str type, int64_t index):
        """The error of such a payload. Raises that of what keeps any from being sent."""
        self._connection.require()
        cdef bint own = size > self._connection.e.up.pool_limit
        cdef bint total = size > self._connection.e.bus.pool_total_bytes // PAGE * PAGE
        return MessageTooLarge(type=type, size=size, limit=self.pool.most(), endpoint=self._connection.name,
                               setting="pool_total_bytes" if total and not own else "pool_bytes",
                               total=own and total, index=number_of(index))

    cdef bint put_at_once(self, ep_message *m, const ep_batch_limits *batch) noexcept:
        """False where the ring is full."""
        cdef ep_endpoint *e = self._connection.e
        cdef flag armed = 0
        cdef rb_status status
        if m.size > <uint64_t>LARGE:
            with nogil:
                ep_lock(e)
                status = ep_push(e, m, ep_stamp(e), batch, &armed)
                ep_unlock(e)
        else:
            ep_lock(e)
            status = ep_push(e, m, ep_stamp(e), batch, &armed)
            ep_unlock(e)
        if armed:
            ep_arm_watcher(e)
        return status == RB_OK

    cdef int put_slowly(self, ep_message *m, str type, object timeout, uint64_t deadline,
                        const ep_batch_limits *batch, int64_t index) except -1:
        """The ring was full: wait until `deadline`, which the error calls `timeout`."""
        cdef ep_endpoint *e = self._connection.e
        cdef flag armed = 0
        cdef rb_status status
        cdef uint64_t trouble, depth
        cdef uint32_t ring = ep_ring_of(m.kind)
        while True:
            ep_lock(e)
            status = ep_push(e, m, ep_stamp(e), batch, &armed)
            depth = e.out[ring].next - e.out[ring].tail_seen  # for QueueFull: as it is now, not at the deadline
            trouble = ep_trouble(e)
            ep_unlock(e)
            if status == RB_OK:
                if armed:
                    ep_arm_watcher(e)
                return 0
            if trouble & EP_FOR_GOOD:
                self._connection.raise_trouble(trouble & EP_FOR_GOOD)
            if self._connection.wait(EP_WANT_SPACE, ring, ep_record_length(m), self._connection.minds(),
                                     CHECKS_DISPATCHER, deadline) == WAIT_ELAPSED:
                raise self._connection._explain_full(Full(
                    type=type, depth=depth, capacity=e.out[ring].capacity, seconds=timeout, setting=SETTINGS[ring],
                    number=number_of(index)))
