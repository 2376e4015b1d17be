# Replies in parts that a task takes.


@cython.final
cdef class LoopStream:
    """A reply that comes in parts: an asynchronous iterator over messages, and an asynchronous context manager.

    Leaving the `async with` block, `aclose`, dropping it, or cancelling the task that waits for a part breaks it off:
    nobody waits for the rest, and the generator at its server is closed.
    """

    cdef Looped _looped
    cdef Stream _stream
    cdef object _payload         # until the request has been sent
    cdef Deadline _sending       # until when it must be
    cdef bint _sent
    cdef int _line               # in which it waits for that
    cdef bint _waits             # a task does, in it
    cdef object _future          # by which it does
    cdef object _error           # what came in the way meanwhile
    cdef uint64_t _until         # when the part it waits for must have come
    cdef uint64_t _again         # when the credit for it is said again,
    cdef uint64_t _pause         # which was so long

    def __init__(self):
        raise TypeError(MAKERS[LoopStream])

    def __aiter__(self):
        return self

    async def __aenter__(self):
        await self._send()
        return self

    async def __aexit__(self, kind, value, trace):
        self.close()

    @property
    def type(self):
        """Of the request."""
        return self._stream.type

    @property
    def ended(self):
        """Whether nothing more comes."""
        return self._stream._ended

    async def aclose(self):
        """Break it off: the generator at its server is closed. Never waits. Harmless if it has ended."""
        self.close()

    def close(self):
        """The same, without `await`."""
        if not self._stream._ended:
            self._sent = True
            if self._stream._requests is None:
                self._stream._ended = True
            else:
                self._stream._give_up()
            self._looped.resume()    # another may have its entry
        self._wake()

    cdef int _wake(self) except -1:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
        return 0

    cdef int try_send(self, int line) except -2:
        """As `Looped.ask`."""
        self._looped._begin(line)
        self._sent = self._looped._requests.open_stream(self._stream, self._payload, self._sending, False)
        if self._sent:
            self._payload = None
            self._looped._connection.e.requests[self._stream._index].stream.owner = <void *>self
        self._line = self._looped._end(line, self._sent)
        return self._line

    async def _send(self):
        if not self._sent:
            await self._looped.line_up(self._line, lambda line: self.try_send(line), self._stream.type, self._sending)

    async def __anext__(self):
        cdef Message m
        if self._waits:
            raise RuntimeError("another task waits for the next part of this reply")
        self._waits = True
        try:
            if not self._sent:
                await self._send()
            if self._looped._taken >= PORTION:
                self._looped._taken = 0
                await self._looped.pause()
            self._looped._taken += 1
            m = self._stream._take()
            if m is None and not self._stream._ended:
                m = await self._next()
        except BaseException:
            self.close()
            raise
        finally:
            self._waits = False
        if m is None:
            raise StopAsyncIteration
        return m

    async def _next(self):
        """Wait for the next part; None: it has ended."""
        cdef Message m = None
        cdef uint64_t now = rb_now()
        self._until = min(deadline_after(self._stream._span, now), self._stream._whole.ns)
        self._pause = REPEAT
        self._again = now + REPEAT
        while m is None and not self._stream._ended:
            if rb_now() >= self._until:
                raise self._stream._elapsed(self._until)
            if self._error is not None:
                raise self._error
            self._looped.require()
            if self._looped._receiving.looped is None:
                raise EndpointClosed(endpoint=self._looped._connection.name)
            if self._await_part():
                self._future = self._looped.future()
                self._looped._streams.add(self)
                self._looped.expect(min(self._until, self._again))
                try:
                    await self._future
                finally:
                    self._future = None
                    self._looped._streams.discard(self)
            m = self._stream._take()
        return m

    cdef bint _await_part(self) noexcept:
        """False: there is one, or the end."""
        cdef bint waits
        ep_lock(self._looped._connection.e)
        waits = ep_await_part(self._looped._connection.e, self._stream._index)
        ep_unlock(self._looped._connection.e)
        return waits

    cdef int fail(self, object error) except -1:
        """It waits in vain, once the parts that have come are taken."""
        self._error = error
        return self._wake()

    cdef uint64_t look(self, uint64_t now) except 0:
        """It waits: until when at the most, before it is to be looked at again."""
        if now >= self._until:
            self._wake()
            return NEVER
        if now >= self._again:
            self._stream.repeat_credit()
            self._pause = min(2 * self._pause, REPEAT_MOST)
            self._again = now + self._pause
        return min(self._until, self._again)

    def __repr__(self):
        return repr(self._stream)
