# The endpoint: its parts, and what its callers call for every message.


@cython.no_gc_clear              # the collector clears neither it nor its parts while anything can call them
cdef class EndpointCore:
    """The native half of an endpoint."""

    cdef readonly Connection _connection
    cdef readonly Requests _requests
    cdef Receiving _receiving
    cdef Threads _threads
    cdef CallbackTable _callbacks
    cdef Outbox _outbox
    cdef Answers _answers
    cdef Nacks _nacks
    cdef readonly Outflows _outflows
    cdef Matches _matches

    def __cinit__(self, seat=None, upcalls=None, **_):
        """Make its parts; from here on the watcher thread serves it."""
        if seat is None or upcalls is None:
            raise TypeError("use shmbus.attach()")
        self._connection = Connection(seat, upcalls.explain_trouble, upcalls.explain_full,
                                      upcalls.explain_silence, upcalls.open_mailbox)
        self._threads = Threads(self._connection)
        self._outbox = Outbox(self._connection, seat.codec, seat.settings.batch, upcalls)
        self._answers = Answers(self._connection, self._outbox, self._threads)
        self._requests = Requests(self._connection, self._outbox, self._threads, upcalls)
        self._matches = Matches(self._connection)
        self._callbacks = CallbackTable(upcalls.patterns, upcalls.callbacks, upcalls.late, upcalls.groups)
        self._nacks = Nacks(self._connection, self._threads, self._outbox, upcalls.postpone)
        self._outflows = Outflows(self._connection, self._outbox, self._answers, self._threads)
        self._receiving = Receiving(self._connection, self._threads, self._callbacks, self._nacks, self._outflows,
                                    upcalls.explain_unmapped)

    @property
    def name(self):
        """The only one of that name on the bus."""
        return self._connection.name

    @property
    def reconnect(self):
        """Whether calls wait for the next dispatcher where one dies, as `attach` was told."""
        return self._connection.reconnect

    @property
    def native_address(self):
        """Where its `struct ep_endpoint` lies, for native code in this process that includes
        shmbus/endpoint/native/wait.h. Valid until it is closed."""
        self._connection.check()
        return <uintptr_t>self._connection.e

    # Sending ---------------------------------------------------------------------------------

    def publish(self, str type not None, payload=None, *, timeout=5.0, retain=False, urgent=False):
        """Send an event to all who subscribe to a matching pattern.

        It is accepted when this returns. `payload`: bytes, None, arrays of numpy, or what msgspec encodes, of any size
        up to `Settings(pool_bytes=)`. `timeout`: seconds to wait while this endpoint's ring, or its pool, is full; None
        waits for ever. `retain`: the bus keeps it for those who subscribe later with `history`; None as the payload
        lets go of what it kept of this type. `urgent`: it overtakes events that are not urgent where it is received.
        Raises `QueueFull`, `MessageTooLarge`, `EncodeError`, `InvalidType`, `Forbidden`, `BusDown`, `EndpointClosed`.
        """
        self._outbox.post(SB_EVENT, ways(retain, urgent), type, payload, timeout, self._outbox.always(), ALONE)

    def send(self, str type not None, payload=None, *, timeout=5.0):
        """Send a command to the one endpoint that handles the most specific matching pattern.

        No reply comes; where no endpoint handles it, it becomes a dead letter. Raises like `publish`.
        """
        self._outbox.post(SB_SEND, 0, type, payload, timeout, self._outbox.always(), ALONE)

    def publish_many(self, items, *, timeout=5.0):
        """Send events, given as pairs of type and payload, with one publication and one bell for
        many of them. Raises like `publish`, with the `index` of the message that failed; those
        before it are accepted."""
        self._outbox.post_many(items, timeout)

    def loan(self, str type not None, nbytes, *, align=64, retain=False, urgent=False, timeout=5.0):
        """Memory for an event of `nbytes` bytes, to be filled in place: nothing is copied on its way to any receiver.
        Use it in a `with` statement: `loan.data` is a writable memoryview of it. At the end it is published, as bytes;
        where the block raises, it is given back instead.

        Not initialised: an earlier payload of this endpoint may still stand there. `align`: it begins at a multiple of
        so many bytes, a power of two, 4096 at most; a receiver's copy of it of 64 in any case. `timeout`: seconds to
        wait for memory, and again for space in this endpoint's ring. `retain`, `urgent`: as with `publish`. Raises
        `InvalidSetting`, and like `publish`; what has to wait is raised when the block is entered, or left.
        """
        return lend_bytes(self._outbox, type, nbytes, align, retain, urgent, timeout)

    def loan_array(self, str type not None, shape, dtype, *, order="C", retain=False, urgent=False, timeout=5.0):
        """Like `loan`, but of an array of numpy: `loan.array`, of this shape, dtype and order (C or F), is filled in
        place and then published as an array. Afterwards it is read-only."""
        return lend_array(self._outbox, type, shape, dtype, order, retain, urgent, timeout)

    def batch(self, *, max_messages=256, max_bytes=None, max_delay=None):
        """A batch for this thread, to be used in a `with` statement: its messages are published
        together, after `max_messages` of them, `max_bytes` (at most a quarter of the ring) or
        `max_delay` seconds, and at the end, also when that is an exception. Raises
        `InvalidSetting`."""
        self._connection.check()
        BatchLimits(max_messages=max_messages, max_bytes=max_bytes, max_delay=max_delay)
        cdef Batch batch = Batch.__new__(Batch)
        batch._endpoint = self
        batch._limits = self._outbox.limits(max_messages, max_bytes, max_delay)
        return batch

    def request(self, str type not None, payload=None, *, timeout=5.0, reply_type=None, retry=None,
                bint inherit_deadline=True):
        """Send a request to the endpoint that handles the most specific matching pattern, and wait
        for its reply.

        The reply may come before events that the handler published earlier: it has a way of its
        own; it has 64 KiB at most, unless `Settings(reply_bytes=)` is larger. `timeout`: seconds; None
        waits for ever. `reply_type`: what the reply's payload is decoded to. `retry`: a `Retry`, for
        requests that may be handled more than once: the errors after which to ask again, all within
        the one timeout. `inherit_deadline`: inside a handler, end at the latest with the request that
        it serves. Raises `RequestTimeout`, `NoRoute`, `EndpointDied`, `RemoteError`, `ReplyLost`,
        `RequestsFull`, `BusDown`, `InvalidSetting`, and like `publish`.
        """
        cdef Deadline deadline = until(timeout, in_force() if inherit_deadline else None)
        if retry is not None:
            return ask_again(self, type, payload, deadline, reply_type, retry)
        return self._requests.ask(type, payload, deadline, reply_type, 1)

    def request_async(self, str type not None, payload=None, *, timeout=5.0, reply_type=None,
                      bint inherit_deadline=True):
        """Like `request`, but returns a `concurrent.futures.Future` of the reply at once; waits
        only where this endpoint's ring, or its table of requests, is full. `result()` waits in the
        calling thread; callbacks are called in a thread of the endpoint's own. There is no `retry`: a
        thread that waits can use `request`. Raises `NoThread`, `RequestTimeout` (the deadline that it
        inherits has passed), and like `publish`; the future has the errors of `request`."""
        return self._requests.ask_later(type, payload, until(timeout, in_force() if inherit_deadline else None),
                                        reply_type)

    def stream(self, str type not None, payload=None, *, timeout=5.0, total=None, part_type=None,
               bint inherit_deadline=True):
        """Send a request to the endpoint that handles the most specific matching pattern, and iterate over its reply,
        which comes in parts: each is what the handler yields. The reply of a handler that does not is one part.

        Parts come as they are taken: one that is slow to take them makes the handler wait, and nobody else. Use it in a
        `with` statement, or `close` it, where not all are taken: then the handler's generator is closed.
        `timeout`: seconds to wait for each part; `total`: for all of them (None: for ever). `part_type`: what their
        payloads are decoded to. `inherit_deadline`: inside a handler, end at the latest with the request that it
        serves. Raises like `request`; what ends the reply half-way is raised after the parts before it.
        """
        cdef Deadline outer = in_force() if inherit_deadline else None
        cdef Stream stream = Stream.__new__(Stream)
        stream._endpoint, stream.type, stream._part_type = self, type, part_type
        stream._whole = until(total, outer, None, "total")
        stream._timeout, stream._span = timeout, span_ns(timeout)
        self._requests.open_stream(stream, payload, until(timeout, stream._whole), True)
        return stream

    # Others ----------------------------------------------------------------------------------

    def matched(self, str type not None, *, bint handlers=False):
        """How many endpoints would get an event of this type: those that subscribe to it, and the members of
        groups that do, this endpoint included. `handlers`: how many handle commands and requests of it, by the
        most specific pattern or not. `type` may be a pattern: then of any type that it matches.

        It costs no more than a look while nobody's interests change, also while the bus has no dispatcher;
        else a round trip to the dispatcher. Raises `InvalidPattern`, `BusDown` (the bus has ended), `EndpointClosed`.
        """
        self._connection.check()
        known = self._matches.known(type, handlers)
        return self._count_matches(type, handlers) if known is None else known

    def _learn_matches(self, str type not None, Found found not None):
        self._matches.learn(type, found)

    @property
    def _awaited(self):
        """Whether a thread waits for a message, in an iteration or `receive`."""
        return self._threads._waiting > 0

    # Receiving -------------------------------------------------------------------------------

    def _run(self, *, bint reconnect, timeout=None):
        """Run callbacks in this thread until close() or drain(), for `timeout` seconds at most."""
        self._receiving.run(self, reconnect, timeout)

    def _receive(self, timeout):
        """The next message for the caller; None at the timeout. Raises `EndpointClosed` at the end."""
        return self._next(timeout, YIELD)

    def _receive_rest(self):
        """Like `_receive`, of what is there; None at the end, too."""
        return self._next(0.0, YIELD | AT_END_RETURN)

    cdef Message _next(self, object timeout, int how):
        self._connection.check()
        cdef uint64_t deadline = NEVER if timeout is None else deadline_after(span_ns(timeout), rb_now())
        return self._receiving.next(self, deadline, how | AWAIT_SUCCESSOR if self._connection.reconnect else how)

    def _messages(self):
        """An iterator over the messages that have no callback, until the endpoint is closed."""
        self._connection.check()
        cdef Iteration iteration = Iteration.__new__(Iteration)
        iteration._endpoint = self
        return iteration

    def _forget_callbacks(self, *, bint redelivers):
        """An interest has changed; `redelivers`: some handler is redeliver=True."""
        self._callbacks.forget(redelivers)

    @property
    def _received(self):
        """Whether a thread has received at least once."""
        return self._receiving.begun

    def _data_waits(self):
        return self._connection.data_waits()

    # Ending ----------------------------------------------------------------------------------

    def _unfinished(self):
        """Messages received and not done, without the one whose handler calls this."""
        return self._threads.unfinished()

    def _work_in_hand(self):
        """The bits of all groups of which messages are in hand, or to be given back later."""
        return self._threads.work_in_hand() | self._nacks.work_postponed()

    def _deferred(self):
        """Requests that are to be answered later."""
        return self._connection.e.deferred

    def _shut(self, timeout):
        """Wait until all threads have left their calls, which `Connection.finish` has ended."""
        try:
            self._connection.shut(timeout)
        finally:
            self._threads.drop_all()


@cython.final
cdef class Iteration:
    """One iteration over the messages of an endpoint."""

    cdef EndpointCore _endpoint

    def __init__(self):
        raise TypeError(MAKERS[Iteration])

    def __iter__(self):
        return self

    def __next__(self):
        cdef EndpointCore endpoint = self._endpoint
        endpoint._connection.check()
        if endpoint._threads.runners:
            raise inside_run(endpoint._connection.name)
        cdef Message m = endpoint._next(None, YIELD | AT_END_RETURN)
        if m is None:
            raise StopIteration
        return m
