# Answering requests.

cdef uint64_t MAX_FAILURE = 16384       # bytes of an encoded failure; more would only fill the requester's ring
cdef double ANSWER_TIMEOUT = 5.0        # seconds that an answer waits where this endpoint's ring is full


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
        """What was raised, as a requester gets it."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.endswith(".pxi"):
            trace = trace.tb_next  # without our own frames
        text = "".join(traceback.format_exception(error.__class__, error, trace))
        limit = min(MAX_FAILURE, rb_largest_record(self._connection.e.out[SB_REPLIES].capacity) - 512)
        return encode_failure(error, text, limit=limit)

    cdef int _put(self, Message m, uint16_t kind, ep_message *answer) except -1:
        answer.kind = kind
        answer.peer = m._header.peer
        answer.peer_generation = m._header.peer_generation
        answer.deadline_ns = m._header.deadline_ns
        answer.correlation = m._header.correlation
        try:
            if self.late is None:
                self._outbox.put(answer, m.type, ANSWER_TIMEOUT, NULL, ALONE)
            else:
                self._put_or_keep(answer, m.type)
        except MessageTooLarge:
            raise                  # the caller answers with this error instead
        except BaseException:
            m._answered = False
            m._refused = True
            raise
        if m._deferral is not None:
            m._deferral.settle()
        return 0

    cdef int _put_or_keep(self, ep_message *answer, str type) except -1:
        """In an event loop: what finds no space is sent later, by `send_late`."""
        cdef bint pooled = self._outbox.pooled(answer, type, ALONE)
        if not self.late and self._put_now(answer, pooled):
            return 0
        self._connection.require()
        payload = (bytes(in_full(<object>answer.frame)) if answer.frame != NULL else
                   PyBytes_FromStringAndSize(<const char *>answer.payload, answer.size))
        self.late.append((answer.kind, answer.flags, answer.peer, answer.peer_generation, answer.deadline_ns,
                          (<const char *>answer.correlation)[:16], type, payload))
        ep_lock(self._connection.e)
        ep_wake(self._connection.e, SB_EVENT_STATE)  # this may be another thread, or a task: the loop waits for space
        ep_unlock(self._connection.e)
        return 0

    cdef bint _put_now(self, ep_message *answer, bint pooled) except -1:
        """False where there is no space, or no block. Changes nothing then."""
        cdef ep_message placed = answer[0]
        cdef uint32_t number = 0
        cdef sb_block block
        self.block_needs = 0
        if not pooled:
            return self._outbox.put_at_once(answer, NULL)
        if not self._outbox.has_space(answer):
            return False
        if not self._outbox.place(&placed, &number, &block):
            self.block_needs = pages_of(answer.size)
            return False
        try:
            return self._outbox.put_at_once(&placed, NULL)
        finally:
            self._outbox.pool.give_back(number)

    cdef bint send_late(self) except -1:
        """Whether none is left."""
        cdef ep_message answer
        cdef bytes correlation, payload
        cdef str type
        answer.attempt = 1
        answer.grant = 0
        answer.frame = NULL
        while self.late:
            (answer.kind, answer.flags, answer.peer, answer.peer_generation, answer.deadline_ns, correlation, type,
             payload) = self.late[0]
            answer.correlation = <const uint8_t *>PyBytes_AS_STRING(correlation)
            answer.type = <const char *>PyUnicode_1BYTE_DATA(type)
            answer.type_length = <uint32_t>PyUnicode_GET_LENGTH(type)
            answer.payload = PyBytes_AS_STRING(payload)
            answer.size = PyBytes_GET_SIZE(payload)
            if not self._put_now(&answer, self._outbox.pooled(&answer, type, ALONE)):
                return False
            self.late.popleft()
        return True

    cdef uint64_t late_length(self):
        """Bytes of the first of them as a record, with its payload or a block."""
        return SB_HEADER + PyUnicode_GET_LENGTH(self.late[0][6]) + self._outbox.pool.inline_size(
            SB_REPLIES, PyUnicode_GET_LENGTH(self.late[0][6]), PyBytes_GET_SIZE(self.late[0][7]))
