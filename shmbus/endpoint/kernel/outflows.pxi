# Replies in parts, at the endpoint that gives them: a handler that yields is a generator, from which a thread that
# receives takes part after part. One without credit is put aside, and the thread goes on with other messages.

cdef enum:           # how `Outflows.go_on` leaves an outflow
    FLOW_ENDED = 0
    FLOW_ASIDE = 1               # until it has credit, or space
    FLOW_DUE = 2                 # it can go on; others have their turn first

cdef uint64_t QUICK = 20_000            # ns: parts that come as soon after each other are published together,
cdef uint64_t TOGETHER = 64             # so many at the most,
cdef uint64_t PART_DELAY = 1_000_000    # ns: and no later than that
cdef uint64_t TURN = 1_000_000          # ns after which others have their turn: other outflows, and messages
cdef uint64_t FORSAKEN = 1_000_000_000  # ns between looks whether anybody waits for those that were put aside


cdef inline uint64_t least_of(uint64_t a, uint64_t b) noexcept:
    """Of those that are not 0."""
    return min(a, b) if a and b else a + b


cdef inline bint is_generator(object value) except -1:
    return PyGen_CheckExact(value) or (PyIter_Check(value) and isinstance(value, Generator))


cdef object not_asked_for_parts(Message m):
    return TypeError(f"the handler of {m.type!r} yields its reply in parts: ask with ep.stream(), not with request() "
                     "or gather()")


