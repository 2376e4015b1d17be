# Answering requests.

cdef uint64_t MAX_FAILURE = 16384       # bytes of an encoded failure; more would only fill the requester's ring
cdef double ANSWER_TIMEOUT = 5.0        # seconds that an answer waits where this endpoint's ring, or pool, is full


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Answers:
    """Sends replies and failures to the requesters of messages."""

    cdef Connection _connection
    cdef Outbox _outbox
    cdef Threads _threads
    cdef object late             # in an event loop: a deque of those that found no space; else None
    cdef uint64_t block_needs    # of these: pages of the block that the first could not have

    def __cinit__(self, Connection connection not None, Outbox outbox not None, Threads threads not None):
        self._connection = connection
        self._outbox = outbox
        self._threads = threads

    cdef int reply(self, Message m, object payload) except -1:
        cdef ep_message answer
        self._connection.check()
        try:
            owner = self._outbox.fill(&answer, m.type, payload, ALONE)
        except EncodeError:
            raise                  # the caller answers with this error instead
        except BaseException:      # such as Ctrl-C in a hook
            m._answered = False
            raise
        try:
            self._put(m, SB_REPLY, &answer)
        finally:
            self._outbox.give_back(owner)
        return 0

    cdef int fail(self, Message m, object error) except -1:
        cdef ep_message answer
        self._connection.check()
        cdef bytes failure = self.failure(error)
        self._outbox.fill(&answer, m.type, None, ALONE)
        answer.flags = SB_REMOTE
        answer.payload = PyBytes_AS_STRING(failure)
        answer.size = PyBytes_GET_SIZE(failure)
        self._put(m, SB_ERROR, &answer)
        return 0

    cdef bytes failure(self, object error):
        """What was raised, as a requester gets it; of what is passed on, without our trace."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.endswith(".pxi"):
            trace = trace.tb_next  # without our own frames
        text = "".join(traceback.format_exception(error.__class__, error, trace))
        limit = min(MAX_FAILURE, self._outbox.pool.inline_limit(SB_REPLIES, False) - 512)  # it never needs a block
        return encode_failure(error, text, limit=limit)

    cdef int _put(self, Message m, uint16_t kind, ep_message *answer) except -1:
        answer.kind = kind
        answer.peer = m._header.peer
        answer.peer_generation = m._header.peer_generation
        answer.deadline_ns = m._header.deadline_ns
        answer.correlation = m._header.correlation
        try:
            if self.late is not None:
                self._put_or_keep(answer, m.type)
            elif self._outbox.pooled(answer, m.type, ALONE):
                self._put_pooled(answer, m.type)
            else:
                self._outbox.put_placed(answer, m.type, ANSWER_TIMEOUT, NULL, ALONE)
        except MessageTooLarge:
            raise                  # the caller answers with this error instead
        except BaseException:
            m._answered = False
            m._refused = True
            raise
        if m._deferral is not None:
            m._deferral.settle()
        return 0

    cdef int _put_pooled(self, ep_message *answer, str type) except -1:
        cdef double patience = self._patience(answer)
        return self._outbox.put_pooled(answer, type, patience, deadline_after(span_ns(patience), rb_now()), NULL, ALONE)

    cdef double _patience(self, const ep_message *answer) noexcept:
        """Seconds that it waits for a block: its requester is to hear why there is none before its own time is over."""
        cdef uint64_t now = rb_now()
        cdef double left = ANSWER_TIMEOUT
        if answer.deadline_ns:
            left = min(left, (answer.deadline_ns - now) / 1e9) if answer.deadline_ns > now else 0.0
        return 0.9 * left

    cdef int _put_or_keep(self, ep_message *answer, str type) except -1:
        """In an event loop: what finds no space is sent later, by `send_late`. What needs no block does not wait for
        others that do."""
        cdef bint pooled = self._outbox.pooled(answer, type, ALONE)
        if not self.late:
            self.block_needs = 0
        if (not self.late or (self.block_needs and not pooled)) and self._put_now(answer, pooled):
            return 0
        self._connection.require()
        cdef double patience = self._patience(answer)
        if answer.frame != NULL:
            payload = in_full(<object>answer.frame)
        else:
            payload = PyByteArray_FromStringAndSize(NULL, answer.size)
            if answer.size:
                ep_write_payload(<uint8_t *>PyByteArray_AS_STRING(payload), answer)
        self.late.append((answer.kind, answer.flags, answer.peer, answer.peer_generation, answer.deadline_ns,
                          (<const char *>answer.correlation)[:16], type, payload, patience,
                          rb_now() + <uint64_t>(1e9 * patience)))
        ep_lock(self._connection.e)
        ep_wake(self._connection.e, SB_EVENT_STATE)  # this may be another thread, or a task: the loop waits for space
        ep_unlock(self._connection.e)
        return 0

    cdef bint _put_now(self, ep_message *answer, bint pooled) except -1:
        """False where there is no space, or no block. Changes nothing then."""
        cdef Lack lack
        cdef bint sent = self._outbox.try_put(answer, pooled, NULL, &lack)
        if lack.pages:
            self.block_needs = lack.pages
        return sent

    cdef bint send_late(self) except -1:
        """Whether none is left. The requester of one that cannot have a block, or not in time, gets that as an
        error."""
        cdef ep_message answer
        cdef bytes correlation
        cdef str type
        cdef uint64_t until
        answer.attempt = 1
        answer.grant = answer.head_size = answer.group_length = 0
        answer.frame = NULL
        answer.origin = NULL
        while self.late:
            (answer.kind, answer.flags, answer.peer, answer.peer_generation, answer.deadline_ns, correlation, type,
             payload, patience, until) = self.late[0]
            answer.correlation = <const uint8_t *>PyBytes_AS_STRING(correlation)
            answer.type = <const char *>PyUnicode_1BYTE_DATA(type)
            answer.type_length = <uint32_t>PyUnicode_GET_LENGTH(type)
            answer.payload = (PyBytes_AS_STRING(payload) if PyBytes_CheckExact(payload) else
                              PyByteArray_AS_STRING(payload))
            answer.size = len(payload)
            self.block_needs = 0
            try:
                if self._put_now(&answer, self._outbox.pooled(&answer, type, ALONE)):
                    self.late.popleft()
                elif self.block_needs and rb_now() >= until:
                    raise self._outbox.pool.full(type, patience, ALONE)
                else:
                    return False
            except BusError as error:
                if <uint64_t>self._connection.trouble() & EP_FOR_GOOD:
                    return False
                self._fail_late(error)
        return True

    cdef int _fail_late(self, object error) except -1:
        """The first of them is this error instead, which needs no block."""
        cdef tuple first = self.late[0]
        log.error("endpoint %r: its reply to %r could not be sent: %s", self._connection.name, first[6], error)
        self._connection.count(&self._connection.e.up.handler_errors)
        self.late[0] = (SB_ERROR, SB_REMOTE, *first[2:7], self.failure(error), 0.0, NEVER)
        return 0

    cdef uint64_t late_until(self) except 0:
        """When to give the first of them up (ns)."""
        return self.late[0][9] if self.late and self.block_needs else NEVER

    cdef uint64_t late_length(self):
        """Bytes of the first of them as a record, with its payload or a block."""
        return SB_HEADER + PyUnicode_GET_LENGTH(self.late[0][6]) + self._outbox.pool.inline_size(
            SB_REPLIES, PyUnicode_GET_LENGTH(self.late[0][6]), len(self.late[0][7]))
