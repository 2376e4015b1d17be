# Giving work back: another endpoint is to have it, or nobody any more.

cdef uint64_t LATER = 100000000         # ns until another try where this endpoint's ring stays full


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Nacks:
    """Gives the messages of an endpoint back to the dispatcher, at once or after a while."""

    cdef Connection _connection
    cdef Threads _threads
    cdef object _postpone        # Upcalls.postpone

    def __cinit__(self, Connection connection not None, Threads threads not None, postpone):
        self._connection = connection
        self._threads = threads
        self._postpone = postpone

    cdef int nack(self, Message m, object delay, str reason) except -1:
        """What `Message.nack` does."""
        cdef uint32_t bits
        if delay is None or not 0 <= delay < float("inf"):
            raise InvalidSetting(setting="delay", value=delay, reason="it is no number of seconds from 0 on",
                                 remedy="Give seconds, or leave it out to give the message on at once")
        self._connection.require()
        self._require_work(m)
        bits = m.owed() & (m._calling if m._calling else ~<uint32_t>0)
        if not bits or m._delayed & bits or m._position == SB_NOWHERE:
            self._refuse_settled(m)
        cdef ep_returned r
        self._fill(&r, m, bits, b"", False)
        if delay > 0:
            self.delay(m, bits, span_ns(delay), reason)
        else:
            self.give(m, bits, encode_reason(reason), False, ANSWER_TIMEOUT)
        return 0

    cdef int give(self, Message m, uint32_t bits, bytes reason, bint final, double timeout) except -1:
        """Give it back now, for each of these interests; `final`: as a dead letter."""
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now())
        cdef uint32_t bit
        while bits:
            bit = bits & (~bits + 1)
            bits &= ~bit
            self._put(m, bit, reason, final, timeout, deadline)
        return 0

    cdef int _fill(self, ep_returned *r, Message m, uint32_t bit, bytes reason, bint final) except -1:
        cdef uint64_t limit = rb_largest_record(self._connection.e.out[SB_DATA].capacity)
        r.position, r.header, r.bit, r.final, r.last = m._position, &m._header, bit, final, False
        r.type = <const char *>PyUnicode_1BYTE_DATA(m.type)
        r.reason, r.reason_length = PyBytes_AS_STRING(reason), <uint32_t>PyBytes_GET_SIZE(reason)
        r.payload, r.size = PyBytes_AS_STRING(m._raw), <uint64_t>PyBytes_GET_SIZE(m._raw)
        if not ep_fit_returned(self._connection.e, r):
            raise MessageTooLarge(type=m.type, size=r.size, limit=limit - SB_HEADER - m._header.type_length,
                                  endpoint=self._connection.name)
        return 0

    cdef int _put(self, Message m, uint32_t bit, bytes reason, bint final, double timeout, uint64_t deadline) except -1:
        cdef ep_endpoint *e = self._connection.e
        cdef ep_returned r
        cdef rb_status status
        cdef uint64_t trouble, depth
        self._fill(&r, m, bit, reason, final)
        while True:
            ep_lock(e)
            if m._position == SB_NOWHERE or not m.owed() & bit:
                ep_unlock(e)       # by another thread, meanwhile
                self._refuse_settled(m)
            r.last = m.owed() == bit
            status = ep_nack(e, &r)
            depth = e.out[SB_DATA].next - e.out[SB_DATA].tail_seen
            trouble = ep_trouble(e)
            if status == RB_OK:
                m._settled |= bit
                m._nacked = True
                if r.last:
                    m._position = SB_NOWHERE
            ep_unlock(e)
            if status == RB_OK:
                return 0
            if trouble & EP_FOR_GOOD:
                self._connection.raise_trouble(trouble & EP_FOR_GOOD)
            if self._connection.wait(EP_WANT_SPACE, SB_DATA, ep_returned_length(&r), self._connection.minds(),
                                     CHECKS_DISPATCHER, deadline) == WAIT_ELAPSED:
                raise QueueFull(type=m.type, endpoint=self._connection.name, depth=depth,
                                capacity=e.out[SB_DATA].capacity, seconds=timeout)

    cdef int delay(self, Message m, uint32_t bits, uint64_t delay, str reason) except -1:
        """Keep it in hand for so long."""
        cdef ep_endpoint *e = self._connection.e
        cdef bint settled
        self._threads.defer()
        ep_lock(e)
        settled = m._position == SB_NOWHERE or m._delayed & bits
        if not settled:
            m._delayed |= bits
            m._nacked = True
            m._held_as = ep_postpone(e, m._position)
        ep_unlock(e)
        try:
            if settled:
                self._refuse_settled(m)
            self._postpone(m, bits, reason, deadline_after(delay, rb_now()))
        except BaseException:
            if not settled:
                ep_lock(e)
                m._delayed &= ~bits
                m._nacked = False
                ep_resume(e, m._position, m._held_as)
                ep_unlock(e)
            self._threads.settle()
            raise
        return 0

    cdef int give_delayed(self, Message m, uint32_t bits, str reason, double timeout) except -1:
        """Its time has come."""
        self._connection.check()
        cdef ep_endpoint *e = self._connection.e
        self.give(m, bits & m.owed(), encode_reason(reason), False, timeout)
        ep_lock(e)
        m._delayed &= ~bits
        if not m._delayed and m._position != SB_NOWHERE:
            ep_resume(e, m._position, m._held_as)  # the callback of another group's runs still
        ep_unlock(e)
        self._threads.settle()
        return 0

    cdef int _require_work(self, Message m) except -1:
        cdef str reason = None, remedy
        if m._header.kind == SB_REQUEST:
            reason = "it is a request, whose caller waits"
            remedy = "Answer it with fail(), and let its caller ask again"
        elif m._header.kind != SB_EVENT and m._header.kind != SB_SEND:
            reason = f"it is {'an' if m.kind == 'error' else 'a'} {m.kind}, which nobody shares"
            remedy = "Give back only what a queue group or several handlers share"
        elif not m.work():
            reason = "it came for no group, so that every subscriber has it already"
            remedy = "Subscribe with group= to share events"
        elif m.type.startswith("$"):
            reason = "the bus itself published it, and takes nothing back"
            remedy = "Handle it here, later if need be"
        if reason is not None:
            raise CannotNack(endpoint=self._connection.name, type=m.type, reason=reason, remedy=remedy)
        return 0

    cdef int _refuse_settled(self, Message m) except -1:
        raise CannotNack(
            endpoint=self._connection.name, type=m.type,
            reason="it has been given back already" if m._nacked else "it is finished",
            remedy="Call nack() once" if m._nacked else "Call nack() before done(), before the callback returns, and "
                                                        "before this thread receives the next message",
        )


cdef bytes encode_reason(str reason):
    """As much of it as a dead letter takes, in whole characters."""
    return reason.replace("\0", " ").encode("utf-8", "replace")[:SB_MAX_REASON].decode("utf-8", "ignore").encode()


cdef str describe(object error):
    """What was raised, for a reason; its own `__str__` may raise in turn."""
    try:
        return f"{error.__class__.__name__}: {error}"
    except Exception:
        return f"{error.__class__.__name__}, which cannot be shown"
