# An endpoint in an event loop: what its calls do there, without ever waiting.
#
# All of it is called by the loop's thread alone. Asynchronous callbacks are jobs: each is handed to Python, which makes
# a task of it, and the message is in hand until its last job has ended.

cdef enum:           # why `Looped.next` returned no message
    DRY = 0                      # there is none
    CROWDED = 1                  # as many jobs are there as may be
    PAUSE = 2                    # others in the loop shall have a turn

cdef enum:           # the lines of calls that wait; who is behind others in one passes those of the other by
    NO_LINE = -1                 # it waits in none: it has just begun, or is done
    RING_LINE = 0                # for space in the ring, or an entry in the table of requests
    POOL_LINE = 1                # with what goes by the pool: for a block of it, too

cdef int PORTION = 128           # messages taken before others in the loop have a turn
cdef int GOING_ON = 8            # replies in parts that go on in a turn, a millisecond each at most


@cython.final
cdef class Gate:
    """How many jobs of one interest are at work at a time; the others wait here, in order."""

    cdef readonly int limit      # 0: all wait here for who iterates over them
    cdef object _begin           # Python: make a task of a job; with this gate as argument: wake who iterates
    cdef int _running
    cdef readonly object waiting # deque of Job; of who iterates also of plain Message
    cdef public bint iterated    # somebody iterates over the interest's messages, which has no function
    cdef public bint late        # and has just begun to
    cdef public int mailbox      # of the interest; -1: it has none

    def __init__(self, int limit, begin):
        self.limit = limit
        self.mailbox = -1
        self._begin = begin
        self.waiting = deque()


@cython.final
cdef class Job:
    """A message, and the asynchronous callback or handler that works on it; or who is to iterate over it."""

    cdef Looped _looped
    cdef Gate _gate              # None: none
    cdef readonly Message message
    cdef EventCallback _event    # None: it is a handler, or an iteration
    cdef Callbacks _handler      # None: it is an event
    cdef uint32_t _limit
    cdef bint _ended
    cdef Giving _giving          # of its reply in parts; None: it gives none

    def __init__(self):
        raise TypeError(MAKERS[Job])

    @property
    def is_request(self):
        """Whether its requester waits for an answer."""
        return self._handler is not None and self.message._header.kind == SB_REQUEST

    @property
    def identity(self):
        """The request's correlation id."""
        return (<const char *>self.message._header.correlation)[:16]

    def lapsed(self):
        """Whether it is a request that nobody waits for any more; counted as not begun."""
        cdef Message m = self.message
        cdef Connection connection = self._looped._connection
        if not self.is_request or not m.cancelled:
            return False
        if 0 < m._header.deadline_ns <= rb_now():
            connection.count(&connection.e.up.expired)
        else:
            connection.count(&connection.e.up.withdrawn)
        return True

    def call(self):
        """Begin: call the function; returns what is to be awaited."""
        cdef uint64_t limit_ns
        cdef object function
        if self._event is not None:
            self.message.expect(self._event.payload_type)
            function, limit_ns = self._event.function, self._event.limit_ns
        else:
            self.message.expect(self._handler.handler_type)
            function, limit_ns = self._handler.handler, self._handler.limit_ns
        PyContextVar_Set(IN_FORCE, deadline_of(self.message))  # in the task's own context
        self._limit = EP_NO_LIMIT
        if limit_ns:
            self._limit = self._looped._threads.begin_limit(self.message, limit_ns)
        return function(self.message)

    def returned(self, value):
        """It has returned this: the reply, unless it was given or put off. What cannot be sent is logged."""
        cdef Message m = self.message
        self._end_limit()
        if self.is_request and not (m._answered or m._refused or m._deferred or m._too_late()):
            try:
                if value is not None and is_generator(value):
                    self._looped._give(self, value)
                else:
                    m.reply(value)
            except Exception as error:
                self._looped._receiving._not_sent(m, error)

    async def give(self, parts):
        """It is an asynchronous generator: what that yields is the reply, in parts. Of a command nobody gets them."""
        cdef Message m = self.message
        if self.is_request:
            self._end_limit()
            if self._begin_giving():
                await self._giving.all(parts)
            else:
                await parts.aclose()
                if not m._header.flags & SB_STREAM:
                    raise not_asked_for_parts(m)
            return
        try:
            async for _ in parts:
                pass
        finally:
            await parts.aclose()

    cdef bint _begin_giving(self) except -1:
        """False where its requester waits for no parts, or for nothing."""
        cdef Message m = self.message
        cdef Looped looped = self._looped
        if m._answered or m._refused or m._deferred or m._too_late() or not m._header.flags & SB_STREAM:
            return False
        self._giving = Giving.__new__(Giving)
        self._giving._looped, self._giving._outflows = looped, looped._receiving._outflows
        self._giving._limit_ns = self._handler.limit_ns
        self._giving._flow = self._giving._outflows.begin(m, None, self._handler.limit_ns)
        looped._threads.put_down(<unsigned long><uintptr_t><PyObject *>m | 1)  # from here on it is deferred
        looped.resume()              # and looked at
        return True

    @property
    def gives(self):
        """Whether its reply comes in parts."""
        return self._giving is not None

    @property
    def closes(self):
        """Whether the generator of that is being closed."""
        return self._giving is not None and self._giving.closes

    def raised(self, error not None):
        """It has raised this: whoever waits is told."""
        cdef Message m = self.message
        cdef Receiving receiving = self._looped._receiving
        self._end_limit()
        if self._giving is not None:
            self._giving.end(error)
            return
        receiving._count_error()
        if self._event is not None:
            receiving._log_failure(m, error)
            if self._event.mask != SB_PLAIN:
                receiving._give_up(m, self._event.mask if self._event.retry else 0,
                                   0 if self._event.retry else self._event.mask, error)
        elif m._header.kind != SB_REQUEST or m._answered or m._too_late():
            receiving._log_failure(m, error)
        else:
            receiving._try_fail(m, error)

    def abandoned(self, str why not None):
        """Nobody works on it any more: what others could do is given back."""
        cdef Message m = self.message
        cdef Receiving receiving = self._looped._receiving
        self._end_limit()
        if self._giving is not None:
            self._giving.leave()
        if self._event is not None and self._event.mask != SB_PLAIN:
            receiving._give_up(m, self._event.mask, 0, RuntimeError(why))
        elif self._event is None and self._handler is None and m.work():
            receiving._give_up(m, m.owed(), 0, RuntimeError(why))
        elif m._header.kind == SB_SEND:
            receiving._give_up(m, SB_PLAIN if self._handler.redeliver else 0,
                               0 if self._handler.redeliver else SB_PLAIN, RuntimeError(why))
        elif m._header.kind == SB_EVENT:
            receiving._count_error()

    cdef int _end_limit(self) except -1:
        if self._limit != EP_NO_LIMIT:
            self._looped._threads.end_limit(self._limit)
            self._limit = EP_NO_LIMIT
        self.message.end_limit()
        return 0

    def end(self):
        """It is over: another may begin. Harmless if done before."""
        if self._ended:
            return
        self._ended = True
        cdef Looped looped = self._looped
        cdef Job following = None
        self._end_limit()
        if self._gate is not None:
            if not self._gate.limit:
                pass
            elif self._gate.waiting:
                following = <Job>self._gate.waiting.popleft()
            else:
                self._gate._running -= 1
                if self._gate.mailbox >= 0:
                    looped._tend_mailbox(self._gate)
                    looped.resume()
        self.message._jobs -= 1
        if not self.message._jobs:
            looped._threads.put_down(<unsigned long><uintptr_t><PyObject *>self.message | 1)
        looped._one_less()
        if following is not None:
            following._gate._begin(following)


