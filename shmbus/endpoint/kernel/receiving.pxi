# Receiving: the next message for a caller, and the callbacks that are run on the way.

cdef enum:           # how `Receiving.next` receives
    AT_END_RETURN = 1            # None where the endpoint ends, instead of raising EndpointClosed
    YIELD = 2                    # return messages without a callback; without this, all have one
    AWAIT_SUCCESSOR = 4          # wait where the dispatcher dies, instead of raising BusDown

cdef uint64_t AGAIN = 10_000_000        # nanoseconds after which what found no space is tried again


cdef object checked(object value):
    """What a callback returned, which nothing here would await. Raises `TypeError`."""
    if value is None:
        return None
    if PyCoro_CheckExact(value):
        value.close()
        raise TypeError("it returned a coroutine, and nothing would run that: let it return a value, or call "
                        "asyncio.run_coroutine_threadsafe(work(message), loop)")
    if PyAsyncGen_CheckExact(value):
        raise TypeError("it returned an asynchronous generator, and nothing would run that: handle it with an endpoint "
                        "of shmbus.aio, or let it be a plain generator")
    return value


cdef bint is_of_pool(object error) except -1:
    """Whether what is small could be sent nevertheless."""
    return isinstance(error, SegmentError) or (
        isinstance(error, QueueFull) and error.setting in ("pool_bytes", "pool_total_bytes"))


