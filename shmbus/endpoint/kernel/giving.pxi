# Replies in parts that a task gives: those of a handler that is an asynchronous generator.


@cython.final
cdef class Giving:
    """One of them. Its task takes part after part from the generator, and awaits credit and space between."""

    cdef Looped _looped
    cdef Outflows _outflows
    cdef Outflow _flow
    cdef uint64_t _limit_ns      # from one part to the next
    cdef bint closes             # the generator is being closed

    def __init__(self):
        raise TypeError(MAKERS[Giving])

    async def all(self, parts):
        """Send what the generator yields, to its end, or until nobody wants more. It is closed by then."""
        cdef Outflow f = self._flow
        cdef uint64_t before = rb_now(), now
        cdef uint32_t limit
        cdef int status
        cdef bint together = False
        try:
            while not self._outflows.unwanted(f):
                if f.o.sent >= f.o.granted:
                    if self._outflows.set_aside(f):
                        f.waiter = self._looped.future()
                        await f.waiter
                    continue
                if self._looped._taken >= PORTION:
                    self._looped._taken = 0
                    await self._looped.pause()
                self._looped._taken += 1
                limit = self._begin_limit()
                try:
                    value = await parts.__anext__()
                except StopAsyncIteration:
                    self.end(None)
                    return
                finally:
                    self._looped._threads.end_limit(limit)
                now = rb_now()
                together, before = now - before < QUICK, now
                status = self._outflows.put(f, value, together)
                while status == EP_PART_FULL and not self._outflows.unwanted(f):
                    await self._looped.space(f)
                    status = self._outflows.put_again(f, False)
                if status == EP_PART_TROUBLE:
                    break
        finally:
            f.waiter = None
            self.closes = True
            await parts.aclose()
        self.leave()

    cdef uint32_t _begin_limit(self) except? 0xffffffff:
        return self._looped._threads.begin_limit(self._flow.message, self._limit_ns) if self._limit_ns else EP_NO_LIMIT

    cdef int end(self, object error) except -1:
        """Those were all, or the generator has raised: behind the parts goes their end, as soon as there is space."""
        cdef int status
        status = self._outflows._finish(self._flow) if error is None else self._outflows._fail(self._flow, error)
        if status == EP_PART_FULL:
            self._outflows.await_space(self._flow)
        elif status != EP_PART_SENT:
            self.leave()
        return 0

    cdef int leave(self) except -1:
        """Nobody goes on with it, unless its end is still to be sent."""
        if not self._flow._owes:
            self._outflows.leave(self._flow)
        return 0
