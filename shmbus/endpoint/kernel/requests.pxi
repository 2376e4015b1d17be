# Requests, and the futures of those whose caller does not wait.


@cython.final
cdef class PendingReply:
    """A request whose reply completes a future."""

    cdef readonly object future
    cdef readonly uint64_t deadline   # ns, by CLOCK_MONOTONIC
    cdef readonly uint32_t index      # of its entry in the table of requests
    cdef str _type
    cdef object _reply_type
    cdef object _timeout

    def __lt__(self, PendingReply other not None):
        """Whether its deadline comes first."""
        return self.deadline < other.deadline


@cython.final
cdef class CompletedReply:
    """A future that can be completed now, with a message or an error."""

    cdef readonly object future
    cdef readonly Message message
    cdef readonly object error


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Requests:
    """The requests of this endpoint that have no reply yet."""

    cdef Connection _connection
    cdef Outbox _outbox
    cdef Threads _threads
    cdef object _explain_fault   # of Upcalls
    cdef object _explain_timeout
    cdef dict _pending           # PendingReply by index

    def __cinit__(self, Connection connection not None, Outbox outbox not None, Threads threads not None,
                  upcalls):
        self._connection = connection
        self._outbox = outbox
        self._threads = threads
        self._explain_fault = upcalls.explain_fault
        self._explain_timeout = upcalls.explain_timeout
        self._pending = {}

    cdef Message ask(self, str type, object payload, object timeout, object reply_type):
        """Send a request and wait for its reply."""
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now())
        cdef uint32_t index = self._begin(type, payload, timeout, deadline, None)
        try:
            if self._connection.wait(EP_WANT_REPLY, index, 0, self._connection.minds(), CHECKS_DISPATCHER,
                                     deadline) == WAIT_ELAPSED:
                raise self._request_timeout(index, type, timeout)
            return self._result(index, type, reply_type)
        finally:
            self._finish(index)

    def begin(self, str type not None, payload, future, *, timeout, reply_type):
        """Send a request whose reply is collected later. Waits only where the ring, or the table, is full."""
        cdef PendingReply pending = PendingReply.__new__(PendingReply)
        pending.future = future
        pending.deadline = deadline_after(span_ns(timeout), rb_now())
        pending._type = type
        pending._reply_type = reply_type
        pending._timeout = timeout
        self._begin(type, payload, timeout, pending.deadline, pending)
        return pending

    cdef uint32_t _begin(self, str type, object payload, object timeout, uint64_t deadline,
                         PendingReply pending) except? 0xffffffff:
        """Put a request into the ring; the index of its entry."""
        cdef ep_endpoint *e = self._connection.e
        cdef ep_message m
        cdef uint8_t identity[16]
        cdef uint32_t index
        cdef uint64_t trouble, minds = self._connection.minds()
        self._connection.check()
        m.kind = SB_REQUEST
        m.peer = 0
        m.peer_generation = 0
        m.deadline_ns = 0 if deadline == NEVER else deadline
        m.correlation = identity
        owner = self._outbox.fill(&m, type, payload, ALONE)
        while True:
            ep_lock(e)
            trouble = ep_trouble(e) & minds
            index = EP_NO_REQUEST
            if not trouble:
                ep_flush(e)
                index = ep_begin_request(e, m.deadline_ns, pending is not None, identity)
            ep_unlock(e)
            if trouble:
                self._outbox.give_back(owner)
                self._connection.raise_trouble(trouble)
            if index != EP_NO_REQUEST:
                break
            if self._connection.wait(EP_WANT_ENTRY, 0, 0, minds, CHECKS_DISPATCHER, deadline) == WAIT_ELAPSED:
                raise RequestsFull(type=type, endpoint=self._connection.name, limit=e.request_count, seconds=timeout)
        e.requests[index].asked = m.size
        if pending is not None:
            pending.index = index
            self._pending[index] = pending
        try:
            self._outbox.put(&m, type, timeout, NULL, ALONE)
        except BaseException:
            if pending is not None:
                if self._pending.get(index) is not pending:
                    raise          # it has been taken, and its entry is free
                del self._pending[index]
            self._finish(index)
            raise
        self._outbox.give_back(owner)
        return index

    cdef void _finish(self, uint32_t index) noexcept:
        cdef ep_endpoint *e = self._connection.e
        if self._connection.ours():
            ep_lock(e)
            ep_finish_request(e, index)
            ep_unlock(e)

    cdef Message _result(self, uint32_t index, str type, object reply_type):
        """The reply that is there, or raises the error that came instead."""
        cdef ep_request *r = &self._connection.e.requests[index]
        cdef Message m
        cdef sb_fault fault
        cdef bytes raw = (<const char *>r.payload)[:r.size] if r.size else b""
        source = self._connection.peers.of(r.header.peer, r.header.peer_generation)
        if r.header.kind == SB_REPLY:
            m = Message.__new__(Message)
            m._connection = self._connection
            m.type = type
            m.source = source
            m._raw = raw
            m._payload = UNDECODED
            m._payload_type = reply_type
            m._header = r.header
            m._position = SB_NOWHERE
            return m
        if r.header.flags & SB_REMOTE:
            raise remote_error(type, source, raw)
        if r.size < sizeof(sb_fault):
            raise self._explain_fault(Fault(type=type, endpoint=source, size=r.asked))
        memcpy(&fault, r.payload, sizeof(sb_fault))
        raise self._explain_fault(Fault(
            type=type,
            endpoint=(<const char *>fault.name)[:sizeof(fault.name)].split(b"\0", 1)[0].decode("ascii", "replace"),
            size=r.asked,
            code=fault.code,
            pid=fault.pid,
            number=fault.limit,
            correlation_id=(<const char *>r.header.correlation)[:16],
        ))

    cdef object _request_timeout(self, uint32_t index, str type, object timeout):
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t whom
        ep_lock(e)
        whom = ep_chosen(e, index)
        identity = (<const char *>ep_pending_entry(e, index).id)[:16]
        rb_add(&e.up.timeouts, 1)
        ep_unlock(e)
        slot, generation = sb_whom_slot(whom), sb_whom_generation(whom)
        return self._explain_timeout(Unanswered(
            type=type,
            seconds=timeout,
            endpoint=self._connection.peers.of(slot, generation) if whom else "",
            generation=generation,
            waits=whom and slot >= SB_MAX_SLOTS,
            ours=whom and slot == e.slot and generation == e.generation
            and self._threads.in_hand >= <uint32_t>self._threads.runners,
            down=self._connection.trouble() & EP_FOR_NOW,
            correlation_id=identity,
        ))

    # For the thread that completes the futures -----------------------------------------------

    def collect(self, deadline):
        """Wait until the reply to a future is there, or `deadline` (ns; None: never), or `nudge`; returns what
        can be completed."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint32_t index
        cdef bint checks_dispatcher = CHECKS_DISPATCHER if self._pending else NO_CHECKS
        self._connection.wait(EP_WANT_FUTURE, 0, 0, self._connection.minds(), checks_dispatcher,
                              NEVER if deadline is None else <uint64_t>deadline)
        cdef list found = []
        cdef PendingReply pending
        cdef CompletedReply completed
        while True:
            ep_lock(e)
            e.nudge = False
            index = ep_next_completed(e)
            ep_unlock(e)
            if index == EP_NO_REQUEST:
                return found
            pending = self._pending.pop(index, None)
            if pending is not None:
                completed = CompletedReply.__new__(CompletedReply)
                completed.future = pending.future
                try:
                    completed.message = self._result(index, pending._type, pending._reply_type)
                except Exception as error:
                    completed.error = error
                found.append(completed)
            self._finish(index)

    def nudge(self):
        """Make `collect` return."""
        cdef ep_endpoint *e = self._connection.e
        ep_lock(e)
        e.nudge = True
        ep_wake_leader(e)
        ep_unlock(e)

    def expire(self, PendingReply pending not None):
        """The deadline of a future has come: the exception for it, or None if it has its reply."""
        if not self.withdraw(pending.index, pending.future):
            return None
        return self._request_timeout(pending.index, pending._type, pending._timeout)

    def withdraw(self, uint32_t index, future):
        """Give up this reply: False if it has come."""
        cdef PendingReply pending = self._pending.get(index)
        if pending is None or pending.future is not future or not self._connection.ours():
            return False
        if not self._abandon(index):
            return False           # it has just come: the next `collect` finds it
        del self._pending[index]
        return True

    cdef bint _abandon(self, uint32_t index) noexcept:
        cdef ep_endpoint *e = self._connection.e
        cdef bint waiting
        ep_lock(e)
        waiting = ep_request_waits(e, index)
        if waiting:
            ep_finish_request(e, index)
        ep_unlock(e)
        return waiting

    def take_all(self):
        """All futures that are not completed; their entries are free again."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint32_t index
        cdef dict taken = self._pending
        self._pending = {}
        for index in taken:
            self._abandon(index)
        while True:                # those that were completed all the same
            ep_lock(e)
            index = ep_next_completed(e)
            ep_unlock(e)
            if index == EP_NO_REQUEST:
                return [(<PendingReply>pending).future for pending in taken.values()]
            self._finish(index)
