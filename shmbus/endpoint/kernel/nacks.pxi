# Giving work back: another endpoint is to have it, or nobody any more.

cdef uint64_t LATER = 100000000         # ns until another try where this endpoint's ring stays full
cdef uint64_t GLANCE = 1000000          # ns until another look for space for several large copies


@cython.final
cdef class Copies:
    """In which a message goes back: one for each of these interests."""

    cdef uint32_t bits
    cdef bytes reason
    cdef bint final
    cdef bytes relayed           # payload and origin, of what came from another bus in its record
    cdef Copies next             # promised before


cdef struct Spill:               # blocks of the endpoint's own pool with the payload: one for each copy
    uint32_t count
    uint32_t number[32]
    sb_block block[32]


cdef Copies copies_of(uint32_t bits, bytes reason, bint final):
    cdef Copies copies = Copies.__new__(Copies)
    copies.bits, copies.reason, copies.final = bits, reason, final
    return copies


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Nacks:
    """Gives the messages of an endpoint back to the dispatcher, at once or after a while."""

    cdef Connection _connection
    cdef Threads _threads
    cdef Outbox _outbox
    cdef object _postpone        # Upcalls.postpone
    cdef uint32_t _postponed[32] # messages that are to be given back later, by interest

    def __cinit__(self, Connection connection not None, Threads threads not None, Outbox outbox not None,
                  postpone):
        self._connection = connection
        self._threads = threads
        self._outbox = outbox
        self._postpone = postpone

    cdef int nack(self, Message m, object delay, str reason) except -1:
        """What `Message.nack` does."""
        cdef uint32_t bits
        cdef uint64_t delay_ns = span_ns(delay, "delay")
        if delay_ns == NEVER or delay < 0:
            raise InvalidSetting(setting="delay", value=delay, reason="it is no number of seconds from 0 on",
                                 remedy="Give seconds, or leave it out to give the message on at once")
        self._connection.require()
        self._require_work(m)
        bits = m.owed() & ~m._delayed & (m._calling if m._calling else ~<uint32_t>0)
        if not bits or m._position == SB_NOWHERE:
            self._refuse_settled(m)
        if delay_ns:
            self._require_fit(m, copies_of(bits, b"", False))
            self.delay(m, bits, delay_ns, reason)
        else:
            self.give(m, copies_of(bits, encode_reason(reason), False), ANSWER_TIMEOUT)
        return 0

    cdef int promise(self, Message m, uint32_t bits, bytes reason, bint final) except -1:
        """Give it back for these interests once nothing else of it is in hand; `final`: as a dead letter."""
        cdef Copies copies
        if bits:
            copies = copies_of(bits, reason, final)
            self._require_fit(m, copies)
            ep_lock(self._connection.e)
            if m._position != SB_NOWHERE and not bits & ~m.owed():
                self._promise(m, copies)
            ep_unlock(self._connection.e)
        return 0

    cdef void _promise(self, Message m, Copies copies) noexcept:
        """Under the lock."""
        copies.next = m._copies
        m._copies = copies
        m._settled |= copies.bits
        m._delayed &= ~copies.bits
        m._nacked = True
        self._postpone_held(m)

    cdef int give(self, Message m, Copies copies, double timeout) except -1:
        """Give it back now, together with what was promised; where something else of it is still in hand, that is
        promised, too. `copies` may be None."""
        cdef Spill spill
        cdef uint32_t i
        spill.count = 0
        try:
            return self._give(m, copies, timeout, &spill)
        finally:
            for i in range(spill.count):
                self._outbox.pool.give_back(spill.number[i])

    cdef int _give(self, Message m, Copies copies, double timeout, Spill *spill) except -1:
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now()), until
        cdef uint32_t bits = 0
        if copies is not None:
            self._require_fit(m, copies)
            bits = copies.bits
        cdef ep_endpoint *e = self._connection.e
        cdef ep_returned r[32]
        cdef uint32_t count, spilled
        cdef rb_status status
        cdef bint spills = self._spills(m)
        cdef uint64_t trouble, depth, space = 0
        while True:
            ep_lock(e)
            if m._position == SB_NOWHERE or bits & ~m.owed():
                ep_unlock(e)       # by another thread, meanwhile
                if copies is None:
                    return 0
                self._refuse_settled(m)
            if m.owed() & ~bits:
                if copies is not None:
                    self._promise(m, copies)
                ep_unlock(e)
                return 0
            spilled = 0
            count = self._fill(r, 0, m, m._copies, spill if spills else NULL, &spilled)
            count = self._fill(r, count, m, copies, spill if spills else NULL, &spilled)
            if spilled > spill.count:
                ep_unlock(e)
                spills = self._spill(m, spill, timeout, deadline)
                continue
            status = self._put(m, r, count, &space)
            depth = e.out[SB_DATA].next - e.out[SB_DATA].tail_seen
            trouble = ep_trouble(e)
            if status == RB_OK:
                m._settled |= bits
                m._delayed = 0
                m._nacked = True
                m._position = SB_NOWHERE
                m.unpin()
                if m._postponed:
                    e.postponed -= 1
                    self._count_postponed(m, -1)
            ep_unlock(e)
            if status == RB_OK:
                m._copies = None
                self._threads.forget(m)
                return 0
            if trouble & EP_FOR_GOOD:
                self._connection.raise_trouble(trouble & EP_FOR_GOOD)
            # A whole ring may be asked for and not be had at its present place: look again before long.
            until = deadline if space < e.out[SB_DATA].capacity else min(deadline, rb_now() + GLANCE)
            if self._connection.wait(EP_WANT_SPACE, SB_DATA, space, self._connection.minds(), CHECKS_DISPATCHER,
                                     until) == WAIT_ELAPSED and until == deadline:
                raise QueueFull(type=m.type, endpoint=self._connection.name, depth=depth,
                                capacity=e.out[SB_DATA].capacity, seconds=timeout)

    cdef bint _spills(self, Message m) noexcept:
        """Whether what it is given back with lies in a block of our own pool: it came by one, of which we have no
        share, or our ring does not take it."""
        if m._share is not None:
            return m._share.at.entry == EP_NO_ENTRY and ep_share_data(m._share.at) != NULL
        return (<uint64_t>(SB_HEADER + len(m.type) + m.whole_size())
                > rb_largest_record(self._connection.e.out[SB_DATA].capacity))

    cdef bint _spill(self, Message m, Spill *spill, double timeout, uint64_t deadline) except -1:
        """Have another block with the payload. False: there is no pool, and it becomes a dead letter."""
        cdef Share share = m._share
        cdef const uint8_t *data = ep_share_data(share.at) if share is not None else NULL
        cdef uint64_t size = <uint64_t>m.whole_size()
        cdef uint32_t number = 0
        cdef uint8_t *to
        cdef bytes relayed = None
        if share is None:
            data = <const uint8_t *>m.at()
            if m._origin is not None:
                relayed = m.with_origin()
                data = <const uint8_t *>PyBytes_AS_STRING(relayed)
        try:
            self._outbox.pool.take_slowly(size, &number, m.type, timeout, deadline, ALONE)
        except SegmentError:
            if share is None:
                raise
            return False
        to = ep_block_memory(self._connection.e, number)
        with nogil:
            memcpy(to, data, size)
        ep_describe_block(self._connection.e, number, 0, size, &spill.block[spill.count])
        spill.number[spill.count] = number
        spill.count += 1
        return True

    cdef rb_status _put(self, Message m, ep_returned *r, uint32_t count, uint64_t *space) noexcept:
        """Under the lock. All at once, but for those that even an empty ring does not take beside the others. RB_FULL:
        there must be `space`."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t capacity = e.out[SB_DATA].capacity, length, total = 0, most = 0
        cdef rb_status status
        cdef uint32_t i
        for i in range(count):
            length = (ep_returned_length(&r[i]) + 7) & ~<uint64_t>7
            total += length
            most = max(most, length)
        while count > 1 and total + most > capacity:  # four or more, each of nearly a quarter of the ring
            space[0] = most
            status = ep_nack(e, r, 1, False)
            if status != RB_OK:
                return status
            m._gone |= r.bit
            total -= (ep_returned_length(r) + 7) & ~<uint64_t>7
            count -= 1
            r += 1
        space[0] = total if count == 1 else total + most if 2 * (total + most) <= capacity else capacity
        return ep_nack(e, r, count, True)

    cdef uint32_t _fill(self, ep_returned *r, uint32_t count, Message m, Copies copies, Spill *spill,
                        uint32_t *spilled) noexcept:
        """One for each interest, behind the first `count`; returns how many there are then. `spill`: whose blocks go
        with them; `spilled` are in use, of which some may be missing."""
        cdef uint32_t bits
        while copies is not None:
            bits = copies.bits & ~m._gone
            while bits:
                r[count].position, r[count].header, r[count].final = m._position, &m._header, copies.final
                r[count].bit = bits & (~bits + 1)
                r[count].type = <const char *>PyUnicode_1BYTE_DATA(m.type)
                r[count].reason = PyBytes_AS_STRING(copies.reason)
                r[count].reason_length = <uint32_t>PyBytes_GET_SIZE(copies.reason)
                r[count].own, r[count].whole = NULL, 0
                if spill != NULL and not copies.final:
                    r[count].own = &spill.block[spilled[0]]
                    r[count].payload, r[count].size = r[count].own, sizeof(sb_block)
                    spilled[0] += 1
                elif copies.relayed is not None:
                    r[count].payload, r[count].size = (PyBytes_AS_STRING(copies.relayed),
                                                       <uint64_t>PyBytes_GET_SIZE(copies.relayed))
                elif m._share is None:
                    r[count].payload, r[count].size = m.at(), <uint64_t>m.bytes_of()
                elif spill != NULL:
                    r[count].payload, r[count].size = ep_share_data(m._share.at), ep_share_size(m._share.at)
                    r[count].whole = r[count].size
                else:
                    r[count].payload, r[count].size = &m._share.at.block, sizeof(sb_block)
                ep_fit_returned(self._connection.e, &r[count])
                bits &= bits - 1
                count += 1
            copies = copies.next
        return count

    cdef int _require_fit(self, Message m, Copies copies) except -1:
        if not copies.final and self._spills(m) and <uint64_t>m.whole_size() > self._outbox.pool.most():
            raise self._outbox.too_large(m.whole_size(), m.type, ALONE)
        if m._origin is not None and m._share is None and copies.relayed is None:
            copies.relayed = m.with_origin()
        return 0

    cdef int give_rest(self, Message m, double timeout) except -1:
        """All else of it is done: give back what was promised, now or as soon as there is space; also where a signal's
        handler raises while this waits for that."""
        try:
            try:
                self.give(m, None, timeout)
            except BaseException as why:
                if isinstance(why, BusError) and not isinstance(why, QueueFull):
                    raise
                self.delay(m, 0, LATER, "")
                if not isinstance(why, QueueFull):
                    raise
        except BusError as error:
            log.error("endpoint %r: what becomes of %s %r could not be said: %s", self._connection.name, m.kind, m.type,
                      error)
        return 0

    cdef void _postpone_held(self, Message m) noexcept:
        """Under the lock."""
        if not m._postponed:
            m._postponed = True
            m._held_as = ep_postpone(self._connection.e, m._position)
            self._count_postponed(m, 1)

    cdef void _count_postponed(self, Message m, int step) noexcept:
        cdef uint32_t bit
        for bit in range(32):
            if m.work() >> bit & 1:
                self._postponed[bit] += step

    cdef uint32_t work_postponed(self):
        """The interests of all group messages that are to be given back later."""
        cdef uint32_t bits = 0, bit
        for bit in range(32):
            if self._postponed[bit]:
                bits |= <uint32_t>1 << bit
        return bits

    cdef int delay(self, Message m, uint32_t bits, uint64_t delay, str reason) except -1:
        """Keep it in hand for so long. Without bits, it is what was promised."""
        cdef ep_endpoint *e = self._connection.e
        cdef bint settled
        self._threads.defer()
        m._delays += 1
        ep_lock(e)
        settled = m._position == SB_NOWHERE or bits & ~(m.owed() & ~m._delayed)
        if not settled:
            m._delayed |= bits
            m._nacked = True
            self._postpone_held(m)
        ep_unlock(e)
        try:
            if settled and bits:
                self._refuse_settled(m)
            self._postpone(m, bits, reason, deadline_after(delay, rb_now()))
        except BaseException:
            ep_lock(e)
            if not settled and m._position != SB_NOWHERE:
                m._delayed &= ~bits
                if not m._delayed and m._copies is None:
                    m._nacked = m._postponed = False
                    ep_resume(e, m._position, m._held_as)
                    self._count_postponed(m, -1)
            ep_unlock(e)
            self._end_delay(m)
            raise
        return 0

    cdef void _end_delay(self, Message m) noexcept:
        """Once for each: it is given back a second time where Ctrl-C came just after the first."""
        if m._delays:
            m._delays -= 1
            self._threads.settle()

    cdef int give_delayed(self, Message m, uint32_t bits, str reason, double timeout) except -1:
        """Its time has come."""
        self._connection.check()
        bits &= m.owed()
        self.give(m, copies_of(bits, encode_reason(reason), False) if bits else None, timeout)
        self._end_delay(m)
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