cdef object log_failure(Connection connection, Message m, object error):
    # A handler that the end of this endpoint interrupted is not at fault: one line, without a traceback.
    cdef bint ended = (isinstance(error, (BusDown, EndpointClosed, Evicted))
                       and connection.trouble() & ~<uint64_t>EP_STOPPING)
    log.log(logging.WARNING if ended else logging.ERROR, "endpoint %r: its handler of %s %r raised %s: %s",
            connection.name, m.kind, m.type, error.__class__.__name__, error, exc_info=None if ended else error)


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Receiving:
    """Takes messages one by one, and runs their callbacks."""

    cdef Connection _connection
    cdef Threads _threads
    cdef CallbackTable _callbacks
    cdef Nacks _nacks
    cdef Outflows _outflows
    cdef Inbox _inbox
    cdef bint begun              # a thread has received at least once
    cdef Looped looped           # of an endpoint in an event loop; else None

    def __cinit__(self, Connection connection not None, Threads threads not None, CallbackTable callbacks not None,
                  Nacks nacks not None, Outflows outflows not None, explain_unmapped):
        self._connection = connection
        self._threads = threads
        self._callbacks = callbacks
        self._nacks = nacks
        self._outflows = outflows
        self._inbox = Inbox(connection, threads, callbacks, explain_unmapped)

    cdef Message next(self, EndpointCore endpoint, uint64_t deadline, int how):
        """The next message that a caller is to see, or None at the deadline."""
        cdef unsigned long thread = PyThread_get_thread_ident()
        cdef Message m
        cdef Callbacks callbacks
        cdef bint yields = how & YIELD
        cdef uint64_t minds = EP_STOPPING | (EP_FOR_GOOD if how & AWAIT_SUCCESSOR else EP_FOR_GOOD | EP_FOR_NOW)
        cdef int waited
        cdef uint64_t until
        self.begun = True
        while True:
            self._connection.check()  # a callback may have forked
            if self._outflows.any_due():
                self._outflows.turn()
            m = self._inbox.take(endpoint, thread) if not self._connection.closing else None
            if m is not None:
                callbacks = self._callbacks.known(m.type)
                if callbacks is None:
                    callbacks = self._callbacks.find(m.type)
                if self._dispatch(m, callbacks) and yields:
                    return m
                PyErr_CheckSignals()
                if deadline != NEVER and rb_now() >= deadline and not (yields and self._connection.data_waits()):
                    self._threads.put_down(thread)
                    self._connection.rest()
                    return None
                continue
            self._threads.put_down(thread)
            if self._outflows.any_due():
                PyErr_CheckSignals()
                if deadline != NEVER and rb_now() >= deadline:
                    self._connection.rest()
                    return None
                continue
            until = min(deadline, self._outflows.look(rb_now()))
            if self._threads.dropped:
                self._threads.end_dropped()
                if self._threads.dropped:
                    until = min(until, rb_now() + AGAIN)
            if yields:
                self._threads.count_waiting(1)
            try:
                waited = WAIT_STOPPED
                if not self._connection.closing:
                    waited = self._wait(minds, until)
            finally:
                if yields:
                    self._threads.count_waiting(-1)
            if waited == WAIT_STOPPED:
                if self._outflows.any() and not self._connection.closing:
                    continue       # it drains
                if how & AT_END_RETURN:
                    return None
                raise EndpointClosed(endpoint=self._connection.name)
            if waited == WAIT_ELAPSED and until == deadline:
                self._connection.rest()
                return None

    cdef int _wait(self, uint64_t minds, uint64_t until) except -2:
        """Until there is a message, or a reply in parts can go on. While the endpoint drains, those that have begun go
        on as they get credit."""
        if self._outflows.any() and <uint64_t>self._connection.trouble() & EP_STOPPING:
            minds &= ~<uint64_t>EP_STOPPING
            until = min(until, rb_now() + AGAIN)
        try:
            return self._connection.wait(EP_WANT_DATA, 0, 0, minds, NO_CHECKS, until)
        except EndpointClosed:
            if minds & EP_STOPPING:
                raise
            return WAIT_STOPPED
        except BusError:
            if <uint64_t>self._connection.trouble() & EP_FOR_GOOD:
                self._outflows.close_all()
            raise

    cdef int run(self, EndpointCore endpoint, bint reconnect, object timeout) except -1:
        """Run callbacks until close() or drain(), for `timeout` seconds at most."""
        self._connection.check()
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now())
        self._threads.start_running()
        try:
            self.next(endpoint, deadline, AT_END_RETURN | AWAIT_SUCCESSOR if reconnect else AT_END_RETURN)
        finally:
            self._threads.stop_running(PyThread_get_thread_ident())
        return 0

    cdef bint _dispatch(self, Message m, Callbacks callbacks) except -1:
        """Run the callbacks for a message; true if it is for the caller to see, too."""
        cdef uint32_t interests = m._header.interests
        cdef uint32_t served = callbacks.yields | SB_PLAIN
        cdef uint32_t ran = 0, again = 0, failed = 0
        cdef object why = None
        cdef EventCallback each
        if m._header.kind == SB_TAP:
            return True
        if m._header.kind != SB_EVENT:
            self._handle(m, callbacks)
            return False
        for item in callbacks.events:
            each = <EventCallback>item
            if each.gets(m):
                served |= each.mask
                if each.gate is not None:
                    self.looped.spawn(m, each, None, len(callbacks.events) == 1 and not callbacks.yields)
                    ran |= each.mask
                    continue
                m.expect(each.payload_type)
                m._calling = each.mask
                try:
                    checked(self._call(each.function, m, each.limit_ns))
                except Exception as error:
                    self._count_error()
                    self._log_failure(m, error)
                    if m._position != SB_NOWHERE and each.mask != SB_PLAIN:
                        why = error
                        if each.retry:
                            again |= each.mask
                        else:
                            failed |= each.mask
                except BaseException as error:
                    m._calling = 0
                    self._count_error()
                    self._give_up(m, m.owed() & ~(ran | failed) | again, failed & ~again, error)
                    if m._position != SB_NOWHERE and not m._jobs:
                        self._threads.done(m, self._patience())
                    raise
                finally:
                    m._calling = 0
                ran |= each.mask
        if not interests & callbacks.yields & ~<uint32_t>SB_PLAIN:
            if why is not None:
                self._give_up(m, again, failed & ~again, why)
            if m._copies is not None and not m._jobs:
                self._threads.done(m, self._patience())
        if interests & ~served:        # of a group that has been left meanwhile
            self._count_error()
            self._log_unhandled(m)
        if callbacks.yield_it(m):
            return True
        if m._position != SB_NOWHERE and not m._jobs:
            self._threads.done(m, self._patience())
        return False

    cdef inline double _patience(self) noexcept:
        """Seconds to wait for space where something is given back."""
        return ANSWER_TIMEOUT if self.looped is None else 0.0

    cdef int _give_up(self, Message m, uint32_t again, uint32_t failed, object why) except -1:
        """Callbacks raised: these groups or handlers get the message again, those a dead letter. But the bus takes none
        of its own events back."""
        if m._position == SB_NOWHERE or m.type.startswith("$"):
            return 0
        cdef str text = f"its callback at {self._connection.name!r} raised {describe(why)}"
        cdef bytes reason = encode_reason(text)
        cdef uint32_t left = m.owed() & ~m._delayed
        try:
            try:
                self._nacks.promise(m, again & left, reason, False)
            except MessageTooLarge:    # the ring that it came in by takes more than the pool it would go out by
                self._nacks.promise(m, again & left, encode_reason(f"too large to be given back (pool_bytes): {text}"),
                                    True)
            self._nacks.promise(m, failed & left, reason, True)
        except BusError as error:
            log.error("endpoint %r: what becomes of %s %r could not be said: %s", self._connection.name, m.kind, m.type,
                      error)
        return 0

    cdef int _handle(self, Message m, Callbacks callbacks) except -1:
        if callbacks.handler is None:
            if m._header.kind == SB_REQUEST and self._connection.name.startswith("@"):
                self._try_fail(m, Passed(NoRoute(type=m.type)))  # a link: nobody beyond it handles that any more
                m.done()
                return 0
            self._count_error()
            self._log_unhandled(m)
            if m._header.kind == SB_REQUEST:
                self._try_fail(m, LookupError(f"endpoint {self._connection.name!r} handles {m.type!r} no longer"))
            m.done()
            return 0
        if callbacks.gate is not None:
            self.looped.spawn(m, None, callbacks, True)
            return 0
        m.expect(callbacks.handler_type)
        try:
            value = checked(self._call(callbacks.handler, m, callbacks.limit_ns))
            if value is not None and is_generator(value):
                value = self._begin_parts(m, value, callbacks.limit_ns)
        except BaseException as error:
            self._count_error()
            if m._header.kind != SB_REQUEST or m._answered or m._too_late():
                if isinstance(error, Exception):
                    self._log_failure(m, error)
            else:
                self._try_fail(m, error)
            if not isinstance(error, Exception):
                if m._header.kind == SB_SEND:  # as if it had died of it
                    self._give_up(m, SB_PLAIN if callbacks.redeliver else 0, SB_PLAIN, error)
                m.done()
                raise
            m.done()
            return 0
        if type(value) is Outflow:
            m.done()
            self._threads.put_down(PyThread_get_thread_ident())  # it is deferred, and in hand as that
            self._outflows.go_on(<Outflow>value)
        elif m._header.kind == SB_REQUEST and not (m._answered or m._refused or m._deferred or m._too_late()):
            try:
                m.reply(value)
            except BaseException as error:
                if not isinstance(error, Exception):
                    if not (m._answered or m._refused):
                        self._try_fail(m, error)
                    raise
                self._not_sent(m, error)
        m.done()
        return 0

    cdef int _not_sent(self, Message m, object error) except -1:
        """What its handler returned could not be. Who asked is told, unless an error would find no way either."""
        self._count_error()
        self._log_failure(m, error)
        if not m._answered and (not isinstance(error, BusError) or is_of_pool(error)):
            self._try_fail(m, error)
        return 0

    cdef object _begin_parts(self, Message m, object generator, uint64_t limit_ns):
        """The handler yields: its reply comes in parts. Of a command nobody gets them."""
        if m._header.kind == SB_SEND:
            for _ in generator:
                pass
            return None
        if m._answered or m._refused or m._deferred or m._too_late():
            generator.close()
            return None
        if not m._header.flags & SB_STREAM:
            generator.close()
            raise not_asked_for_parts(m)
        return self._outflows.begin(m, generator, limit_ns)

    cdef inline object _call(self, object function, Message m, uint64_t limit_ns):
        cdef Deadline deadline = deadline_of(m)
        if deadline is not None or in_force() is not None:
            return self._call_in_time(function, m, limit_ns, deadline)
        return function(m) if not limit_ns else self._call_limited(function, m, limit_ns)

    cdef object _call_in_time(self, object function, Message m, uint64_t limit_ns, Deadline deadline):
        """With this deadline in force, and no other."""
        token = PyContextVar_Set(IN_FORCE, deadline)
        try:
            return function(m) if not limit_ns else self._call_limited(function, m, limit_ns)
        finally:
            PyContextVar_Reset(IN_FORCE, token)

    cdef object _call_limited(self, object function, Message m, uint64_t limit_ns):
        cdef uint32_t limit = self._threads.begin_limit(m, limit_ns)
        try:
            return function(m)
        finally:
            self._threads.end_limit(limit)

    cdef int _try_fail(self, Message m, object error) except -1:
        try:
            m.fail(error)
        except Exception as why:
            self._log_failure(m, why)
        return 0

    cdef void _count_error(self) noexcept:
        self._connection.count(&self._connection.e.up.handler_errors)

    cdef int _log_failure(self, Message m, object error) except -1:
        log_failure(self._connection, m, error)
        return 0

    cdef int _log_unhandled(self, Message m) except -1:
        log.error("endpoint %r: %s %r came from %r, and nothing here handles it any more",
                  self._connection.name, m.kind, m.type, m.source)
        return 0
