# What a receiver, a requester or an observer gets.

cdef object UNDECODED = object()

# Of a link that has gathered: [name, "reply" or "error", flags, payload] of each.
cdef object gathered_in = msgspec.msgpack.Decoder(list[tuple[str, Literal["reply", "error"], int, bytes]]).decode

cdef dict KINDS = words(Kind)
cdef dict OUTCOMES = words(Outcome)

@cython.final
cdef class Deferral:
    """A request that is to be answered later, as long as its message lives."""

    cdef Threads _threads
    cdef str _type
    cdef sb_record _header
    cdef bint _open

    cdef void settle(self) noexcept:
        """It is answered."""
        if self._open:
            self._open = False
            self._threads.settle()

    def __del__(self):
        try:
            if self._open:
                self._threads.fail_dropped(self._type, &self._header)
        finally:
            self.settle()


@cython.final
@cython.freelist(64)
cdef class Message:
    """A message as its receiver sees it, or a reply.

    `type`: what it is, and by what it was routed.
    `source`: the endpoint that sent it; of another bus, `NAME@SITE`.
    `lost`: how many messages this endpoint has lost since the one before; of another bus, also how many of its type
    were lost on the way here.

    `payload` is decoded when it is first read, to the type that the call, the callback's
    annotation or `attach(types=...)` names, and raises `DecodeError` where it is not of that type.
    """

    cdef Connection _connection
    cdef EndpointCore _endpoint  # that answers it, and is kept alive by it; None of a reply
    cdef readonly str type
    cdef readonly str source
    cdef readonly Origin _origin # of what came from another bus; else None
    cdef bytes _raw
    cdef Share _share            # where the payload lies in a pool; else None,
    cdef Viewed _viewed          # or a frame that lay in its record; or what was made of `_raw` to be viewed
    cdef bint _released          # its payload is not to be had any more,
    cdef Py_ssize_t _size        # and had so many bytes
    cdef object _payload
    cdef object _payload_type
    cdef sb_record _header
    cdef uint64_t _position      # in the ring while it is held for handing on
    cdef readonly uint32_t lost
    cdef uint64_t _alone         # the id of the one interest that it is for; 0: it is for all that match
    cdef uint64_t _lives         # SB_LIVE that its endpoint had taken with it
    cdef uint64_t _cancels       # of a request: so many of the ids that are withdrawn are not its own
    cdef uint64_t _granted       # of a request whose reply may come in parts: its first credit
    cdef bint _cancelled
    cdef bint _answered
    cdef bint _refused           # an answer was not accepted
    cdef bint _deferred
    cdef bint _nacked            # given back, or to be
    cdef uint32_t _jobs          # in an event loop: those that work on it
    cdef uint32_t _calling       # the interest whose callback runs; 0: none
    cdef uint32_t _settled       # of its interests as work: those that need nothing more, or are among `_copies`
    cdef uint32_t _delayed       # those that are to be given back later
    cdef uint32_t _delays        # how often it is deferred for that
    cdef Copies _copies          # those that go back once nothing else of it is in hand
    cdef uint32_t _gone          # those of which the copy is out before the others
    cdef bint _postponed         # ep_postpone was called,
    cdef uint64_t _held_as       # and returned this
    cdef Deferral _deferral      # while it is deferred; not part of what is made for every message
    cdef uint32_t _limited       # it has a limit of its own (`_limit`): its place, and one more; 0: none
    cdef sb_tap _tap
    cdef str _target             # of a tap's copy: who got it

    def __init__(self):
        raise TypeError(MAKERS[Message])

    def __class_getitem__(cls, payload_type):
        return types.GenericAlias(cls, payload_type)

    cdef void expect(self, object payload_type) noexcept:
        if payload_type is not self._payload_type:
            self._payload_type = payload_type
            self._payload = UNDECODED

    @property
    def payload(self):
        """The payload: bytes as they were sent, or the decoded value. Raises `DecodeError`, `PayloadReleased`."""
        payload = self._payload
        if payload is not UNDECODED:
            return payload
        if self._released:
            raise PayloadReleased(type=self.type, size=self._size)
        if self._payload_type is None and self._header.flags & SB_RAW and self._share is None:
            self._payload = self._raw
            return self._raw
        try:
            payload = self._connection.decoding.decode(self)
        except InvalidPayloadType:
            raise
        except Exception as why:
            self._connection.count(&self._connection.e.up.decode_errors)
            if isinstance(why, DecodeError):
                raise
            raise DecodeError(type=self.type, size=self.bytes_of(), reason=payloads.reason_of(why)) from why
        if not self._released:   # by another thread, meanwhile
            self._payload = payload
        return payload

    @property
    def kind(self):
        """event, send, request, reply, part, error, or tap for an observer's copy of any of them."""
        return KINDS.get(self._header.kind, "other")

    @property
    def tap(self):
        """Of a copy that a tap yields, what became of the message (`shmbus.Tap`); else None."""
        if self._header.kind != SB_TAP:
            return None
        return Tap(
            kind=KINDS.get(self._tap.kind, "other"),
            outcome=OUTCOMES.get(self._tap.outcome, "?"),
            target=self._target,
            sent_ns=self.sent_ns,
            forwarded_ns=self._tap.forwarded_ns,
        )

    @property
    def urgent(self):
        """Whether it was published as urgent."""
        return bool(self._header.flags & SB_URGENT)

    @property
    def size(self):
        """Bytes of the encoded payload."""
        return self.bytes_of()

    @property
    def correlation_id(self):
        """The request's `uuid.UUID`; None for events and commands."""
        cdef bytes identity = self._header.correlation[:16]
        if self._header.kind == SB_EVENT or identity == bytes(16):
            return None
        return uuid.UUID(bytes=identity)

    @property
    def sent_ns(self):
        """When it was sent, by this machine's CLOCK_MONOTONIC. If it comes from another bus, that is known as well as
        `sent_error_ns` says."""
        return self._header.sent_ns if self._origin is None else self._origin.o.sent_ns

    @property
    def sent_error_ns(self):
        """By how much `sent_ns` may be wrong either way, since the clocks of two machines were compared; None: it was
        sent on this bus, and `sent_ns` is exact."""
        return None if self._origin is None else self._origin.o.error_ns

    @property
    def site(self):
        """The site of the bus from which a link brought it; None: it was sent on this bus."""
        cdef tuple parts = self.source.rpartition("@")
        return parts[2] if parts[0] else None

    @property
    def deadline_ns(self):
        """When its requester stops waiting, by CLOCK_MONOTONIC; None: never."""
        return self._header.deadline_ns or None

    @property
    def redelivered(self):
        """Whether another receiver had it before, and died or gave it back."""
        return bool(self._header.flags & SB_REDELIVERED)

    @property
    def retained(self):
        """Whether the bus had kept it: it was published before its subscription began."""
        return bool(self._header.flags & SB_RETAINED)

    @property
    def attempt(self):
        """1, and one more for each receiver that had begun it and died, or gave it back. Of a request that is made
        with `retry=`, which attempt this is, as its requester says."""
        return self._header.attempt

    @property
    def cancelled(self):
        """Of a request: whether nobody waits for its reply any more. Its requester has withdrawn it
        (`cancel()`, a timeout, an exception while it waited) or has ended, or the deadline or the
        handler's limit is over. Of anything else False. Cheap enough to be asked in a loop."""
        if self._header.kind != SB_REQUEST or self._endpoint is None:
            return False
        if not self._cancelled and self._connection.ours():
            self._cancelled = (
                0 < self._header.deadline_ns <= rb_now()
                or not self._connection.peers.attached(self._header.peer, self._header.peer_generation)
                or self._withdrawn())
        return self._cancelled

    cdef bint _too_late(self) noexcept:
        """Whether its handler has seen that the deadline is over. What it returns then, or raises, is
        no answer: its requester is about to raise `RequestTimeout`, and must not get it just before."""
        return self._cancelled and 0 < self._header.deadline_ns <= rb_now()

    cdef bint _withdrawn(self) noexcept:
        cdef ep_endpoint *e = self._connection.e
        cdef bint withdrawn
        ep_lock(e)
        ep_drain_new_replies(e)
        withdrawn = ep_cancelled_since(e, self._header.correlation, self._cancels)
        self._cancels = e.cancels_seen
        ep_unlock(e)
        return withdrawn

    cdef Message twin(self, object payload_type):
        """The same for another callback, which has it decoded to its own type. Not of one that is held."""
        cdef Message m = Message.__new__(Message)
        m._connection, m._endpoint = self._connection, self._endpoint
        m.type, m.source, m.lost = self.type, self.source, self.lost
        m._origin = self._origin
        m._raw, m._share, m._viewed, m._header = self._raw, self._share, self._viewed, self._header
        m._released, m._size = self._released, self._size
        m._payload, m._payload_type = UNDECODED, payload_type
        m._tap, m._target = self._tap, self._target
        m._alone, m._lives = self._alone, self._lives
        m._position = SB_NOWHERE
        return m

    cdef inline Py_ssize_t bytes_of(self) noexcept:
        """Of its payload."""
        if self._released:
            return self._size
        if self._share is not None:
            return self._share.size()
        return PyBytes_GET_SIZE(self._raw) if self._viewed is None else self._viewed._size

    cdef inline const char *at(self) noexcept:
        """Where its payload is, if not in a pool."""
        return PyBytes_AS_STRING(self._raw) if self._viewed is None else self._viewed._at

    cdef bytes whole(self):
        """Its payload as bytes. It is no frame."""
        cdef Share share = self._share # also if another thread releases it meanwhile
        return self._raw if share is None else share.copied()

    cdef inline object data(self):
        """Its payload as it came: bytes, or what has the buffer protocol. It is no frame."""
        return self._raw if self._share is None else self._share

    cdef object viewable(self):
        """Likewise, where views of it are to be made."""
        if self._share is not None:
            return self._share
        if self._viewed is None:
            self._viewed = viewed_of(self._raw)
        return self._viewed

    cdef inline void unpin(self) noexcept:
        """It needs no handing on any more."""
        if self._share is not None:
            ep_unpin_share(self._share.at)
        if self._released:
            self._drop()

    cdef inline void _drop(self) noexcept:
        self._share, self._viewed, self._raw = None, None, b""

    cdef inline uint32_t work(self) noexcept:
        """For which of its interests it is work that somebody else could do: groups, or a command."""
        if self._header.kind == SB_EVENT:
            return self._header.interests & ~<uint32_t>SB_PLAIN
        return SB_PLAIN if self._header.kind == SB_SEND else 0

    cdef inline uint32_t owed(self) noexcept:
        """For which of them it is in hand, or to be given back later."""
        return self.work() & ~self._settled

    cpdef done(self):
        """This group message needs no handing on any more. Happens by itself when its callback
        returns or raises, and at the next receive in this thread. Nothing happens after `nack`."""
        if self._position != SB_NOWHERE:
            self._endpoint._threads.done(self, 0.0)
        if self._jobs:
            self._let_go()
        if self._limited:
            self.end_limit()

    def release(self):
        """The payload is not needed any more: where it is a large one, its sender can use that memory again. Happens by
        itself when the message and all that was made of its payload are dropped. `payload` raises `PayloadReleased`
        afterwards. Raises `BufferError` while arrays or other views of it are alive; then `payload` decodes it anew."""
        cdef Py_ssize_t count
        if self._released:
            return
        self._payload = UNDECODED
        count = self._share.views if self._share is not None else self._viewed.views if self._viewed is not None else 0
        if count:
            views = "1 view" if count == 1 else f"{count} views"
            raise BufferError(f"{views} of the payload of {self.type!r} still in use, such as arrays: drop them, or "
                              "copy what is needed for longer")
        self._size, self._released = self.bytes_of(), True
        if self._position == SB_NOWHERE:
            self._drop()

    def nack(self, delay=0.0, str reason not None=""):
        """Give this group message or command back, for another endpoint to have it, or this one
        where nobody else takes it. Its `attempt` is one higher then; after
        `Settings(max_deliveries=)` attempts it becomes a dead letter instead, with `reason`.
        `delay`: seconds before it is given on; so long it is in hand here. From any thread, until
        it is finished. What came for several groups of this endpoint is given on when its callbacks for all of
        them have returned, and the longest delay has passed.

        Raises `CannotNack` (no group, a request, finished or given back already), `InvalidSetting`,
        `QueueFull` (nothing was done: call it again), `MessageTooLarge`, `NoThread`, `Evicted`,
        `BusDown`, `EndpointClosed`."""
        self._connection.check()
        if self._endpoint is None:
            raise CannotNack(endpoint=self._connection.name, type=self.type, reason=f"it is a {self.kind}",
                             remedy="Give back only what a queue group or several handlers share")
        self._endpoint._nacks.nack(self, delay, reason)
        if self._jobs:
            self._let_go()

    def _nack_groups(self, names, str reason not None):
        """Likewise, of its groups for these alone."""
        cdef uint32_t bits = 0, owed = self.owed()
        cdef int bit
        for bit in range(1, 32):
            if owed >> bit & 1 and any(name in names for name in self._endpoint._callbacks.groups(1 << bit)):
                bits |= <uint32_t>1 << bit
        if bits:
            self._endpoint._nacks.give(self, copies_of(bits, encode_reason(reason), False), ANSWER_TIMEOUT)

    def _give_back(self, uint32_t bits, str reason not None, double timeout):
        """What is to be given back later is given back now."""
        self._endpoint._nacks.give_delayed(self, bits, reason, timeout)

    def defer(self):
        """Answer later, from any thread, with `reply` or `fail`: what the handler returns is not
        the reply. Keep the message until then: where it is dropped, its requester gets a `RemoteError`.
        `drain` waits for the answer. Raises `NotARequest`."""
        cdef Deferral deferral
        self._must_be_request()
        if not self._deferred and not self._answered:
            deferral = Deferral.__new__(Deferral)
            deferral._threads, deferral._type = self._endpoint._threads, self.type
            deferral._header = self._header
            deferral._threads.defer()
            deferral._open = True
            self._deferral = deferral
            self._deferred = True

    cpdef reply(self, payload=None):
        """Answer the request. The answer may overtake events that this endpoint published before it.
        Raises `NotARequest`, `AlreadyReplied`, `EncodeError` and
        `MessageTooLarge` (the requester then gets a `RemoteError`), `QueueFull` and `SegmentError` (nothing was
        sent: answer again, or `fail`), `EndpointClosed`."""
        self._claim_answer()
        try:
            self._endpoint._answers.reply(self, payload)
        except (EncodeError, MessageTooLarge) as error:
            self._endpoint._answers.fail(self, error)
            raise

    def fail(self, exception):
        """Answer the request with an exception: it is raised there as a `RemoteError`. Raises
        like `reply`."""
        self._claim_answer()
        self._endpoint._answers.fail(self, exception)

    def _limit(self, double seconds):
        """Its handler, which is at work, may take so many seconds from now on: then its requester gets
        `HandlerTimeout`, whatever the handler does. That ends when it answers, or returns. Nothing happens where the
        request is answered or deferred, or has such a limit. Raises `NotARequest`, `InvalidSetting`,
        `EndpointClosed`."""
        self._must_be_request()
        if not (self._answered or self._deferred or self._limited):
            self._limited = self._endpoint._threads.begin_limit(self, span_ns(seconds)) + 1  # EP_NO_LIMIT: 0

    cdef void end_limit(self) noexcept:
        """That of `_limit`."""
        cdef uint32_t limited = self._limited
        self._limited = 0
        if limited:
            self._endpoint._threads.end_limit(limited - 1)

    cdef int _must_be_request(self) except -1:
        self._connection.check()
        if self._header.kind != SB_REQUEST:
            raise NotARequest(type=self.type, kind=self.kind)
        return 0

    cdef int _claim_answer(self) except -1:
        self._must_be_request()
        if self._answered:
            raise AlreadyReplied(type=self.type, correlation_id=self.correlation_id)
        self._answered = True
        self.done()
        return 0

    # For links ---------------------------------------------------------------------------------------------------

    cdef inline void settle(self, bint yields):
        """It was just made of a reply: its payload is copied where it is to be (`Share.settle`)."""
        if self._share is not None:
            self._share.settle(yields)
        if self._origin is not None:
            if self._share is not None:
                take_shared_origin(self._origin, self._share)
            self.came_from(self._origin)

    cdef void came_from(self, Origin origin):
        """It is of another bus, if that says so; else it is as any other."""
        self._origin = origin if origin.o.site[0] else None
        if self._origin is None:
            self._header.flags &= ~<uint16_t>SB_RELAYED
            return
        self.source = name_of(&origin.o)
        self.lost = min(<uint64_t>self.lost + origin.o.lost, <uint64_t>0xffffffff)

    cdef inline Py_ssize_t whole_size(self) noexcept:
        """Bytes of its payload as it goes on to others, with its origin."""
        if self._share is not None:
            return <Py_ssize_t>ep_share_size(self._share.at)
        return self.bytes_of() + (ORIGIN if self._origin is not None else 0)

    cdef bytes with_origin(self):
        """Its payload likewise, where that is not in a pool."""
        cdef Py_ssize_t size = self.bytes_of()
        return self.at()[:size] + (<const char *>&self._origin.o)[:ORIGIN]

    def _keep(self):
        """In an event loop: this group message or command stays in hand until `done` or `nack`, whatever is received
        meanwhile, and beside those that are worked on. When its endpoint leaves it is given back. As many as
        `Settings(hold_limit=)` are handed on where this process dies. False: it is done, or was neither."""
        cdef Looped looped = self._endpoint._receiving.looped if self._endpoint is not None else None
        return looped is not None and self._jobs and self._position != SB_NOWHERE and looped.keep(self)

    cdef int _let_go(self) except -1:
        """It is not kept any more, if it was. Its endpoint may have left."""
        cdef Looped looped = self._endpoint._receiving.looped
        if looped is not None:
            looped.let_go(self)
        return 0

    def _encoded(self):
        """Its payload as it came: `Encoded`. A large one is not copied, and stays where it is as long as that lives.
        Raises `PayloadReleased`."""
        if self._released:
            raise PayloadReleased(type=self.type, size=self._size)
        cdef uint16_t flags = self._header.flags & FORMATS
        if self._share is not None:
            return Encoded(flags, memoryview(self._share), self._origin)
        return Encoded(flags, self._raw if self._viewed is None else memoryview(self._viewed), self._origin)

    def _passing(self):
        """What a link needs to pass it on: bits, and for which groups it came. Bits 0 to 15 are flags as a record has
        them, 16: it is an event, 17: it came for subscriptions without a group."""
        cdef uint32_t bits = self._header.flags & (FORMATS | SB_RETAIN | SB_URGENT)
        cdef uint32_t interests = 0
        if self._header.kind == SB_EVENT:
            interests = self._header.interests
            bits |= 1 << 16 | (1 << 17 if interests & SB_PLAIN else 0)
        interests &= ~<uint32_t>SB_PLAIN
        return bits, self._endpoint._callbacks.groups(interests) if interests else ()

    @property
    def _plain(self):
        """Whether it is an event that came for subscriptions without a group."""
        return bool(self._header.kind == SB_EVENT and self._header.interests & SB_PLAIN)

    @property
    def _groups(self):
        """The queue groups for which it came, as a member of each."""
        cdef uint32_t bits = self._header.interests & ~<uint32_t>SB_PLAIN
        if self._header.kind != SB_EVENT or not bits:
            return ()
        return self._endpoint._callbacks.groups(bits)

    @property
    def _retains(self):
        """Whether the bus keeps it, or has kept it."""
        return bool(self._header.kind == SB_EVENT and self._header.flags & (SB_RETAIN | SB_RETAINED))

    @property
    def _directed(self):
        """Whether it is a request for this endpoint alone: somebody gathers."""
        return bool(self._header.kind == SB_REQUEST and self._header.flags & SB_DIRECTED)

    @property
    def _streams(self):
        """Whether its reply may come in parts."""
        return bool(self._header.kind == SB_REQUEST and self._header.flags & SB_STREAM)

    def _gathered(self):
        """What a link has gathered of others, by `NAME@SITE`, from its reply: the reply of each, or the error. Raises
        `DecodeError`."""
        cdef dict found = {}
        cdef Message m
        try:
            for name, kind, flags, content in gathered_in(self.data()):
                if kind == "error":
                    found[name] = remote_error(self.type, name, content)
                    continue
                m = self.twin(self._payload_type)
                m.source, m._raw, m._share, m._viewed = name, content, None, None
                m._header.flags = flags & FORMATS
                found[name] = m
        except msgspec.MsgspecError as why:
            raise DecodeError(type=self.type, size=self.bytes_of(), reason=payloads.reason_of(why)) from why
        return found

    def _fail_as(self, error not None):
        """Answer the request with an error that its requester raises as one of this class, with the same facts. Raises
        like `reply`."""
        self._claim_answer()
        self._endpoint._answers.fail(self, Passed(error))

    def __repr__(self):
        return f"<{self.kind} {self.type!r} from {self.source!r}, {self.bytes_of()} bytes>"