@cython.final
cdef class Outflow:
    """A reply that is given in parts."""

    cdef ep_outflow o
    cdef readonly Message message
    cdef readonly object generator   # None: it has ended
    cdef uint64_t limit_ns       # that it may take from one part to the next; 0: no limit
    cdef ep_message _part        # the last, encoded
    cdef object _owner           # of its bytes, until it is sent
    cdef bint _pooled            # it needs a block,
    cdef bint _waited            # and had to wait for one
    cdef uint16_t _owes          # kind of what found no space yet: SB_PART, SB_END, SB_ERROR; 0: nothing
    cdef bytes _failure          # encoded, of SB_ERROR
    cdef uint64_t _length        # of the last record,
    cdef uint64_t _pages         # and of the block that it could not have; 0: it could
    cdef bint _running           # a thread has it
    cdef bint _open              # it is among those of the endpoint
    cdef object waiter           # in an event loop: by which its task waits for credit; None: it does not

    def __init__(self):
        raise TypeError("made by the bus")


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Outflows:
    """The replies that an endpoint gives in parts."""

    cdef Connection _connection
    cdef Outbox _outbox
    cdef Answers _answers
    cdef Threads _threads
    cdef ep_batch_limits _together
    cdef set _all                # of Outflow
    cdef list _full              # those of them that found no space, and do not try again yet,
    cdef uint64_t _sought        # and when some was last looked for
    cdef uint64_t _looked        # when they were last looked through
    cdef uint64_t _turned        # when one was last gone on with

    def __cinit__(self, Connection connection not None, Outbox outbox not None, Answers answers not None,
                  Threads threads not None):
        self._connection = connection
        self._outbox = outbox
        self._answers = answers
        self._threads = threads
        self._together.messages = TOGETHER
        self._together.bytes = rb_largest_record(connection.e.out[SB_REPLIES].capacity)
        self._together.delay_ns = PART_DELAY
        self._all = set()
        self._full = []

    cdef Outflow begin(self, Message m, object generator, uint64_t limit_ns):
        """From here on the request is answered in parts. In hand until it has ended."""
        cdef Outflow f = Outflow.__new__(Outflow)
        self._connection.check()
        f.message, f.generator, f.limit_ns = m, generator, limit_ns
        f.o.owner = <void *>f
        f.o.granted = max(m._granted, <uint64_t>1)
        memcpy(f.o.id, m._header.correlation, 16)
        self._threads.defer()
        m._answered = True
        f._open = True
        self._all.add(f)
        ep_lock(self._connection.e)
        ep_begin_outflow(self._connection.e, &f.o)
        f.o.broken_off = ep_cancelled_since(self._connection.e, m._header.correlation, m._cancels)
        ep_unlock(self._connection.e)
        return f

    cdef bint unwanted(self, Outflow f) noexcept:
        """Whether nobody waits for it any more, as far as it is known without a look at the bus."""
        return f.o.broken_off or 0 < f.message._header.deadline_ns <= rb_now()

    # What a thread, or a task, does with one that it has --------------------------------------------------------

    cdef int put(self, Outflow f, object value, bint together) except -2:
        """Send a part: EP_PART_SENT, or what is in the way; where that is space, `put_again` is for the same part.
        `together`: more are expected at once. Raises `EncodeError` and `MessageTooLarge`."""
        f._owner = self._outbox.fill(&f._part, f.message.type, value, ALONE)
        self._address(f, &f._part, SB_PART)
        f._pooled = self._outbox.pooled(&f._part, f.message.type, ALONE)
        f._waited = False
        return self.put_again(f, together)

    cdef int put_again(self, Outflow f, bint together) except -2:
        """Send the part that was encoded last: likewise."""
        cdef ep_endpoint *e = self._connection.e
        cdef ep_message part = f._part
        cdef flag armed = 0
        cdef int status = EP_PART_SENT
        cdef uint32_t number = 0
        cdef sb_block block
        f._pages = 0
        if f._pooled:
            status = self._place(f, &part, &number, &block)
        if status == EP_PART_SENT:
            f._length = ep_record_length(&part)
            ep_lock(e)
            status = ep_push_part(e, &f.o, &part, ep_stamp(e), &self._together if together else NULL, &armed)
            ep_unlock(e)
            if f._pooled:
                self._outbox.pool.give_back(number)
        if status != EP_PART_FULL:
            self._outbox.give_back(f._owner)
            f._owner = None
        elif f._pages and not f._waited:
            f._waited = True
            self._connection.count(&e.up.pool_waits)
        if armed:
            ep_arm_watcher(e)
        return status

    cdef int _place(self, Outflow f, ep_message *part, uint32_t *number, sb_block *block) except -2:
        """Copy a large part into a block, if the part can go out: EP_PART_SENT, or what is in the way."""
        cdef Lack lack
        if f.o.broken_off:
            return EP_PART_BROKEN_OFF
        if f.o.sent >= f.o.granted:
            return EP_PART_NO_CREDIT
        try:
            if self._outbox.try_place(part, number, block, &lack):
                return EP_PART_SENT
        except BusError:
            if <uint64_t>self._connection.trouble() & EP_FOR_GOOD:
                return EP_PART_TROUBLE
            raise
        f._length, f._pages = lack.space, lack.pages
        return EP_PART_FULL

    cdef int put_end(self, Outflow f, bytes failure) except -2:
        """Send its end, or the failure instead: EP_PART_SENT, or what is in the way."""
        cdef ep_message end
        f._pages = 0
        self._outbox.fill(&end, f.message.type, None, ALONE)
        self._address(f, &end, SB_END if failure is None else SB_ERROR)
        if failure is not None:
            end.flags = SB_REMOTE
            end.payload = PyBytes_AS_STRING(failure)
            end.size = PyBytes_GET_SIZE(failure)
        f._length = ep_record_length(&end)
        if f.o.broken_off:
            return EP_PART_BROKEN_OFF
        if self._outbox.put_at_once(&end, NULL):
            return EP_PART_SENT
        return EP_PART_TROUBLE if <uint64_t>self._connection.trouble() & EP_FOR_GOOD else EP_PART_FULL

    cdef void _address(self, Outflow f, ep_message *part, uint16_t kind) noexcept:
        cdef Message m = f.message
        part.kind = kind
        part.peer = m._header.peer
        part.peer_generation = m._header.peer_generation
        part.deadline_ns = m._header.deadline_ns
        part.correlation = m._header.correlation

    cdef bint set_aside(self, Outflow f) noexcept:
        """It has no credit: leave it until it is due. False: it has by now."""
        cdef bint aside
        ep_lock(self._connection.e)
        aside = ep_await_credit(self._connection.e, &f.o)
        ep_unlock(self._connection.e)
        return aside

    cdef bint has_space(self, Outflow f) noexcept:
        """Whether there would be some for its last record, or a block."""
        cdef ep_endpoint *e = self._connection.e
        cdef bint there
        ep_lock(e)
        there = ep_block_to_be_had(e, f._pages) if f._pages else ep_has_space(e, SB_REPLIES, f._length)
        ep_unlock(e)
        return there

    cdef int await_space(self, Outflow f) except -1:
        """Its last record has none: it tries again when there is some."""
        ep_lock(self._connection.e)
        ep_await_space(self._connection.e, &f.o)
        ep_unlock(self._connection.e)
        self._full.append(f)
        self._want_space()
        return 0

    cdef void _want_space(self) noexcept:
        """The least of what those lack that found none: this is when the others look, too."""
        cdef uint64_t length = 0, pages = 0
        cdef Outflow f
        for one in self._full:
            f = <Outflow>one
            if f._pages:
                pages = least_of(pages, f._pages)
            else:
                length = least_of(length, f._length)
        ep_lock(self._connection.e)
        ep_want_part_space(self._connection.e, length, pages)
        ep_unlock(self._connection.e)

    cdef void make_due(self, Outflow f) noexcept:
        """Somebody shall go on with it, later, unless it has ended."""
        if not f._open:
            return
        ep_lock(self._connection.e)
        ep_flush(self._connection.e)
        ep_make_due(self._connection.e, &f.o)
        ep_unlock(self._connection.e)

    cdef Outflow next_due(self):
        """One that can go on, which the caller then has; None: there is none."""
        cdef ep_outflow *o
        ep_lock(self._connection.e)
        o = ep_next_due(self._connection.e)
        ep_unlock(self._connection.e)
        return <Outflow><object>o.owner if o != NULL else None

    cdef int leave(self, Outflow f) except -1:
        """It has ended, one way or the other; its generator is closed by the caller."""
        if not f._open:
            return 0
        f._open = False
        f._owner = f._failure = None
        f._owes = 0
        self._all.discard(f)
        if self._connection.ours():
            if f in self._full:
                self._full.remove(f)
                self._want_space()
            ep_lock(self._connection.e)
            ep_flush(self._connection.e)
            ep_end_outflow(self._connection.e, &f.o)
            ep_unlock(self._connection.e)
        self._threads.settle()
        return 0

    # Generators ------------------------------------------------------------------------------------------------

    cdef int go_on(self, Outflow f) except -1:
        """Take parts from its generator until it ends, or has to wait, or others shall have their turn: FLOW_ENDED
        and so on. Raises what is no `Exception`, and ends it before."""
        cdef int how
        if not f._open:
            return FLOW_ENDED
        f._running = True
        token = PyContextVar_Set(IN_FORCE, deadline_of(f.message))
        try:
            how = self._take_parts(f)
        except BaseException as error:
            self._break_off(f)
            raise
        finally:
            f._running = False
            PyContextVar_Reset(IN_FORCE, token)
        if how == FLOW_DUE:
            self.make_due(f)
        return how

    cdef int _take_parts(self, Outflow f) except -1:
        cdef uint64_t began = rb_now(), before = began, now
        cdef PyObject *found
        cdef int status
        cdef bint quick = False
        while True:
            if self.unwanted(f) or self._connection.closing:
                return self._break_off(f)
            if f._owes:
                status = self._put_owed(f)
            elif f.o.sent >= f.o.granted:
                if self.set_aside(f):
                    return FLOW_ASIDE
                continue
            else:
                try:
                    found = self._next(f)
                except BaseException as error:
                    status = self._fail(f, error)
                    if not isinstance(error, Exception):
                        raise
                else:
                    if found == NULL:
                        status = self._finish(f)
                    else:
                        value = <object>found
                        Py_XDECREF(found)
                        now = rb_now()
                        quick = now - before < QUICK
                        before = now
                        status = self._put_or_fail(f, value, quick)
                        if status == EP_PART_SENT and f._open:
                            if now - began > TURN:
                                return FLOW_DUE
                            continue
            if status == EP_PART_SENT:
                if f._open:
                    continue
                return FLOW_ENDED
            if status == EP_PART_TROUBLE:
                return self._break_off(f)
            if status == EP_PART_FULL:
                self.await_space(f)
                return FLOW_ASIDE

    cdef PyObject *_next(self, Outflow f) except? NULL:
        """The next part; NULL: that were all."""
        cdef uint32_t limit
        cdef PyObject *found
        if not f.limit_ns:
            return PyIter_Next(f.generator)
        limit = self._threads.begin_limit(f.message, f.limit_ns)
        try:
            found = PyIter_Next(f.generator)
        finally:
            self._threads.end_limit(limit)
        return found

    cdef int _put_or_fail(self, Outflow f, object value, bint together) except -2:
        cdef int status
        try:
            status = self.put_again(f, together) if f._owes else self.put(f, value, together)
        except (EncodeError, MessageTooLarge, SegmentError) as error:
            f._owes = 0
            self._close(f)
            return self._fail(f, error)
        f._owes = SB_PART if status == EP_PART_FULL else 0
        return status

    cdef int _put_owed(self, Outflow f) except -2:
        """What found no space before."""
        if f._owes == SB_PART:
            return self._put_or_fail(f, None, False)
        return self._put_last(f, f._failure)

    cdef int _finish(self, Outflow f) except -2:
        return self._put_last(f, None)

    cdef int _fail(self, Outflow f, object error) except -2:
        """Its generator has raised."""
        self._connection.count(&self._connection.e.up.handler_errors)
        if self.unwanted(f):
            log_failure(self._connection, f.message, error)
        return self._put_last(f, self._answers.failure(error))

    cdef int _put_last(self, Outflow f, bytes failure) except -2:
        cdef int status = EP_PART_BROKEN_OFF if not f._open or self.unwanted(f) else self.put_end(f, failure)
        if status == EP_PART_FULL:
            f._owes, f._failure = SB_END if failure is None else SB_ERROR, failure
        elif status != EP_PART_TROUBLE:
            f.generator = None
            self.leave(f)
            return EP_PART_SENT
        return status

    cdef int _break_off(self, Outflow f) except -1:
        """Nobody wants more of it: FLOW_ENDED."""
        try:
            self._close(f)
        finally:
            self.leave(f)
        return FLOW_ENDED

    cdef int _close(self, Outflow f) except -1:
        """Close its generator, which may run code of its user's."""
        generator = f.generator
        f.generator = None
        if generator is None:
            return 0
        try:
            generator.close()
        except Exception as error:
            self._connection.count(&self._connection.e.up.handler_errors)
            log_failure(self._connection, f.message, error)
        return 0

    # For threads that receive ----------------------------------------------------------------------------------

    cdef inline bint any(self) noexcept:
        return len(self._all) != 0

    cdef inline bint any_due(self) except -1:
        if self._full and rb_now() - self._sought >= TURN:  # messages flood in, and nobody waits
            self._seek_space()
        return self._connection.e.due != NULL and not self._connection.closing

    cdef int turn(self) except -1:
        """Go on with one that can, unless messages wait that have not had their turn since."""
        cdef Outflow f
        if self._connection.data_waits() and rb_now() - self._turned < TURN:
            return 0
        f = self.next_due()
        if f is not None:
            try:
                self.go_on(f)
            finally:
                self._turned = rb_now()
        return 0

    cdef uint64_t look(self, uint64_t now) except 0:
        """Before a thread waits: until when at the most. Those that found no space try again if there is some,
        and those that nobody waits for any more end, though the dispatcher had no space to say so."""
        cdef Outflow f
        if self._full:
            self._seek_space()
            return now + AGAIN
        if not self._all:
            return NEVER
        if now - self._looked >= FORSAKEN:
            self._looked = now
            for one in list(self._all):
                f = <Outflow>one
                if f.o.aside and f.message.cancelled:
                    ep_lock(self._connection.e)
                    ep_note_broken_off(self._connection.e, f.o.id)
                    ep_unlock(self._connection.e)
        return now + FORSAKEN

    cdef int _seek_space(self) except -1:
        """Those for which there is space by now are due, and those that need none any more. What the others lack is
        wanted all the time: where the dispatcher finds nobody who waits, nothing makes room."""
        cdef list full = self._full
        cdef Outflow f
        cdef bint over = <uint64_t>self._connection.trouble() & EP_FOR_GOOD
        self._sought = rb_now()
        self._full = []
        for one in full:
            f = <Outflow>one
            if over or self.unwanted(f) or self.has_space(f):
                self.make_due(f)
            else:
                self._full.append(f)
        if len(self._full) != len(full):
            self._want_space()
        return 0

    def close_all(self):
        """The endpoint leaves: close the generators that no thread has; returns how many there were."""
        cdef list idle = [one for one in self._all if not (<Outflow>one)._running]
        for one in idle:
            self._break_off(<Outflow>one)
        return len(idle)
