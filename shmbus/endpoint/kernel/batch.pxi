# Messages that are published together.


@cython.final
cdef class Batch:
    """Messages that are published together; see `Endpoint.batch`."""

    cdef EndpointCore _endpoint
    cdef ep_batch_limits _limits
    cdef int64_t _count

    def __init__(self):
        raise TypeError(MAKERS[Batch])

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self._endpoint._outbox.flush()

    def publish(self, str type not None, payload=None, *, timeout=5.0, retain=False, urgent=False):
        """Send an event with this batch. Raises like `Endpoint.publish`, with its `index`."""
        self._endpoint._outbox.post(SB_EVENT, ways(retain, urgent), type, payload, timeout, &self._limits,
                                    self._count)
        self._count += 1

    def send(self, str type not None, payload=None, *, timeout=5.0):
        """Send a command with this batch."""
        self._endpoint._outbox.post(SB_SEND, 0, type, payload, timeout, &self._limits, self._count)
        self._count += 1

    def flush(self):
        """Publish what there is so far."""
        self._endpoint._connection.check()
        self._endpoint._outbox.flush()
