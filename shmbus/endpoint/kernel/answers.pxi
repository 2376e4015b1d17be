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
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.endswith(".pxi"):
            trace = trace.tb_next  # without our own frames
        text = "".join(traceback.format_exception(error.__class__, error, trace))
        limit = min(MAX_FAILURE, rb_largest_record(self._connection.e.out[SB_REPLIES].capacity) - 512)
        failure = encode_failure(error, text, limit=limit)
        self._outbox.fill(&answer, m.type, None, ALONE)
        answer.flags = SB_REMOTE
        answer.payload = PyBytes_AS_STRING(failure)
        answer.size = PyBytes_GET_SIZE(failure)
        self._put(m, SB_ERROR, &answer)
        return 0

    cdef int _put(self, Message m, uint16_t kind, ep_message *answer) except -1:
        answer.kind = kind
        answer.peer = m._header.peer
        answer.peer_generation = m._header.peer_generation
        answer.deadline_ns = m._header.deadline_ns
        answer.correlation = m._header.correlation
        try:
            self._outbox.put(answer, m.type, ANSWER_TIMEOUT, NULL, ALONE)
        except MessageTooLarge:
            raise                  # the caller answers with this error instead
        except BaseException:
            m._answered = False
            m._refused = True
            raise
        if m._deferral is not None:
            m._deferral.settle()
        return 0
