# Requests: the table of those under way, and the futures of those whose caller does not wait.
#
# Whoever waits for one reply collects all that have come (`Requests.collect`), under Python's lock and without
# running Python code, so that nothing can interrupt it halfway. What runs Python code, such as the making of an
# error, is left to whoever asks for the result. Callbacks are called by the thread that attends to the futures
# (futures.py), which is handed those that are to be told.

cdef enum:           # how far a future is
    PENDING = 0
    ARRIVED = 1                  # a reply or an error came
    ELAPSED = 2
    FAILED = 3                   # with an exception of this side
    CANCELLED = 4


cdef tuple NO_ARGUMENTS = ()


cdef class PendingReply:
    """A request whose reply may be collected later; the base of the futures that `request_async` returns."""

    cdef Requests _requests
    cdef readonly uint64_t deadline   # ns, by CLOCK_MONOTONIC
    cdef uint32_t _index         # of its entry in the table of requests
    cdef uint64_t _serial        # of its use of that entry
    cdef int _outcome
    cdef str _type
    cdef object _reply_type
    cdef readonly Addressee _to  # None: whoever is chosen
    cdef Deadline _deadline
    cdef Message _message        # that arrived
    cdef uint64_t _asked         # bytes of the request's payload
    cdef uint64_t _whom          # where its time has elapsed: who had it
    cdef bint _gone              # and: there was no dispatcher
    cdef uint8_t _id[16]         # and: its correlation id
    cdef object _error
    cdef bint _alerts            # it is to be told at once
    cdef list _callbacks
    cdef object _lock            # the condition of `concurrent.futures`, if anybody asked for it
    cdef readonly object _waiters     # and who waits for several futures at once, of which this is one
    cdef bint _shown             # who holds that has been shown that it is done

    def __init__(self):
        raise TypeError("made by the bus; call request_async() or request_many()")

    @property
    def _pump(self):
        """What attends to it where nobody waits."""
        self._require_made()
        return self._requests.pump

    cdef int _require_made(self) except -1:
        """Raise where it is of no request, since Python code made it."""
        if self._requests is None:
            raise TypeError("made by the bus; call request_async() or request_many()")
        return 0

    def __lt__(self, PendingReply other not None):
        """Whether its deadline comes first."""
        return self.deadline < other.deadline

    cdef bint _look(self) except -1:
        """Whether it is done."""
        if self._outcome == PENDING:
            self._require_made()
            self._requests.look(self)
        return self._outcome != PENDING

    cdef int _wait(self, object timeout) except -1:
        """Wait until it is done. Raises `TimeoutError`."""
        cdef uint64_t until
        if self._look():
            return 0
        until = deadline_after(span_ns(timeout), rb_now())
        while not self._requests.wait(self, until):
            if until != NEVER and rb_now() >= until:
                raise TimeoutError(f"no reply to {self._type!r} within the {timeout:g} s that result() waits")
        return 0

    cdef object _exception(self):
        """The error that came instead of a reply, or None. Made when it is first asked for."""
        if self._error is None:
            if self._outcome == ARRIVED and self._message._header.kind != SB_REPLY:
                self._error = self._requests.error_of(self._message, self._asked, self._to)
            elif self._outcome == ELAPSED:
                if not self._whom and self._to is not None:
                    self._whom = sb_whom(self._to._slot, self._to._generation)
                self._error = self._requests.timeout_of(self._type, self._deadline, self._whom, self._gone,
                                                              (<const char *>self._id)[:16])
        return self._error

    def _holder(self):
        """Who has it now: the name of the endpoint to which it was given, its pid, and whether it has begun it; for a
        moment before it gets there, it seems to have. None, None, False: it waits for somebody who is free. None,
        None, None: it is done, or its endpoint has just gone."""
        if self._look() or not self._requests._connection.ours():
            return None, None, None
        return self._requests.holder_of(self)

    @property
    def _begun(self):
        """Whether it was sent."""
        return self._outcome != PENDING or (self._requests is not None
                                            and self._requests._pending[self._index] is self)

    @property
    def _identity(self):
        """Its correlation id, of one that has an answer; else None."""
        return None if self._message is None else self._message.correlation_id

    def _ended(self):
        """Wait until it is done: its reply, or the error that came instead."""
        if self._outcome == PENDING:
            self._wait(None)
        if self._outcome == ARRIVED and self._message._header.kind == SB_REPLY:
            return self._message
        return self._exception()

    @property
    def _crowded(self):
        """Whether it ended because whom it was for had no space for it."""
        cdef sb_fault fault
        if self._outcome != ARRIVED or self._message._header.kind != SB_ERROR or self._to is None:
            return False
        if self._message._header.flags & SB_REMOTE or len(self._message._raw) < <Py_ssize_t>sizeof(sb_fault):
            return False
        memcpy(&fault, PyBytes_AS_STRING(self._message._raw), sizeof(sb_fault))
        return fault.code == SB_FAULT_HANDLER_FULL

    # What `concurrent.futures.Future` has, without a lock that an interrupted caller could leave taken ----------

    def result(self, timeout=None):
        """The reply; waits for it, at most `timeout` seconds (None: until the request's own timeout). Raises the
        error that came instead, `TimeoutError`, `CancelledError`."""
        self._wait(timeout)
        if self._outcome == ARRIVED and self._message._header.kind == SB_REPLY:
            return self._message
        if self._outcome == CANCELLED:
            raise CancelledError
        raise self._exception()

    def exception(self, timeout=None):
        """The error that came instead of a reply, or None; waits like `result`."""
        self._wait(timeout)
        if self._outcome == CANCELLED:
            raise CancelledError
        return self._exception()

    def done(self):
        """Whether it has its reply, or has ended without."""
        return self._look()

    def running(self):
        """False: nobody can tell."""
        return False

    def cancelled(self):
        """Whether `cancel` ended it."""
        return self._outcome == CANCELLED

    def cancel(self):
        """Withdraw the request, without waiting: nobody waits for the reply any more, and its server
        is told (`Message.cancelled`). False if it is done."""
        if self._outcome != CANCELLED and not self._look():
            self._requests.end(self, CANCELLED)
        return self._outcome == CANCELLED

    def _hook(self, callback):
        """Have it told when it is done, and `callback` called then: False if it is done now."""
        if self._look():
            return False
        if callback is not None:
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(callback)
        self._requests.alert(self)
        return True

    def _unhook(self):
        """The callbacks that are to be called now."""
        cdef list callbacks = self._callbacks
        self._callbacks = None
        return callbacks or ()

    def _guard(self, made, waiters):
        """The condition: `made`, if it had none, with an empty list of waiters."""
        if self._lock is None:
            self._shown = self._outcome != PENDING
            self._waiters = waiters
            self._lock = made
        return self._lock

    @property
    def _guarded(self):
        return self._lock

    def _show(self):
        """By the holder of the condition: from here on it is seen to be done."""
        self._shown = True

    @property
    def _state(self):
        """In the words of `concurrent.futures`. While somebody holds the condition, only he changes it."""
        cdef bint done = self._look() if self._lock is None else self._shown
        if not done:
            return "PENDING"
        return "CANCELLED_AND_NOTIFIED" if self._outcome == CANCELLED else "FINISHED"

    def __repr__(self):
        how = ("pending", "finished", "timed out", "failed", "cancelled")[self._outcome]
        return f"<reply to {self._type!r}, {how}>"


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Requests:
    """The requests of this endpoint that have no reply yet."""

    cdef Connection _connection
    cdef Outbox _outbox
    cdef Threads _threads
    cdef object _explain_fault   # of Upcalls
    cdef object _explain_timeout
    cdef object _find_holder
    cdef list _pending           # PendingReply by index, or None
    cdef list _told              # those that are done, and to be told
    cdef uint64_t _cancels_taken # of the ids of withdrawn requests: how many `take_cancelled` has returned
    cdef type _future            # futures.Reply
    cdef object pump             # futures.Pump
    cdef object _thread          # of the pump
    cdef bint quiet              # in an event loop: nobody waits at the bell for those that are to be told

    def __cinit__(self, Connection connection not None, Outbox outbox not None, Threads threads not None,
                  upcalls):
        self._connection = connection
        self._outbox = outbox
        self._threads = threads
        self._explain_fault = upcalls.explain_fault
        self._explain_timeout = upcalls.explain_timeout
        self._find_holder = upcalls.find_holder
        self._pending = [None] * <Py_ssize_t>connection.e.request_count
        self._told = []

    def serve(self, type future not None, pump not None):
        """From here on there may be futures: of this class, a subclass of PendingReply, attended to by this pump."""
        self._future, self.pump, self._thread = future, pump, pump.thread

    @property
    def limit(self):
        """How many may be under way."""
        return self._connection.e.request_count

    cdef Message ask(self, str type, object payload, Deadline deadline, object reply_type, uint16_t attempt):
        """Send a request and wait for its reply."""
        return self._ask(type, payload, deadline, reply_type, attempt, None)

    cdef Message _ask(self, str type, object payload, Deadline deadline, object reply_type, uint16_t attempt,
                      Addressee to):
        cdef uint32_t index = self._begin(type, payload, deadline, attempt, to, None, NULL, True, None)
        cdef ep_request *r = &self._connection.e.requests[index]
        cdef Message m
        try:
            if self._connection.wait(EP_WANT_REPLY, index, 0, self._connection.minds(), CHECKS_DISPATCHER,
                                     deadline.ns) == WAIT_ELAPSED:
                raise self._request_timeout(index, type, deadline, to is None or to._kind == SB_REQUEST)
            m = self._message(r, type, reply_type)
            m.settle(True)
            if m._header.kind == SB_REPLY:
                return m
            raise self.error_of(m, r.asked, to)
        finally:
            self._finish(index)

    def ask_once(self, str type not None, object payload, Deadline deadline not None, object reply_type, attempt):
        """Send a request for the `attempt`-th time, and wait for its reply."""
        return self.ask(type, payload, deadline, reply_type, <uint16_t>min(attempt, 0xffff))

    cdef object ask_later(self, str type, object payload, Deadline deadline, object reply_type):
        """Send a request; returns its future."""
        if not self._thread.runs:
            self._thread.ensure()
        future = (<PyTypeObject *>self._future).tp_new(self._future, <PyObject *>NO_ARGUMENTS, NULL)
        self.begin(<PendingReply>future, type, payload, deadline, reply_type, 1, NULL)
        return future

    cdef int begin(self, PendingReply pending, str type, object payload, Deadline deadline, object reply_type,
                   uint16_t attempt, const ep_batch_limits *batch) except -1:
        """Send a request whose reply is collected later. Waits only where the ring, or the table, is full."""
        pending._requests = self
        pending._type = type
        pending._reply_type = reply_type
        pending._deadline = deadline
        pending.deadline = deadline.ns
        self._begin(type, payload, deadline, attempt, None, pending, batch, True, None)
        return 0

    cdef bint begin_at_once(self, PendingReply pending, str type, object payload, Deadline deadline, object reply_type,
                            uint16_t attempt, Addressee to) except -1:
        """In an event loop: False where the ring, or the table, is full."""
        pending._alerts = True
        return self._begin_now(pending, type, payload, deadline, reply_type, attempt, to, NULL)

    cdef bint _begin_now(self, PendingReply pending, str type, object payload, Deadline deadline, object reply_type,
                         uint16_t attempt, Addressee to, const ep_batch_limits *batch) except -1:
        pending._requests = self
        pending._type = type
        pending._reply_type = reply_type
        pending._deadline = deadline
        pending._to = to
        pending.deadline = deadline.ns
        return self._begin(type, payload, deadline, attempt, to, pending, batch, False, None) != EP_NO_REQUEST

    cdef bint open_stream(self, Stream stream, object payload, Deadline deadline, bint waits) except -1:
        """Send a request whose reply comes in parts, `deadline` for being sent. False where it would have to wait and
        may not."""
        cdef uint32_t index
        if self._connection.e.streams and not self.quiet and not self._thread.runs:
            self._thread.ensure()  # several readers that are slow: see that the ring does not fill
        stream._requests, stream._connection, stream._ended = self, self._connection, True
        index = self._begin(stream.type, payload, deadline, 1, None, None, NULL, waits, stream._whole)
        if index == EP_NO_REQUEST:
            return False
        stream._index, stream._serial, stream._ended = index, self._connection.e.requests[index].serial, False
        return True

    # Of several endpoints at a time --------------------------------------------------------------------------------

    def query(self, str pattern not None, Deadline deadline not None):
        """Ask the dispatcher who would get messages of a type, or what the pattern matches: `Found`, with all who
        handle it."""
        cdef Found found = self.found_in(self._ask(pattern, None, deadline, None, 1, dispatcher_from(0)))
        while self.more_of(found) is not None:
            self.add(found, self.found_in(self._ask(pattern, None, deadline, None, 1, self.more_of(found))))
        return found

    cpdef Addressee more_of(self, Found found):
        """Whom to ask for the rest; None: there is none."""
        return dispatcher_from(<uint16_t>found._next) if found._next < SB_MAX_SLOTS else None

    cpdef Found found_in(self, Message m):
        """The answer to a query."""
        cdef Found found = Found.__new__(Found)
        cdef sb_found head
        cdef uint64_t whom
        cdef Py_ssize_t at = sizeof(sb_found)
        cdef const char *raw = PyBytes_AS_STRING(m._raw)
        found.addressees = []
        found._next = SB_MAX_SLOTS
        if len(m._raw) < at:
            raise self.error_of(m, 0, None)
        memcpy(&head, raw, sizeof(sb_found))
        found.version, found.receivers, found.handlers = head.version, head.receivers, head.handlers
        while at + 8 <= len(m._raw):
            memcpy(&whom, raw + at, 8)
            at += 8
            found._next = sb_whom_slot(whom) + 1
            name = self._connection.peers.of(sb_whom_slot(whom), sb_whom_generation(whom))
            if name:               # else it has gone since
                found.addressees.append(addressee_of(whom, name))
        if found._next < SB_MAX_SLOTS and at >= <Py_ssize_t>(sizeof(sb_found) + 8 * found.handlers):
            found._next = SB_MAX_SLOTS
        return found

    cpdef Found add(self, Found found, Found more):
        """Another part of the answer."""
        found.addressees += more.addressees
        found._next = more._next
        return found

    def is_self(self, Addressee to not None):
        """Whether that is this endpoint."""
        return to.is_endpoint(self._connection.e.slot, self._connection.e.generation)

    def begin_directed(self, addressees, list under_way not None, str type not None, payload,
                       Deadline deadline not None, reply_type):
        """Send the request to each of these, taken from the left of the deque, with one bell, and append its pending
        reply to `under_way`, until there is no space in the ring or the table."""
        cdef PendingReply pending
        cdef ep_batch_limits limits = self._outbox.limits(256, None, None)
        self._outbox.lack.pages = 0
        try:
            while addressees:
                pending = PendingReply.__new__(PendingReply)
                if not self._begin_now(pending, type, payload, deadline, reply_type, 1, <Addressee?>addressees[0],
                                       &limits):
                    if self._outbox.lack.pages:  # the dispatcher is to look what is over
                        self._connection.count(&self._connection.e.up.pool_waits)
                    return
                under_way.append(pending)
                addressees.popleft()
        finally:
            self._outbox.flush()

    @property
    def completions(self):
        """How many requests have got their reply."""
        return self._connection.e.completions

    def await_completion(self, uint64_t seen, uint64_t deadline):
        """Wait until more than so many have, or until `deadline` (ns)."""
        try:
            self._connection.wait(EP_WANT_COMPLETION, 0, seen, self._connection.minds(), CHECKS_DISPATCHER, deadline)
        except BusError:
            self._connection.check()  # those under way end with it

    def begin_many(self, source, under_way, Py_ssize_t count, timeout, Deadline outer, reply_type):
        """Send up to `count` requests, pairs of type and payload, with one bell, and append each to `under_way`, or
        the error of one that was not accepted. All end with `outer`. Whether there may be more. Raises what `source`
        does."""
        cdef PendingReply pending
        cdef ep_batch_limits limits = self._outbox.limits(count, None, None)
        try:
            for _ in range(count):
                try:
                    item = next(source)
                except StopIteration:
                    return False
                type, payload = pair_of(item)
                pending = PendingReply.__new__(PendingReply)
                try:
                    self.begin(pending, type, payload, until(timeout, outer), reply_type, 1, &limits)
                except BusError as why:
                    self._connection.check()
                    under_way.append(why)
                else:
                    under_way.append(pending)
        finally:
            self._outbox.flush()
        return True

    cdef uint32_t _begin(self, str type, object payload, Deadline deadline, uint16_t attempt, Addressee to,
                         PendingReply pending, const ep_batch_limits *batch, bint waits,
                         Deadline whole) except? 0xffffffff:
        """Put a request into the ring; the index of its entry. EP_NO_REQUEST where it would have to wait and may
        not. `whole`: of one whose reply comes in parts, when all of them must have come."""
        cdef ep_message m
        cdef uint8_t identity[16]
        cdef uint32_t number = 0
        cdef uint64_t asked
        cdef sb_block block
        self._connection.check()
        if deadline.origin is not None and rb_now() >= deadline.ns:
            raise RequestTimeout(type=type, seconds=0.0, begun=False, inherited=deadline.origin, sent=False)
        m.kind = SB_REQUEST
        m.peer = 0
        m.peer_generation = 0
        m.correlation = identity
        if to is not None and to._kind == SB_QUERY:
            owner = self._outbox.fill_query(&m, type)
        else:
            owner = self._outbox.fill(&m, type, payload, ALONE)
        if to is not None:
            m.kind, m.peer, m.peer_generation = to._kind, to._slot, to._generation
            m.flags |= to._flags
        m.attempt = attempt
        m.deadline_ns = deadline.ns if whole is None else whole.ns
        if m.deadline_ns == NEVER:
            m.deadline_ns = 0
        if whole is not None:
            m.flags |= SB_STREAM
            m.grant = 1            # to be counted with its size; what it is comes with its entry
        asked = m.size
        try:
            self._outbox.large = self._outbox.pooled(&m, type, ALONE)
            if not waits and self._outbox.behind[self._outbox.large]:
                return EP_NO_REQUEST
            if not self._outbox.large:
                return self._enter(&m, identity, type, asked, deadline, pending, batch, waits)
            if waits:
                self._outbox.pool.take_slowly(m.size, &number, type, deadline.seconds, deadline.ns, ALONE)
            elif not (self._has_entry() and self._outbox.try_place(&m, &number, &block, &self._outbox.lack)):
                return EP_NO_REQUEST  # without an entry nothing is copied
            try:
                if waits:
                    self._outbox.pool.fill(&m, number, &block)
                return self._enter(&m, identity, type, asked, deadline, pending, batch, waits)
            finally:
                self._outbox.pool.give_back(number)
        finally:
            self._outbox.give_back(owner)

    cdef bint _has_entry(self) except -1:
        """Whether there is an entry in the table for one more."""
        cdef ep_endpoint *e = self._connection.e
        cdef bint there
        while True:
            ep_lock(e)
            there = ep_entry_to_be_had(e)
            ep_unlock(e)
            if there or not (self.collect() or self._expire()):
                return there

    cdef uint32_t _enter(self, ep_message *m, uint8_t *identity, str type, uint64_t asked, Deadline deadline,
                         PendingReply pending, const ep_batch_limits *batch, bint waits) except? 0xffffffff:
        """The rest of `_begin`, for a message that fits its ring. `asked`: bytes of the payload."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint32_t index
        cdef flag armed = 0
        cdef rb_status status = RB_FULL
        cdef uint64_t trouble, minds = self._connection.minds()
        cdef ep_stream *stream
        while True:
            ep_lock(e)
            trouble = ep_trouble(e) & minds
            index = EP_NO_REQUEST
            if not trouble:
                if batch == NULL:
                    ep_flush(e)
                index = ep_begin_request(e, m.deadline_ns, pending is not None, identity)
                if m.grant and index != EP_NO_REQUEST:
                    stream = ep_open_stream(e)
                    if stream == NULL:
                        ep_end_request(e, index)
                        ep_unlock(e)
                        raise MemoryError
                    e.requests[index].stream = stream
                    m.grant = stream.granted
                if index != EP_NO_REQUEST and m.size <= <uint64_t>LARGE:
                    status = ep_push(e, m, ep_stamp(e), batch, &armed)
                    if status == RB_OK:
                        ep_sent_request(e, index, identity)
                if pending is not None and e.resting:
                    ep_nudge(e)
            ep_unlock(e)
            if trouble:
                self._connection.raise_trouble(trouble)
            if index != EP_NO_REQUEST:
                break
            if self.collect() or self._expire():
                continue
            if not waits:
                return EP_NO_REQUEST
            if self._connection.wait(EP_WANT_ENTRY, 0, 0, minds, CHECKS_DISPATCHER,
                                     min(deadline.ns, self._earliest())) == WAIT_ELAPSED and rb_now() >= deadline.ns:
                raise RequestsFull(type=type, endpoint=self._connection.name, limit=e.request_count,
                                   seconds=deadline.seconds)
        e.requests[index].asked = asked
        if pending is not None:
            pending._index = index
            pending._serial = e.requests[index].serial
            pending._asked = asked
            self._pending[index] = pending
        if armed:
            ep_arm_watcher(e)
        try:
            if status != RB_OK:
                if not self._outbox.put_at_once(m, batch):
                    if not waits:
                        if pending is None:
                            self._finish(index)
                        else:
                            self._forget(pending)
                        self._outbox.lack.space = ep_record_length(m)
                        self._connection.require(served=True)
                        return EP_NO_REQUEST
                    self._outbox.put_slowly(m, type, deadline.seconds, deadline.ns, batch, ALONE)
                ep_lock(e)
                ep_sent_request(e, index, identity)
                ep_unlock(e)
        except BaseException:
            if pending is None:
                self._finish(index)
            else:
                self.end(pending, CANCELLED)
            raise
        return index

    cdef int _forget(self, PendingReply pending) except -1:
        """It was not sent."""
        self._pending[pending._index] = None
        self._finish(pending._index)
        return 0

    cdef void _finish(self, uint32_t index) noexcept:
        cdef ep_endpoint *e = self._connection.e
        if self._connection.ours():
            ep_lock(e)
            ep_finish_request(e, index)
            ep_unlock(e)

    cdef Message _message(self, ep_request *r, str type, object reply_type):
        """What has come for this entry: its share is to be settled. Runs no Python code."""
        cdef Message m = Message.__new__(Message)
        m._connection = self._connection
        m.type = type
        m.source = self._connection.peers.of(r.header.peer, r.header.peer_generation)
        cdef Py_ssize_t size = <Py_ssize_t>r.size
        if r.header.flags & SB_RELAYED:
            m._origin = Origin.__new__(Origin)
            if r.share == NULL:
                size = take_origin(m._origin, r.payload, size)
        m._raw = (<const char *>r.payload)[:size] if size else b""
        if r.share != NULL:
            m._share = Share.__new__(Share)
            m._share.at, r.share = r.share, NULL
        m._payload = UNDECODED
        m._payload_type = reply_type
        m._header = r.header
        m._position = SB_NOWHERE
        return m

    cdef object error_of(self, Message m, uint64_t asked, Addressee to):
        """The error that came in place of a reply from `to` (None: whoever was chosen)."""
        cdef sb_fault fault
        if m._header.flags & SB_REMOTE:
            return remote_error(m.type, m.source, m.whole())
        if len(m._raw) < <Py_ssize_t>sizeof(sb_fault):
            return self._explain_fault(Fault(type=m.type, endpoint=m.source, size=asked))
        memcpy(&fault, PyBytes_AS_STRING(m._raw), sizeof(sb_fault))
        name = (<const char *>fault.name)[:sizeof(fault.name)].split(b"\0", 1)[0].decode("ascii", "replace")
        return self._explain_fault(Fault(
            type=m.type,
            endpoint=name or (to.name if to is not None else ""),
            size=asked,
            code=fault.code,
            pid=fault.pid,
            number=fault.limit,
            correlation_id=(<const char *>m._header.correlation)[:16],
        ))

    cdef object _request_timeout(self, uint32_t index, str type, Deadline deadline, bint counts, uint64_t parts=0):
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t whom
        ep_lock(e)
        whom = ep_chosen(e, index)
        identity = (<const char *>ep_pending_entry(e, index).id)[:16]
        rb_add(&e.up.timeouts, counts)
        ep_unlock(e)
        return self.timeout_of(type, deadline, whom, self._connection.trouble() & EP_FOR_NOW, identity, parts)

    cdef object timeout_of(self, str type, Deadline deadline, uint64_t whom, bint gone, bytes identity,
                           uint64_t parts=0):
        """The error of a request whose time has elapsed: `whom` had it, `gone`: there was no dispatcher."""
        cdef ep_endpoint *e = self._connection.e
        slot, generation = sb_whom_slot(whom), sb_whom_generation(whom)
        return self._explain_timeout(Unanswered(
            type=type,
            seconds=deadline.seconds,
            inherited=deadline.origin,
            endpoint=self._connection.peers.of(slot, generation) if whom else "",
            generation=generation,
            waits=whom and slot >= SB_MAX_SLOTS,
            ours=whom and slot == e.slot and generation == e.generation
            and self._threads.in_hand >= <uint32_t>self._threads.runners,
            down=gone,
            correlation_id=identity,
            parts=parts,
        ))

    cdef tuple holder_of(self, PendingReply pending):
        """Who has one that waits: endpoint, pid, and whether it has begun it, as in `RequestTimeout`."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t whom = 0
        ep_lock(e)
        if ep_request_waits(e, pending._index):
            whom = ep_chosen(e, pending._index)
            memcpy(pending._id, ep_pending_entry(e, pending._index).id, 16)
        ep_unlock(e)
        if not whom or sb_whom_slot(whom) >= SB_MAX_SLOTS:  # nobody, or a backlog
            return None, None, False
        name = self._connection.peers.of(sb_whom_slot(whom), sb_whom_generation(whom))
        if not name:
            return None, None, None
        return name, *self._find_holder(name, sb_whom_generation(whom), (<const char *>pending._id)[:16])

    # Of those whose reply is collected later ---------------------------------------------------------------------

    cdef bint collect(self) except -1:
        """Take the replies that have come, whoever waits for them: whether there were any."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint32_t index = EP_NO_REQUEST
        cdef PendingReply pending
        cdef bint any = False
        while True:
            ep_lock(e)
            if index != EP_NO_REQUEST:
                ep_finish_request(e, index)
            if e.completed == EP_NO_REQUEST:
                ep_drain_replies(e)
            index = ep_next_completed(e)
            ep_unlock(e)
            if index == EP_NO_REQUEST:
                return any
            any = True
            if self._pending[index] is not None:
                pending = <PendingReply>self._pending[index]
                self._pending[index] = None
                pending._message = self._message(&e.requests[index], pending._type, pending._reply_type)
                pending._message.settle(False)
                self._done(pending, ARRIVED)

    cdef int _done(self, PendingReply pending, int outcome) except -1:
        pending._outcome = outcome
        if pending._alerts:
            self._told.append(pending)
            if self.quiet:
                return 0
            ep_lock(self._connection.e)
            ep_nudge(self._connection.e)
            ep_unlock(self._connection.e)
        return 0

    cdef bint end(self, PendingReply pending, int outcome) except -1:
        """End one that waits: False if it is done, or its reply has just come."""
        cdef ep_endpoint *e = self._connection.e
        cdef bint waited
        if pending._outcome != PENDING or not self._connection.ours():
            return False
        ep_lock(e)
        waited = ep_request_waits(e, pending._index)
        if waited:
            if outcome == ELAPSED:
                pending._whom = ep_chosen(e, pending._index)
                pending._gone = ep_trouble(e) & EP_FOR_NOW
                memcpy(pending._id, ep_pending_entry(e, pending._index).id, 16)
                rb_add(&e.up.timeouts, pending._to is None or pending._to._kind == SB_REQUEST)
            ep_give_up_request(e, pending._index)
        ep_unlock(e)
        if not waited:
            self.collect()
            return False
        self._pending[pending._index] = None
        self._done(pending, outcome)
        return True

    cdef int look(self, PendingReply pending) except -1:
        """See whether this one is done by now, without waiting."""
        if not self._connection.ours():
            return 0
        self.collect()
        if pending._outcome != PENDING:
            return 0
        cdef uint64_t trouble = self._connection.trouble() & self._connection.minds()
        if trouble:
            self._fail(pending, trouble)
        elif pending.deadline != NEVER and rb_now() >= pending.deadline:
            self.end(pending, ELAPSED)
        return 0

    cdef int _fail(self, PendingReply pending, uint64_t trouble) except -1:
        try:
            self._connection.raise_trouble(trouble)
        except BusError as why:
            if self.end(pending, FAILED):
                pending._error = why.with_traceback(None)
        return 0

    cdef bint wait(self, PendingReply pending, uint64_t until) except -1:
        """Wait until it is done, or `until`: whether it is done."""
        try:
            self._connection.wait(EP_WANT_REPLY, pending._index, pending._serial, self._connection.minds(),
                                  CHECKS_DISPATCHER, min(until, pending.deadline))
        except BusError:
            self._connection.check()
            self.look(pending)
            if pending._outcome == PENDING:
                raise
        return pending._look()

    cdef bint _expire(self) except -1:
        """End those whose time has elapsed: whether there were any."""
        cdef uint64_t now = rb_now()
        cdef bint any = False
        cdef PendingReply pending
        for one in self._pending:
            if one is not None:
                pending = <PendingReply>one
                if pending.deadline <= now:
                    any |= self.end(pending, ELAPSED)
        return any

    cdef uint64_t _earliest(self):
        """The earliest deadline of those whose reply is collected later."""
        cdef uint64_t earliest = NEVER
        for one in self._pending:
            if one is not None and (<PendingReply>one).deadline < earliest:
                earliest = (<PendingReply>one).deadline
        return earliest

    cdef int alert(self, PendingReply pending) except -1:
        """Have this one told once it is done, which it was not just now."""
        pending._alerts = True
        ep_lock(self._connection.e)
        ep_alert(self._connection.e, pending._index)
        ep_unlock(self._connection.e)
        return 0

    # For an executor, which completes its requests itself, in whatever thread comes by -----------------------------

    def complete_here(self):
        """From here on all that are done are among `take_done`, and collecting them wakes nobody."""
        self.quiet = True

    def begin_now(self, PendingReply pending not None, str type not None, payload, Deadline deadline not None):
        """Send a request without waiting: False where the ring, the table or the pool is full. `pending` is new."""
        return self.begin_at_once(pending, type, payload, deadline, None, 1, None)

    def take_done(self):
        """Those that are done since last asked."""
        self.collect()
        return self.take_told()

    def await_reply(self, PendingReply pending not None, uint64_t until):
        """Wait until it is done, or `until` (ns): whether it is done."""
        return pending._outcome != PENDING or self.wait(pending, until)

    def tell_at_once(self, PendingReply pending not None):
        """Have `stand_by` return when this one is done."""
        if pending._outcome == PENDING:
            self.alert(pending)

    # For who serves ---------------------------------------------------------------------------------------------

    def take_cancelled(self):
        """The correlation ids of requests to this endpoint that were withdrawn since last asked, of the last ones.
        Does not wait."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint8_t ids[EP_CANCELS][16]
        cdef uint64_t count, i
        if not self._connection.ours():
            return []
        ep_lock(e)
        ep_drain_new_replies(e)
        count = min(e.cancels_seen - self._cancels_taken, <uint64_t>EP_CANCELS)
        for i in range(count):
            memcpy(ids[i], e.cancels[(e.cancels_seen - count + i) % EP_CANCELS], 16)
        self._cancels_taken = e.cancels_seen
        ep_unlock(e)
        return [(<const char *>ids[i])[:16] for i in range(count)]

    # For the thread that attends to the futures ------------------------------------------------------------------

    def attend(self, uint64_t deadline, uint64_t most):
        """Wait until there is somebody to tell, or `deadline` (ns), or `nudge`, but `most` nanoseconds; returns
        those that are to be told."""
        self.stand_by(deadline, most)
        self.collect()
        return self.take_told()

    cpdef int stand_by(self, uint64_t deadline, uint64_t most) except -1:
        """The waiting of `attend`."""
        cdef ep_endpoint *e = self._connection.e
        if most != NEVER:
            deadline = min(deadline, rb_now() + most)
        self._connection.wait(EP_WANT_FUTURE, 0, 0, self._connection.minds(),
                              CHECKS_DISPATCHER if e.alerting else NO_CHECKS, deadline)
        ep_lock(e)
        e.nudge = False
        ep_unlock(e)
        return 0

    def take_told(self):
        """Those that are to be told."""
        cdef list told = self._told
        self._told = []
        return told

    def nudge(self):
        """Make `attend` return."""
        if self._connection.ours():
            ep_lock(self._connection.e)
            ep_nudge(self._connection.e)
            ep_unlock(self._connection.e)

    def fail_all(self, error not None):
        """Fail all that are not done."""
        self.collect()
        for one in list(self._pending):
            if one is not None and self.end(<PendingReply>one, FAILED):
                (<PendingReply>one)._error = error

    @property
    def tells(self):
        """Whether somebody is to be told."""
        return bool(self._told)