cdef inline int wake(object future) except -1:
    if not future.done():
        future.set_result(None)
    return 0


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Looped:
    """What an endpoint does in an event loop."""

    cdef EndpointCore _endpoint
    cdef Connection _connection
    cdef Threads _threads
    cdef Outbox _outbox
    cdef Answers _answers
    cdef Requests _requests
    cdef Receiving _receiving
    cdef unsigned long _thread   # of the loop
    cdef readonly int jobs       # there are
    cdef readonly bint troubled  # something keeps its calls from proceeding
    cdef readonly int most       # jobs that there may be
    cdef int why                 # `next` returned no message
    cdef bint _waits[2]          # calls do, by line
    cdef uint64_t _needs[2]      # of the first of them: bytes of the record for which there was no space,
    cdef uint64_t _needs_block[2]  # or pages of the block that it could not have
    cdef uint64_t _wanted[2]     # bytes of the record for which there shall be space, by ring
    cdef uint64_t _wanted_block  # pages of the block that there shall be
    cdef int _taken              # since others in the loop had a turn
    cdef uint64_t _since         # when a reply was last waited for, and did not come soon; 0: not since the last turn
    cdef bint _spun              # and whether it was spun for
    cdef uint64_t _lingers       # of the thread that sleeps at the event: since when; 0: it does not
    cdef bint _lingered          # and whether it had spun
    cdef readonly object queue   # deque of Job: messages without a callback for which nobody waited
    cdef readonly uint64_t ended # how many jobs have
    cdef public object resume    # Python: the loop is to look again
    cdef public object pause     # and: what to await so that others in the loop have a turn
    cdef public object future    # and: make a future
    cdef public object line_up   # and: await a place in the line of those who wait for space, or for memory
    cdef public object expect    # and: look again then
    cdef public object rearm     # and: watch for what is wanted by now
    cdef set _streams            # of LoopStream: those whose next part a task waits for
    cdef list _full              # pairs of future and Outflow: parts that tasks have no space or no block for
    cdef dict _kept              # those that stay in hand though nobody works on them: Job by message
    cdef readonly Py_ssize_t run_at  # the event of a run that `post_run` has come to
    cdef uint8_t *_run           # where `take_run` puts one together
    cdef public object forgo     # Python: who waited for a message, of that gate or any, by that future does no more

    def __cinit__(self, EndpointCore endpoint not None, int most):
        self._endpoint = endpoint
        self._connection = endpoint._connection
        self._threads = endpoint._threads
        self._outbox = endpoint._outbox
        self._answers = endpoint._answers
        self._requests = endpoint._requests
        self._receiving = endpoint._receiving
        self._thread = PyThread_get_thread_ident()
        self.most = most
        self.queue = deque()
        self._streams = set()
        self._full = []
        self._kept = {}
        self._receiving.begun = True
        self._receiving.looped = self
        self._answers.late = deque()
        self._requests.quiet = True

    def __dealloc__(self):
        free(self._run)

    def end(self):
        """The loop is not used any more."""
        self._receiving.looped = None
        self._answers.late = None

    def require(self):
        """Raise the error of what keeps its calls from proceeding."""
        self._connection.require(served=True)

    @property
    def recoverable(self):
        """Whether nothing keeps its calls from proceeding for good."""
        return not <uint64_t>self._connection.trouble() & EP_FOR_GOOD

    @property
    def paused(self):
        """Whether `next` returned no message because others in the loop shall have a turn."""
        return self.why == PAUSE

    @property
    def crowded(self):
        """Whether that was because as many messages are at work as may be."""
        return self.why == CROWDED

    @property
    def late(self):
        """Answers that found no space."""
        return len(self._answers.late)

    # Lines -----------------------------------------------------------------------------------

    @property
    def waiting(self):
        """Calls wait for space, or for memory."""
        return self._waits[RING_LINE] or self._waits[POOL_LINE]

    def set_waiting(self, int line, bint waits):
        """Whether calls wait in this line: others go behind them."""
        self._waits[line] = waits
        if not waits:
            self._needs[line] = self._needs_block[line] = 0
            self._want_space(SB_DATA, self._least(self._needs))  # the dispatcher shall not think that anybody waits
            self._want_block(self._block_pages())

    cdef void _begin(self, int line) noexcept:
        """A call tries: the first of this line, or one that has just begun (NO_LINE)."""
        cdef Outbox outbox = self._outbox
        outbox.behind[RING_LINE] = line == NO_LINE and self._waits[RING_LINE]
        outbox.behind[POOL_LINE] = line == NO_LINE and self._waits[POOL_LINE]
        outbox.lack.space = outbox.lack.pages = 0

    cdef int _end(self, int line, bint done) noexcept:
        """It has: in which line it waits, NO_LINE if it is done."""
        cdef Outbox outbox = self._outbox
        if done:
            if line != NO_LINE:
                self._needs[line] = self._needs_block[line] = 0
            return NO_LINE
        if line == NO_LINE:
            line = POOL_LINE if outbox.large else RING_LINE
            if self._waits[line]:
                return line
        if outbox.lack.pages and not self._needs_block[line]:
            self._connection.count(&self._connection.e.up.pool_waits)
        self._needs[line], self._needs_block[line] = outbox.lack.space, outbox.lack.pages
        return line

    cdef uint64_t _least(self, const uint64_t *needs) noexcept:
        """Of those who are the first of their lines."""
        return least_of(needs[RING_LINE] if self._waits[RING_LINE] else 0,
                        needs[POOL_LINE] if self._waits[POOL_LINE] else 0)

    # Sending ---------------------------------------------------------------------------------

    def post(self, uint16_t kind, uint16_t flags, str type not None, payload, int line, Batch batch=None):
        """Send an event or a command, as the first of this line, or NO_LINE: NO_LINE, or the line in which it has to
        wait, because there is no space, or others wait there."""
        cdef ep_message m
        cdef bint sent
        self._connection.check()
        m.kind = kind
        m.peer = 0
        m.peer_generation = 0
        m.deadline_ns = 0
        m.correlation = NULL
        owner = self._outbox.fill(&m, type, payload, ALONE)
        m.flags |= flags
        cdef const ep_batch_limits *limits = self._outbox.always() if batch is None else &batch._limits
        self._begin(line)
        sent = self._post(&m, type, limits, ALONE)
        self._outbox.give_back(owner)
        if not sent:
            self._connection.require(served=True)
        elif self._outbox.granted:
            self._outbox.check_grant(kind, type, ALONE)
        return self._end(line, sent)

    cdef bint _post(self, ep_message *m, str type, const ep_batch_limits *limits, int64_t index) except -1:
        """False where there is no space or no block, or others wait for that; what it needs is noted in the outbox."""
        self._outbox.large = self._outbox.pooled(m, type, index)
        return (not self._outbox.behind[self._outbox.large]
                and self._outbox.try_put(m, self._outbox.large, limits, &self._outbox.lack))

    def patience(self, timeout, int line):
        """Seconds for which a call waits in this line: until the answer comes to how large the pool may be, at the
        least."""
        if timeout is not None and line == POOL_LINE and self._outbox.pool.grant_is_open():
            return max(timeout, GRANT_NS / 1e9)
        return timeout

    def begin_loan(self, Loan loan not None, int line):
        """Have its memory: NO_LINE, or the line in which it has to wait."""
        cdef bint begun
        self._begin(line)
        self._outbox.large = True
        begun = not self._outbox.behind[POOL_LINE] and loan.try_begin()
        if not begun:
            self._connection.require(served=True)
            self._outbox.lack.pages = pages_of(loan.block_size())
        return self._end(line, begun)

    def publish_loan(self, Loan loan not None, int line):
        """Publish it: likewise."""
        cdef ep_message m
        cdef sb_block block
        cdef bint sent
        self._begin(line)
        self._outbox.large = False
        loan._require_lent()
        loan.message(&m, &block)
        sent = (not self._outbox.behind[RING_LINE]
                and self._outbox.try_put(&m, False, self._outbox.always(), &self._outbox.lack))
        if sent:
            loan.was_published()
        else:
            self._connection.require(served=True)
        return self._end(line, sent)

    def post_many(self, items, uint64_t number):
        """Send events, of an iterator of pairs of type and payload of which the first has this `number`, with one bell,
        but not more than others in the loop can wait for: how many by now, the pair that found no space, or None, and
        the line in which it waits. -1: those were all."""
        cdef ep_message m
        cdef ep_batch_limits limits = self._outbox.limits(256, None, None)
        cdef int64_t index = number
        cdef bint sent
        self._connection.check()
        try:
            while index < <int64_t>number + PORTION:
                try:
                    item = next(items)
                except StopIteration:
                    return -1, None, NO_LINE
                type, payload = pair_of(item)
                m.kind = SB_EVENT
                m.peer = 0
                m.peer_generation = 0
                m.deadline_ns = 0
                m.correlation = NULL
                owner = self._outbox.fill(&m, type, payload, index)
                self._begin(NO_LINE)
                sent = self._post(&m, type, &limits, index)
                self._outbox.give_back(owner)
                if not sent:
                    self._connection.require(served=True)
                    return index, (type, payload), self._end(NO_LINE, False)
                if self._outbox.granted:
                    self._outbox.check_grant(SB_EVENT, type, index)
                index += 1
            return index, None, NO_LINE
        finally:
            self._outbox.flush()

    def post_together(self, items, int line):
        """Send messages by one store, so that whoever is killed, all are sent or none: tuples of kind, flags, type and
        payload, of which the first alone may be so large that it goes by the pool. NO_LINE, or the line in which they
        have to wait. Raises `Forbidden` if one may not be sent, and sends none then."""
        cdef ep_message m
        cdef ep_batch_limits limits
        cdef uint64_t length = 0
        cdef bint sent = True
        limits.messages, limits.bytes, limits.delay_ns = len(items) + 1, <uint64_t>-1, 0
        self._connection.check()
        self._begin(line)
        if line == NO_LINE and self._waits[RING_LINE]:
            self._outbox.large = False
            return RING_LINE
        for kind, flags, type, payload in items:
            self._outbox.give_back(self._fill(&m, kind, flags, type, payload))
            length += self._outbox.ring_bytes(&m, type)
            if self._outbox.granted:
                self._outbox.check_grant(kind, type, ALONE)
        if not self._outbox.has_room(2 * length):  # as much again may stay free at the end of the ring
            self._outbox.large = False
            self._outbox.lack.space = min(2 * length, self._connection.e.out[SB_DATA].capacity // 2)
            self._connection.require(served=True)
            return self._end(line, False)
        try:
            for kind, flags, type, payload in items:
                owner = self._fill(&m, kind, flags, type, payload)
                sent = self._post(&m, type, &limits, ALONE)
                self._outbox.give_back(owner)
                if not sent:  # the first, for want of a block
                    self._connection.require(served=True)
                    break
        finally:
            self._outbox.flush()
        return self._end(line, sent)

    cdef object _fill(self, ep_message *m, uint16_t kind, uint16_t flags, str type, payload):
        """Fill in an event or a command; returns what owns the payload's bytes."""
        m.kind = kind
        m.peer = 0
        m.peer_generation = 0
        m.deadline_ns = 0
        m.correlation = NULL
        owner = self._outbox.fill(m, type, payload, ALONE)
        m.flags |= flags
        return owner

    def take_run(self, Message first not None):
        """The payload of what was taken last, and with it those of the events that stand next to it in the ring and are
        like it: of its type, of its source, for the same subscriptions, and neither kept nor work. They are one behind
        the other in the first result; the second is a table of them, with an `Entry` each. An iteration would have
        yielded them one by one."""
        cdef ep_endpoint *e = self._connection.e
        cdef Callbacks callbacks = self._receiving._callbacks.known(first.type)
        cdef const char *type = <const char *>PyUnicode_1BYTE_DATA(first.type)
        cdef uint64_t size = <uint64_t>first.bytes_of(), length
        cdef Entry *table
        cdef Py_ssize_t count = 1
        cdef sb_record header
        cdef const uint8_t *record
        if (first._header.kind != SB_EVENT or first._header.interests != SB_PLAIN
                or first._header.flags & ~<uint16_t>(FORMATS | SB_URGENT)
                or first._share is not None or first._released or size > RUN_BYTES or self._connection.closing
                or callbacks is None or callbacks.events or callbacks.late is not None
                or self.queue or self._threads.hand(self._thread) == NULL):
            return first._encoded().data, entry_of(first.sent_ns, size)
        if self._run == NULL:
            self._run = <uint8_t *>malloc(RUN_EVENTS * sizeof(Entry) + RUN_BYTES)
            if self._run == NULL:
                raise MemoryError
        table = <Entry *>self._run
        cdef uint8_t *payloads = self._run + RUN_EVENTS * sizeof(Entry)
        table[0].sent_ns, table[0].length = first._header.sent_ns, size
        memcpy(payloads, first.at(), size)
        ep_lock(e)
        while (count < RUN_EVENTS and ep_peek(e, &header, &record) == RB_OK
                and header.kind == SB_EVENT and header.flags == first._header.flags
                and header.interests == SB_PLAIN and header.lost == e.lost_seen
                and header.peer == first._header.peer and header.peer_generation == first._header.peer_generation
                and header.type_length == first._header.type_length
                and not memcmp(record + SB_HEADER, type, header.type_length)):
            length = header.length - sb_payload_offset(&header)
            if size + length > RUN_BYTES:
                break
            memcpy(payloads + size, record + sb_payload_offset(&header), length)
            table[count].sent_ns, table[count].length = header.sent_ns, length
            size += length
            count += 1
            ep_take(e, &header, SB_HELD_DONE)
        if count > 1:
            ep_mark_progress(e)
            e.mail_first = True
            ep_pass_on_data(e)
            self._taken += <int>count - 1
        ep_unlock(e)
        return (PyBytes_FromStringAndSize(<const char *>payloads, <Py_ssize_t>size),
                PyBytes_FromStringAndSize(<const char *>table, count * <Py_ssize_t>sizeof(Entry)))

    def post_run(self, str type not None, Origin origin not None, uint16_t flags, str group not None,
                 const uint8_t[::1] payloads not None, bytes table not None, int64_t ahead_ns, Py_ssize_t number):
        """Send events that a link brings, of one type and one source, whose payloads stand one behind the other and are
        in this table (see `events_in`), from the one of this number on: as many as there is space for; returns the line
        in which the next has to wait, or NO_LINE. `run_at` says which that is, or which has raised. They were sent by
        the clock there, which is ahead of the one here by so much."""
        cdef ep_message m
        cdef ep_batch_limits limits = self._outbox.limits(256, None, None)
        cdef bytes to = group.encode("ascii")
        cdef Entry entry
        cdef uint64_t at = 0
        cdef Py_ssize_t i, count = events_in(table, payloads.shape[0])
        cdef bint sent
        self.run_at = number
        self._connection.check()
        for i in range(min(number, count)):
            at += entry_at(table, i).length
        self._outbox.fill(&m, type, None, ALONE)
        m.kind = SB_EVENT
        m.peer = 0
        m.peer_generation = 0
        m.deadline_ns = 0
        m.correlation = NULL
        m.origin = &origin.o
        m.group = PyBytes_AS_STRING(to)
        m.group_length = <uint32_t>PyBytes_GET_SIZE(to)
        m.flags = flags | SB_RELAYED
        try:
            for i in range(number, count):
                self.run_at = i
                entry = entry_at(table, i)
                origin.o.sent_there_ns = entry.sent_ns
                origin.o.sent_ns = <uint64_t>max(<int64_t>entry.sent_ns - ahead_ns, 0)
                m.payload = &payloads[0] + at if payloads.shape[0] else NULL
                m.size = entry.length + ORIGIN
                self._begin(NO_LINE)
                sent = self._post(&m, type, &limits, ALONE)
                if not sent:
                    self._connection.require(served=True)
                    return self._end(NO_LINE, False)
                at += entry.length
                origin.o.lost = 0
            self.run_at = count
            return NO_LINE
        finally:
            self._outbox.flush()

    def arm(self, int receivers, bint asked):
        """Ring the event once there is something to do; True: there is by now. `receivers`: how many messages can be
        worked on at a time; 0: none is wanted. `asked`: somebody waits for those that no callback gets."""
        cdef bint due
        cdef uint32_t wants = SB_EVENT_REPLIES | SB_EVENT_STATE
        if not self._connection.ours():
            return False           # a forked child that goes on in its parent's loop
        if receivers != self._threads.runners:
            self._threads.runners = receivers
            self._threads._publish_receivers()
        if receivers and self.jobs < self.most:
            wants |= SB_EVENT_DATA
        wants |= self._want_space(SB_DATA, self._least(self._needs))
        wants |= self._want_space(SB_REPLIES, self._reply_length())
        wants |= self._want_block(self._block_pages())
        self._connection.e.mail_asked = asked
        due = self._connection.arm(wants)
        self._connection.e.mail_asked = False
        return due

    cdef uint64_t _reply_length(self) except? 0xffffffffffffffff:
        """Bytes of the shortest record that is to go out among the replies and found no space; 0: none did. All try
        again at once."""
        cdef uint64_t least = self._connection.e.part_length
        if self._answers.late and not self._answers.block_needs:
            least = self._answers.late_length()
        for _, f in self._full:
            least = least_of(least, 0 if (<Outflow>f)._pages else (<Outflow>f)._length)
        return least

    cdef uint64_t _block_pages(self) except? 0xffffffffffffffff:
        """Pages of the smallest block that could not be had; 0: all could. Likewise."""
        cdef uint64_t least = least_of(self._least(self._needs_block), self._connection.e.part_pages)
        if self._answers.late:
            least = least_of(least, self._answers.block_needs)
        for _, f in self._full:
            least = least_of(least, (<Outflow>f)._pages)
        return least

    cdef uint32_t _want_block(self, uint64_t pages) noexcept:
        """Of the pool, of so many pages; 0: none."""
        if pages != self._wanted_block:
            self._wanted_block = pages
            self._connection.need_block(pages)
        return SB_EVENT_SPACE if pages else 0

    cdef uint32_t _want_space(self, uint32_t ring, uint64_t length) except? 0xffffffff:
        """In this ring for a record of `length` bytes; 0: for none."""
        if length != self._wanted[ring] or length:
            self._wanted[ring] = length
            self._connection.need(ring, length)
        return SB_EVENT_SPACE if length else 0

    def full(self, str type, timeout, number, int line):
        """The error of a call that has waited in this line for so long."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t depth
        if self._needs_block[line]:
            return self._outbox.pool.full(type, timeout, ALONE if number is None else number)
        ep_lock(e)
        depth = e.out[SB_DATA].next - e.out[SB_DATA].tail_seen
        ep_unlock(e)
        return self._connection._explain_full(Full(
            type=type, depth=depth, capacity=e.out[SB_DATA].capacity, seconds=timeout, setting=SETTINGS[SB_DATA],
            number=number))

    def ask(self, LoopReply reply not None, str type not None, payload, Deadline deadline not None, reply_type,
            uint16_t attempt, int line, Addressee to=None):
        """Send a request, as the first of this line, or NO_LINE: NO_LINE, or the line in which it has to wait, because
        there is no space, no entry in the table, or others wait there."""
        cdef bint sent
        self._begin(line)
        sent = self._requests.begin_at_once(reply, type, payload, deadline, reply_type, attempt, to)
        if self._requests._told:
            self._wake()
        return self._end(line, sent)

    def ask_directed(self, addressees, list under_way not None, future, str type not None, payload,
                     Deadline deadline not None, reply_type):
        """Send the request to each of these, taken from the left of the deque, and append its reply, which ends the
        `future`, to `under_way`, until there is no space in the ring or the table."""
        cdef LoopReply reply
        while addressees:
            reply = LoopReply.__new__(LoopReply)
            reply.future = future
            if self.ask(reply, type, payload, deadline, reply_type, 1, NO_LINE, <Addressee?>addressees[0]) != NO_LINE:
                return
            under_way.append(reply)
            addressees.popleft()

    def spin(self, LoopReply reply not None):
        """Whether its reply has come within some microseconds, so that the task need not be suspended. Not tried while
        other requests are under way, nor more than so often before others in the loop have had a turn."""
        if self._connection.e.futures != 1 or self._taken >= PORTION:
            return False
        self._taken += 1
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t now = rb_now()
        cdef flag spun = 0
        cdef bint came
        with nogil:
            came = ep_spin_reply(e, now, &spun)
        if came:
            self._requests.collect()
            if self._requests._told:
                self._wake()
        else:
            self._since, self._spun = now, spun
        return reply._outcome != PENDING

    def linger(self):
        """By a thread that is about to sleep at the event, and has a turn when something is there: spin first, where
        that has lately paid. Whether something has come. Needs no lock, and lets other threads run."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t now = rb_now()
        cdef flag spun = 0
        cdef bint came
        with nogil:
            came = ep_linger(e, now, &spun)
        self._lingered, self._lingers = spun, 0 if came else now
        return came

    def slept(self):
        """That thread has slept there, and been woken."""
        if self._lingers:
            ep_note_lingered(self._connection.e, self._lingered, self._lingers)

    def table_full(self, str type, timeout):
        """The error of a request for which there was no entry in the table for so long; None where there is one."""
        cdef ep_endpoint *e = self._connection.e
        if e.free_count:
            return None
        return RequestsFull(type=type, endpoint=self._connection.name, limit=e.request_count, seconds=timeout)

    def look(self):
        """A turn begins: what comes from now on is looked at in this one. Wakes those whose replies have
        come, sends answers that found no space, and sees whether its calls may proceed (`troubled`). Returns the
        correlation ids of requests that were withdrawn since the last turn, or None."""
        cdef ep_endpoint *e = self._connection.e
        self._taken = 0
        if self._since:
            ep_note_slept(e, self._spun, self._since)
            self._since = 0
        self._connection.disarm()
        self._requests.collect()
        if self._requests._told:
            self._wake()
        if e.stirred != NULL:
            self._wake_streams()
        if self._answers.late and not self._answers.send_late():
            self.expect(self._answers.late_until())
        if self._full:
            self._seek_space()
        self.troubled = self._connection.trouble() & self._connection.minds()
        return self._requests.take_cancelled() if e.cancels_seen != self._requests._cancels_taken else None

    def expire(self):
        """End the requests whose time has elapsed, and return when that of the next one will have."""
        cdef uint64_t now = rb_now(), earliest
        self._requests._expire()
        self._wake()
        earliest = min(<uint64_t>self._requests._earliest(), self._receiving._outflows.look(now))
        earliest = min(earliest, self._answers.late_until())
        for stream in self._streams:
            earliest = min(earliest, (<LoopStream>stream).look(now))
        return earliest

    cdef bint _wake(self) except -1:
        cdef LoopReply reply
        cdef bint any = False
        for one in self._requests.take_told():
            reply = <LoopReply>one
            any = True
            if reply.future is not None and not reply.future.done():
                reply.future.set_result(None)
        return any

    def fail_all(self, error not None):
        """Fail all requests under way."""
        self._requests.fail_all(error)
        self._wake()
        for stream in self._streams:
            (<LoopStream>stream).fail(error)

    # Replies in parts ------------------------------------------------------------------------

    def stream(self, str type not None, payload, timeout, Deadline whole not None, part_type):
        """Send a request whose reply comes in parts; where it would have to wait, when the first of them is asked
        for."""
        cdef LoopStream stream = LoopStream.__new__(LoopStream)
        cdef Stream inner = Stream.__new__(Stream)
        inner._endpoint, inner.type, inner._part_type = self._endpoint, type, part_type
        inner._whole = whole
        inner._timeout, inner._span = timeout, span_ns(timeout)
        stream._looped, stream._stream, stream._payload = self, inner, payload
        stream._sending = until(timeout, whole)
        stream.try_send(NO_LINE)
        return stream

    cdef int _wake_streams(self) except -1:
        """Parts have come, or ends."""
        cdef ep_endpoint *e = self._connection.e
        cdef ep_stream *stream
        while True:
            ep_lock(e)
            stream = ep_next_stirred(e)
            ep_unlock(e)
            if stream == NULL:
                return 0
            (<LoopStream><object>stream.owner)._wake()

    cdef object space(self, Outflow f):
        """What to await until its last record may have space among the replies, or a block."""
        future = self.future()
        self._full.append((future, f))
        self.rearm()
        return future

    cdef int _seek_space(self) except -1:
        """Tasks go on whose part has some by now, or needs none any more."""
        cdef Outflows outflows = self._receiving._outflows
        cdef list full = self._full
        cdef Outflow f
        cdef bint over = not self.recoverable
        self._full = []
        for future, one in full:
            f = <Outflow>one
            if over or outflows.unwanted(f) or outflows.has_space(f):
                wake(future)
            elif not future.done():
                self._full.append((future, f))
        return 0

    cdef int _give(self, Job job, object generator) except -1:
        """A task has returned a generator that is not asynchronous."""
        cdef Receiving receiving = self._receiving
        cdef object flow = receiving._begin_parts(job.message, generator, job._handler.limit_ns)
        if flow is not None:
            self._threads.put_down(<unsigned long><uintptr_t><PyObject *>job.message | 1)
            receiving._outflows.make_due(<Outflow>flow)
            self.resume()
        return 0

    @property
    def giving(self):
        """Whether replies are given in parts."""
        return self._receiving._outflows.any()

    def go_on(self):
        """Go on with those that can; returns when to look at them again at the latest (ns)."""
        cdef Outflows outflows = self._receiving._outflows
        cdef uint64_t again = outflows.look(rb_now())
        cdef int left = GOING_ON
        cdef Outflow f
        while left:
            f = outflows.next_due()
            if f is None:
                break
            left -= 1
            if f.waiter is not None:
                wake(f.waiter)
            elif f.generator is not None or f._owes:
                outflows.go_on(f)
        if self._connection.e.due != NULL:
            self.resume()
        return again

    def close_parts(self):
        """The endpoint leaves: close the generators that no task has."""
        self._receiving._outflows.close_all()

    # Receiving -------------------------------------------------------------------------------

    def data_waits(self):
        """Whether there is a message to take that no callback gets."""
        self._connection.e.mail_asked = True
        waits = self._connection.data_waits()
        self._connection.e.mail_asked = False
        return waits

    cdef int _tend_mailbox(self, Gate gate, bint asked=False) except -1:
        """The newest of an interest stays in its mailbox until there is somebody for it: a place for a job, or
        (`asked`) who iterates."""
        cdef int state = EP_MAIL_ASKED
        if gate.mailbox < 0:
            return 0
        if gate.limit:
            state = EP_MAIL_LEFT if gate._running >= gate.limit else EP_MAIL_TAKEN
        elif gate.iterated:
            state = EP_MAIL_TAKEN if asked and not gate.waiting else EP_MAIL_LEFT
        self._connection.leave_mailbox(gate.mailbox, state)
        return 0

    def next(self, bint yields):
        """Run the callbacks of what has come, until a message without one comes, or there is a reason for a
        pause (`why`)."""
        return self._next(yields)

    cdef Message _next(self, bint yields):
        cdef Message m
        cdef Callbacks callbacks
        cdef EndpointCore endpoint = self._endpoint
        self._connection.check()
        while True:
            self.why = DRY
            if self._taken >= PORTION:
                self.why = PAUSE
                return None
            if self.jobs >= self.most:
                self.why = CROWDED
                m = None
            elif self._connection.closing:
                m = None
            else:
                self._connection.e.mail_asked = yields
                m = self._receiving._inbox.take(endpoint, self._thread)
                self._connection.e.mail_asked = False
            if m is None:
                self._threads.put_down(self._thread)
                if self._threads.dropped:
                    self._threads.end_dropped()
                return None
            self._taken += 1
            callbacks = self._receiving._callbacks.known(m.type)
            if callbacks is None:
                callbacks = self._receiving._callbacks.find(m.type)
            if self._receiving._dispatch(m, callbacks):
                if yields:
                    return m
                self.queue.append(self._job(m, None))
            elif self._connection.e.due != NULL:
                self.resume()        # its handler yields, and others have their turn first

    def claim(self):
        """Somebody iterates over a subscription from here on: what came for it before, and waits for the endpoint's
        iterations, goes there."""
        cdef Callbacks callbacks
        cdef EventCallback each
        cdef Job job
        for one in list(self.queue):
            job = <Job>one
            callbacks = self._receiving._callbacks.find(job.message.type)
            for item in callbacks.events:
                each = <EventCallback>item
                if each.gate is not None and each.gate.late and each.gets(job.message):
                    self.spawn(job.message, each, None, False)
            if not callbacks.yield_it(job.message):
                self.queue.remove(job)
                job.end()

    def leave_mailbox(self, Gate gate not None):
        """Whoever iterates over its subscription takes from it, when it asks."""
        self._tend_mailbox(gate)

    def release(self, Gate gate not None):
        """Nobody takes what waits there any more: it is given back where others could have it."""
        cdef list waiting = list(gate.waiting)
        gate.waiting.clear()
        for first in waiting:
            if type(first) is Message:
                self._one_less()
            else:
                (<Job>first).abandoned("nobody has begun it here")
                (<Job>first).end()

    cdef int _one_less(self) except -1:
        """A job has ended, or a plain message does not wait any more for who iterates."""
        self.jobs -= 1
        self.ended += 1
        if self.jobs == self.most - 1:
            self.resume()          # messages may be taken anew
        return 0

    def release_all(self, gates):
        """The endpoint leaves: what nobody has begun is given back where others could have it. `gates`: of its
        interests. Who iterates over one still gets the plain messages that are here."""
        cdef list queue = list(self.queue), plain
        cdef Gate gate
        self.queue.clear()
        for m in list(self._kept):
            (<Job>self._kept[m]).abandoned("its endpoint left before it was done")
            self.let_go(<Message>m)
        for job in queue:
            (<Job>job).abandoned("nobody has begun it here")
            (<Job>job).end()
        for one in gates:
            gate = <Gate>one
            plain = [m for m in gate.waiting if type(m) is Message]
            for m in plain:
                gate.waiting.remove(m)
            self.release(gate)
            gate.waiting.extend(plain)

    cdef bint keep(self, Message m) except -1:
        """It is in hand until `let_go`, without a place among the jobs."""
        if m not in self._kept:
            self._kept[m] = self._job(m, None)
            self.jobs -= 1
        return True

    cdef int let_go(self, Message m) except -1:
        """If it was kept, it is done, or given back."""
        cdef Job job = self._kept.pop(m, None)
        if job is not None:
            self.jobs += 1
            job.end()
        return 0

    cdef Job _job(self, Message m, Gate gate):
        """The message that was just taken is in hand until this job has ended."""
        cdef Job job = Job.__new__(Job)
        cdef Hand *hand
        job._looped, job._gate, job.message, job._limit = self, gate, m, EP_NO_LIMIT
        if not m._jobs:
            hand = self._threads.hand(self._thread)
            if hand != NULL:
                hand.thread = <unsigned long><uintptr_t><PyObject *>m | 1
        m._jobs += 1
        self.jobs += 1
        return job

    cdef int spawn(self, Message m, EventCallback event, Callbacks handler, bint alone) except -1:
        """Have it worked on by an asynchronous callback, or by the handler, or iterated over. `alone`: by nobody
        else."""
        cdef Gate gate = event.gate if event is not None else handler.gate
        cdef Job job
        if event is not None and m._position == SB_NOWHERE:
            if alone:
                m.expect(event.payload_type)
            else:
                m = m.twin(event.payload_type)
            if not gate.limit:
                self.jobs += 1
                gate.waiting.append(m)
                if len(gate.waiting) == 1:
                    gate._begin(gate)
                self._tend_mailbox(gate)
                return 0
        job = self._job(m, gate)
        job._event, job._handler = event, handler
        if gate._running < gate.limit:
            gate._running += 1
            self._tend_mailbox(gate)
            gate._begin(job)
        else:
            gate.waiting.append(job)
            if not gate.limit:
                gate._begin(gate)
        return 0


cdef class LoopReply(PendingReply):
    """A request whose reply a task waits for."""

    cdef public object future    # asyncio's, set when it is done

    def _tell(self):
        """By the thread that ends an endpoint whose loop is gone: nobody is left to be told."""
        return True

    def raise_or_return(self):
        """Its reply. Raises the error that came instead."""
        if self._outcome == ARRIVED and self._message._header.kind == SB_REPLY:
            return self._message
        raise self._exception()


@cython.final
cdef class LoopIteration:
    """An iteration over the messages of an endpoint, or of one subscription, that have no callback. What is there
    already does not suspend."""

    cdef Looped _looped
    cdef object _jobs            # deque of Job: of the endpoint, or of one subscription
    cdef Gate _gate              # of a subscription; None: of the endpoint
    cdef object _await           # Python: a future that is done when there may be more; None at the end
    cdef Job _current            # in hand until the next one is asked for
    cdef bint _waits             # a task does, in it

    def __cinit__(self, Looped looped not None, Gate gate, wait):
        self._looped = looped
        self._gate = gate
        self._jobs = looped.queue if gate is None else gate.waiting
        self._await = wait

    def __aiter__(self):
        return self

    def take(self):
        """The next message, if it is there; else None."""
        cdef Message m = None
        self.put_down()
        if not self._jobs and self._gate is None:
            m = self._looped._next(True)
            if m is not None and m._position != SB_NOWHERE:
                self._current = self._looped._job(m, None)
            if self._looped.why == PAUSE:
                self._looped._taken = 0  # the task asks again after others
        if m is None and self._jobs:
            m = self._pop()
        return m

    cdef Message _pop(self):
        cdef object first = self._jobs.popleft()
        if self._gate is not None:
            self._looped._tend_mailbox(self._gate)
        if type(first) is Message:  # a plain one
            self._looped._one_less()
            return <Message>first
        self._current = <Job>first
        return self._current.message

    async def __anext__(self):
        cdef Message m = self._begin_next()
        while m is None:
            if self._looped.why == PAUSE:
                self._looped._taken = 0
                await self._looped.pause()   # the task goes on after others
            else:
                future = self._await(self._gate)
                if future is None:
                    raise StopAsyncIteration
                self._waits = True
                try:
                    await future
                except BaseException:
                    self._looped.forgo(self._gate, future)
                    self._looped.resume()    # another may have what it was woken for
                    raise
                finally:
                    self._waits = False
                    if self._gate is not None:
                        self._looped._tend_mailbox(self._gate)
            m = self._look()
        return m

    cdef Message _begin_next(self):
        if self._waits:
            raise RuntimeError("another task waits in this iteration: begin one of your own, `async for` does")
        self.put_down()
        return self._look()

    cdef Message _look(self):
        """The next message, if it is there."""
        cdef Message m
        cdef Looped looped = self._looped
        if not self._jobs:
            if self._gate is None:
                m = looped._next(True)
                if m is not None:
                    if m._position != SB_NOWHERE:
                        self._current = looped._job(m, None)
                    return m
            else:
                looped._tend_mailbox(self._gate, True)
                looped._next(False)
        return self._pop() if self._jobs else None

    def put_down(self):
        """The message that it yielded last is done with."""
        cdef Job current = self._current
        if current is not None:
            self._current = None
            current.end()

    def __del__(self):
        self.put_down()
