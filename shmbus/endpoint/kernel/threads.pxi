# The threads of this process that receive at an endpoint, and what each of them has in hand.

cdef struct Hand:                # a thread that has a message in hand
    unsigned long thread
    PyObject *held               # that message, if it is held for handing on
    bint work                    # it is for a group, a command or a request


# What the requester of a dropped request gets.
cdef bytes DROPPED = encode_failure(RuntimeError(
    "it deferred the request and dropped its message without a reply: keep the message until reply() or fail()"
))


@cython.final
cdef class Failure:
    """The failure of a dropped request."""

    cdef str _type
    cdef sb_record _request
    cdef bint _sent


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Threads:
    """Which threads receive, and what is in hand; written to UP for the dispatcher and observers."""

    cdef Connection _connection
    cdef Hand *_hands
    cdef uint32_t _room          # for so many threads; as many as ever had a message in hand at once
    cdef uint32_t in_hand        # threads that have a message in hand
    cdef uint32_t _at_work       # those of them whose message is work
    cdef uint64_t _work_taken    # messages that were
    cdef int runners             # threads that run handlers
    cdef int _waiting            # threads that wait in an iteration or receive()
    cdef bint _limits_warned
    cdef list dropped            # failures of dropped requests, until a warning has been logged of each

    def __cinit__(self, Connection connection not None):
        self._connection = connection
        self.dropped = []

    def __dealloc__(self):
        free(self._hands)

    cdef inline Hand *hand(self, unsigned long thread) noexcept:
        cdef uint32_t i
        for i in range(self.in_hand):
            if self._hands[i].thread == thread:
                return &self._hands[i]
        return NULL

    cdef inline int reserve(self) except -1:
        """Before the lock: room for one thread more. Pointers to hands become invalid."""
        return self._grow() if self.in_hand == self._room else 0

    cdef int _grow(self) except -1:
        cdef Hand *hands = <Hand *>realloc(self._hands, (2 * self._room + 8) * sizeof(Hand))
        if hands == NULL:
            raise MemoryError
        self._hands = hands
        self._room = 2 * self._room + 8
        return 0

    cdef inline Hand *begin(self, unsigned long thread) noexcept:
        """Under the lock, after `reserve`. This thread takes a message."""
        cdef Hand *hand = &self._hands[self.in_hand]
        hand.thread, hand.held, hand.work = thread, NULL, False
        self.in_hand += 1
        self._note()
        return hand

    cdef inline void took(self, Hand *hand, bint work) noexcept:
        """Under the lock. It has been taken; what the thread had in hand before is done."""
        if work or hand.work:
            self._work_taken += work
            self._at_work += <uint32_t>work - <uint32_t>hand.work
            hand.work = work
            self._note_work()

    cdef inline void _note(self) noexcept:
        """Under the lock. Write the counts to UP."""
        self._note_work()
        ep_set_in_hand(self._connection.e, self.in_hand + self._connection.e.deferred, rb_now())

    cdef inline void _note_work(self) noexcept:
        ep_set_work_done(self._connection.e, self._work_taken - self._at_work - self._connection.e.deferred)

    cdef int put_down(self, unsigned long thread) except -1:
        """This thread has nothing in hand any more."""
        cdef ep_endpoint *e = self._connection.e
        cdef Hand *hand = self.hand(thread)
        cdef PyObject *held
        cdef bint rest = False
        if hand == NULL:
            return 0
        held = hand.held
        self.in_hand -= 1
        self._at_work -= hand.work
        hand[0] = self._hands[self.in_hand]
        if self._connection.ours():
            ep_lock(e)
            if held != NULL:
                rest = self._finish(<Message>held)
            self._note()
            ep_unlock(e)
        try:
            if rest:
                (<Message>held)._endpoint._nacks.give_rest(<Message>held, 0.0)
        finally:
            Py_XDECREF(held)
        return 0

    cdef int done(self, Message m, double timeout) except -1:
        """`timeout`: seconds to wait for space where it is given back; later, if there is none by then."""
        cdef ep_endpoint *e = self._connection.e
        cdef bint rest
        if not self._connection.ours():
            return 0
        ep_lock(e)
        rest = self._finish(m)
        ep_unlock(e)
        if rest:
            m._endpoint._nacks.give_rest(m, timeout)
        self.forget(m)
        return 0

    cdef void forget(self, Message m) noexcept:
        """Its thread keeps it no longer, if it is done: with it would stay its block of a pool."""
        cdef uint32_t i
        if m._share is None or m._position != SB_NOWHERE:
            return
        for i in range(self.in_hand):
            if self._hands[i].held == <PyObject *>m:
                self._hands[i].held = NULL
                Py_XDECREF(<PyObject *>m)  # the caller has it, too

    cdef bint _finish(self, Message m) noexcept:
        """Under the lock. It is done, except for what is to be given back. True: that is due, by `Nacks.give_rest`."""
        cdef bint open = not ep_trouble(self._connection.e) & EP_CLOSED_HERE
        if m._delayed or m._copies is not None:
            if open and m._position != SB_NOWHERE:
                ep_settle(self._connection.e, m._position, m.owed() & ~m._delayed)
            m._settled |= m.work() & ~m._delayed
            return open and not m._delayed and m._position != SB_NOWHERE
        if open and m._position != SB_NOWHERE:
            ep_done(self._connection.e, m._position)
        m._position = SB_NOWHERE
        m.unpin()
        return False

    cdef int defer(self) except -1:
        """A request is to be answered later, or a message to be given back."""
        cdef ep_endpoint *e = self._connection.e
        self._connection.check()
        ep_lock(e)
        e.deferred += 1
        self._note()
        ep_unlock(e)
        return 0

    cdef void settle(self) noexcept:
        """It is not any more."""
        cdef ep_endpoint *e = self._connection.e
        if not self._connection.ours():
            return
        ep_lock(e)
        e.deferred -= 1
        self._note()
        if e.deferred == 0:
            ep_wake(e, SB_EVENT_STATE)  # drain() may wait for it
        ep_unlock(e)

    cdef int fail_dropped(self, str type, const sb_record *request) except -1:
        """The message of a deferred request was dropped. In the collector, so in any thread, whatever that does:
        nothing here waits or runs Python code. What finds no space is left to the threads that receive, and so is
        the warning, because a handler of logging may take a lock that this thread has."""
        cdef Failure failure
        if not self._connection.ours() or self._connection.closed():
            return 0
        failure = Failure.__new__(Failure)
        failure._type = type
        failure._request = request[0]
        failure._sent = self._push(failure)
        self.dropped.append(failure)
        ep_lock(self._connection.e)
        self._connection.e.recalled = True
        ep_wake(self._connection.e, SB_EVENT_DATA | SB_EVENT_STATE)
        ep_unlock(self._connection.e)
        return 0

    cdef int end_dropped(self) except -1:
        """By a thread that receives, or the one that closes: send those that found no space, and log all."""
        cdef Failure failure
        ep_lock(self._connection.e)
        self._connection.e.recalled = False
        ep_unlock(self._connection.e)
        while self.dropped:
            failure = <Failure>self.dropped.pop(0)
            if not failure._sent and not self._push(failure):
                self.dropped.insert(0, failure)
                break
            log.warning("endpoint %r: a deferred request %r was dropped: its requester gets an error",
                        self._connection.name, failure._type)
        return 0

    cdef bint _push(self, Failure failure) except -1:
        """False: there is no space."""
        cdef ep_endpoint *e = self._connection.e
        cdef ep_message m
        cdef flag armed = False
        cdef Py_ssize_t length
        cdef rb_status status
        m.kind = SB_ERROR
        m.flags = SB_REMOTE
        m.grant = m.head_size = m.group_length = 0
        m.origin = NULL
        m.attempt = 1
        m.peer = failure._request.peer
        m.peer_generation = failure._request.peer_generation
        m.deadline_ns = failure._request.deadline_ns
        m.correlation = failure._request.correlation
        m.type = PyUnicode_AsUTF8AndSize(failure._type, &length)
        m.type_length = <uint32_t>length
        m.payload = PyBytes_AS_STRING(DROPPED)
        m.size = PyBytes_GET_SIZE(DROPPED)
        ep_lock(e)
        status = ep_push(e, &m, ep_stamp(e), NULL, &armed)
        ep_unlock(e)
        return status == RB_OK or ep_trouble(e) & EP_FOR_GOOD

    cdef uint32_t begin_limit(self, Message m, uint64_t limit_ns) except? 0xffffffff:
        """A handler that may take so long begins with this message; returns what `end_limit` needs."""
        cdef ep_endpoint *e = self._connection.e
        cdef Py_ssize_t length
        cdef const char *type = PyUnicode_AsUTF8AndSize(m.type, &length)
        cdef const sb_origin *origin = NULL if m._origin is None else &m._origin.o
        cdef uint32_t limit
        ep_lock(e)
        limit = ep_begin_limit(e, &m._header, type, origin, limit_ns, rb_now())
        ep_unlock(e)
        if limit == EP_NO_LIMIT and not self._limits_warned:
            self._limits_warned = True
            log.warning("endpoint %r: what handles %r runs without a limit, since %d others that have one do: run "
                        "fewer threads in one endpoint", self._connection.name, m.type, SB_LIMITS)
        return limit

    cdef void end_limit(self, uint32_t limit) noexcept:
        """It has returned."""
        cdef ep_endpoint *e = self._connection.e
        if limit == EP_NO_LIMIT or not self._connection.ours():
            return
        ep_lock(e)
        ep_end_limit(e, limit, rb_now())
        ep_unlock(e)

    cdef int start_running(self) except -1:
        """This thread runs handlers."""
        self.runners += 1
        return self._publish_receivers()

    cdef int stop_running(self, unsigned long thread) except -1:
        self.runners -= 1
        if self._connection.closed():
            return 0
        self.put_down(thread)
        return self._publish_receivers()

    cdef int count_waiting(self, int by) except -1:
        self._waiting += by
        return self._publish_receivers()

    cdef int _publish_receivers(self) except -1:
        cdef ep_endpoint *e = self._connection.e
        if self._connection.ours():
            ep_lock(e)
            rb_store_release(&e.up.receivers, self._waiting + self.runners)
            ep_unlock(e)
        return 0

    cdef uint64_t unfinished(self):
        """Messages received and not done, without the one whose handler calls this."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t delivered = rb_load_acquire(&e.down.incoming[SB_DATA].delivered)
        cdef uint64_t others = self.in_hand - (self.hand(PyThread_get_thread_ident()) != NULL)
        delivered += rb_load_acquire(&e.down.incoming[SB_URGENT_EVENTS].delivered)
        cdef uint64_t taken = rb_load(&e.up.incoming[SB_DATA].taken_count)
        taken += rb_load(&e.up.incoming[SB_URGENT_EVENTS].taken_count)
        return delivered - taken + others + self._connection.e.deferred

    cdef uint32_t work_in_hand(self):
        """The interests of all group messages that threads have in hand."""
        cdef uint32_t bits = 0, i
        for i in range(self.in_hand):
            if self._hands[i].held != NULL:
                bits |= (<Message>self._hands[i].held).work()
        return bits

    cdef int drop_all(self) except -1:
        """The endpoint is closed."""
        while self.in_hand:
            self.in_hand -= 1
            Py_XDECREF(self._hands[self.in_hand].held)
        return self.end_dropped()
