# Streams: requests whose replies come in parts.

cdef uint64_t REPEAT = 100_000_000      # ns without a part, after which the last credit is said again, and later and
cdef uint64_t REPEAT_MOST = 1_000_000_000    # later, but at least so often


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Stream:
    """A reply that comes in parts: an iterator over messages, and a context manager.

    Leaving the `with` block, `close`, or dropping it breaks it off: nobody waits for the rest, and
    the generator at its server is closed.
    """

    cdef EndpointCore _endpoint
    cdef Requests _requests
    cdef Connection _connection
    cdef readonly str type
    cdef object _part_type
    cdef Deadline _whole         # when it must have ended
    cdef object _timeout         # seconds between parts
    cdef uint64_t _span          # the same, ns
    cdef uint32_t _index         # of its entry in the table of requests
    cdef uint64_t _serial        # of its use of that entry
    cdef bint _ended
    cdef uint64_t _parts         # that were taken
    cdef str _source
    cdef uint64_t _source_is     # whom that is the name of

    def __init__(self):
        raise TypeError(MAKERS[Stream])

    def __dealloc__(self):
        if self._requests is not None:
            self._give_up()

    def __iter__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def __next__(self):
        cdef Message m = self._take()
        if m is None and not self._ended:
            m = self._wait()
        if m is None:
            raise StopIteration
        return m

    def close(self):
        """Break it off: the generator at its server is closed. Never waits. Harmless if it has ended."""
        self._give_up()

    @property
    def ended(self):
        """Whether nothing more comes."""
        return self._ended

    cdef void _give_up(self) noexcept:
        cdef ep_endpoint *e = self._connection.e
        if self._ended:
            return
        self._ended = True
        if self._connection.ours():
            ep_lock(e)
            ep_give_up_request(e, self._index)
            ep_unlock(e)

    cdef int _finish(self) except -1:
        """It has come to its end."""
        self._ended = True
        self._requests._finish(self._index)
        return 0

    cdef Message _take(self):
        """The next part, if it is there. None: it is not yet, or it has `_ended`. Raises the error that came
        instead."""
        cdef ep_endpoint *e = self._connection.e
        cdef ep_request *r = &e.requests[self._index]
        cdef sb_record header
        cdef const uint8_t *record
        cdef PyObject *raw = NULL
        cdef Share share = None
        cdef Origin origin = None
        cdef Py_ssize_t offset, size
        cdef bint waits, failed
        cdef Message m
        if self._ended:
            return None
        self._connection.check()
        ep_lock(e)
        if not ep_has_part(r):
            ep_drain_new_replies(e)
        record = ep_next_part(r.stream, &header)
        if record != NULL:
            offset = <Py_ssize_t>sb_payload_offset(&header)
            size = <Py_ssize_t>header.length - offset
            if header.flags & SB_RELAYED:
                origin = free_origin()
            if origin is None and header.flags & SB_RELAYED:
                pass
            elif header.flags & SB_POOLED:
                share = free_share()
            else:
                if origin is not None:
                    size = take_origin(origin, record + offset, size)
                raw = sb_new_bytes(<const char *>record + offset, size)
            if share is not None:
                share.at = ep_part_share(&header, record)
                share = share if share.at != NULL else None
            if ((raw != NULL or share is not None) and ep_took_part(e, r.stream, &header)) or r.stream.owes:
                ep_repeat_credit(e, self._index)
        waits = ep_request_waits(e, self._index)
        failed = r.stream.failed
        ep_unlock(e)
        if record != NULL:
            if share is not None:
                m = self._part(&header, b"")
                m._share, m._origin = share, origin
                m.settle(True)
                return m
            if raw == NULL:
                raise MemoryError
            m = self._part(&header, <bytes><object>raw)
            Py_XDECREF(raw)
            if origin is not None:
                m.came_from(origin)
            return m
        if failed:
            return self._lose(r)
        return None if waits else self._last(r)

    cdef inline Message _part(self, const sb_record *header, bytes raw):
        cdef Message m = Message.__new__(Message)
        cdef uint64_t whom = sb_whom(header.peer, header.peer_generation)
        if whom != self._source_is:
            self._source = self._connection.peers.of(header.peer, header.peer_generation)
            self._source_is = whom
        m._connection = self._connection
        m.type = self.type
        m.source = self._source
        m._raw = raw
        m._payload = UNDECODED
        m._payload_type = self._part_type
        m._header = header[0]
        m._position = SB_NOWHERE
        self._parts += 1
        return m

    cdef Message _last(self, ep_request *r):
        """What ended it: a whole reply is its only part."""
        cdef Message m = self._requests._message(r, self.type, self._part_type)
        cdef uint64_t asked = r.asked
        self._finish()
        m.settle(True)
        if m._header.kind == SB_ERROR:
            raise self._requests.error_of(m, asked, None)
        return m if m._header.kind == SB_REPLY else None

    cdef Message _lose(self, ep_request *r):
        cdef uint64_t asked = r.asked
        self._give_up()
        raise self._requests._explain_fault(Fault(type=self.type, endpoint=self._source or "", size=asked,
                                                  code=FaultCode.REPLY_LOST))

    cdef Message _wait(self):
        """Wait for the next part. None: it has ended."""
        cdef ep_endpoint *e = self._connection.e
        cdef uint64_t now = rb_now(), pause = REPEAT, until = min(deadline_after(self._span, now), self._whole.ns)
        cdef Message m
        cdef int waited
        while True:
            try:
                waited = self._connection.wait(EP_WANT_REPLY, self._index, self._serial, self._connection.minds(),
                                               CHECKS_DISPATCHER, min(until, now + pause))
            except BusError:
                m = self._take()
                if m is None:
                    self._give_up()
                    raise
                return m
            m = self._take()
            if m is not None or self._ended:
                return m
            now = rb_now()
            if waited == WAIT_ELAPSED and now >= until:
                raise self._elapsed(until)
            self.repeat_credit()
            pause = min(2 * pause, REPEAT_MOST)

    cdef object _elapsed(self, uint64_t until):
        """The error of a part that has not come in time."""
        cdef Deadline deadline = self._whole
        if until != self._whole.ns:
            deadline = Deadline.__new__(Deadline)
            deadline.ns, deadline.seconds = until, self._timeout
        error = self._requests._request_timeout(self._index, self.type, deadline, True, self._parts)
        self._give_up()
        return error

    cdef void repeat_credit(self) noexcept:
        """No part has come for a while: the credit for it may have been lost."""
        if not self._ended:
            ep_lock(self._connection.e)
            ep_repeat_credit(self._connection.e, self._index)
            ep_unlock(self._connection.e)

    def __repr__(self):
        return f"<stream of {self.type!r}, {'ended' if self._ended else 'open'}>"
