# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
"""A worker's end of the bus, natively: messages, and what is done for each of them."""

import logging
import threading
import time
import traceback
import types
import uuid

import msgspec

from shmbus.endpoint import payloads
from shmbus.errors import (
    AlreadyReplied,
    BusDown,
    BusError,
    DecodeError,
    EncodeError,
    EndpointClosed,
    Evicted,
    ForkedEndpoint,
    MessageTooLarge,
    NotARequest,
    NotSupported,
    QueueFull,
    RequestsFull,
    RequestTimeout,
)
from shmbus.shared.failures import encode_failure, remote_error
from shmbus.shared.layout import Kind, Outcome, words
from shmbus.endpoint.futures import Reply
from shmbus.shared.patterns import check_type
from shmbus.settings import Batch as BatchSettings

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.ref cimport PyObject
from libc.errno cimport EINVAL, errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset


cdef uint64_t SECOND = 1000000000
cdef uint64_t SLICE = 1000000000        # a wait's longest sleep: nothing relies on it, all is woken by bells
cdef uint64_t SLICE_MAIN = 250000000    # a signal may come between Python's look and the sleep
cdef Py_ssize_t LARGE = 32768           # bytes; what is copied with Python's lock let go
cdef Py_ssize_t SCRATCH = 65536         # bytes; an encoding buffer that grew beyond is not kept
cdef int TYPES = 4096                   # names that one endpoint remembers as valid

cdef object log = logging.getLogger("shmbus")
cdef object UNDECODED = object()
cdef object decode_payload = payloads.decode
cdef object make_decoder = payloads.decoder
cdef object unpack = msgspec.msgpack.Decoder().decode
cdef unsigned long main_thread = threading.main_thread().ident

cdef uint64_t MAX_ACCOUNT = 16384       # bytes of a failure's account; more would only crowd the requester's ring


def after_fork():
    """In a forked child: the thread that forked is its main thread."""
    global main_thread
    main_thread = PyThread_get_thread_ident()


def up_size(uint64_t data_bytes, uint64_t reply_bytes, uint64_t requests):
    """Bytes of an endpoint's own segment."""
    return ep_up_size(data_bytes, reply_bytes, requests)


def prepare_up(mapping, *, uint32_t pid, uint32_t uid, uint64_t start_time, uint64_t pid_namespace,
               uint64_t time_namespace, uint64_t nonce, bytes name, uint64_t data_bytes, uint64_t reply_bytes,
               uint64_t requests):
    """Write all that an endpoint's own segment says before anybody may open it."""
    cdef sb_identity identity
    if <uint64_t>len(mapping) < ep_up_size(data_bytes, reply_bytes, requests) or len(name) >= SB_NAME:
        raise ValueError("the segment is too small, or the name too long")
    identity.pid, identity.uid, identity.start_time = pid, uid, start_time
    identity.pid_namespace, identity.time_namespace = pid_namespace, time_namespace
    cdef uintptr_t address = mapping.address
    ep_up_prepare(<sb_up *>address, &identity, nonce, name, data_bytes, reply_bytes, requests)


def append_interest(log, uint8_t op, uint8_t role, uint8_t bit, uint8_t flags, uint64_t id, bytes pattern,
                    bytes group):
    """Add to the log in the mapping `log`: False where it is full."""
    cdef ep_interest_log at
    cdef sb_interest entry
    cdef uintptr_t address = log.address
    at.segment = <sb_interests *>address
    at.size = len(log)
    entry.op, entry.role, entry.bit, entry.flags, entry.id = op, role, bit, flags, id
    entry.pattern_length, entry.group_length = len(pattern), len(group)
    return ep_append_interest(&at, &entry, pattern, group)


cdef enum: ALONE = -1 # the index of a message that is none of many


cdef object number_of(int64_t index):
    """The index as errors tell it."""
    return None if index == ALONE else index


cdef inline uint64_t deadline_after(uint64_t span, uint64_t now) noexcept:
    return NEVER if span == NEVER else now + span


cdef object recent_type = None          # a receiver mostly gets one type after the other
cdef object recent_decoder = unpack


cdef inline object decoder_of(object payload_type):
    """From MessagePack to `payload_type`."""
    global recent_type, recent_decoder
    if payload_type is None:
        return unpack
    if payload_type is not recent_type:
        recent_decoder = make_decoder(payload_type)
        recent_type = payload_type
    return recent_decoder


@cython.final
@cython.freelist(64)
cdef class Message:
    """A message as its receiver sees it, or a reply.

    `payload` is decoded when it is first asked for, to the type that the call, the callback's
    annotation or `attach(types=...)` names, and raises `DecodeError` where it is not of that type.
    """

    cdef EndpointCore _endpoint
    cdef readonly str type
    cdef readonly str source
    cdef bytes _raw
    cdef object _payload
    cdef object _payload_type
    cdef sb_record _header
    cdef uint64_t _position   # in the ring while it is held for handing on
    cdef readonly uint32_t lost
    cdef bint _answered
    cdef bint _refused       # an answer was not accepted
    cdef bint _deferred
    cdef sb_tap _tap

    def __init__(self):
        raise TypeError("messages are made by the bus; publish(), send() or request() one")

    def __class_getitem__(cls, payload_type):
        return types.GenericAlias(cls, payload_type)

    cdef void _expect(self, object payload_type) noexcept:
        if payload_type is not self._payload_type:
            self._payload_type = payload_type
            self._payload = UNDECODED

    @property
    def payload(self):
        """The payload: bytes as they were sent, or the decoded value. Raises `DecodeError`."""
        if self._payload is UNDECODED:
            if self._payload_type is None and self._header.flags & SB_RAW:
                self._payload = self._raw
            else:
                if not self._header.flags & (SB_RAW | SB_NONE):
                    try:
                        self._payload = decoder_of(self._payload_type)(self._raw)
                        return self._payload
                    except Exception:
                        pass   # said below
                try:
                    self._payload = decode_payload(
                        self._header.flags & (SB_RAW | SB_NONE), self._raw, self._payload_type, type=self.type
                    )
                except DecodeError:
                    self._endpoint._count(&self._endpoint._e.up.decode_errors)
                    raise
        return self._payload

    @property
    def kind(self):
        """event, send, request, reply, error, or tap for an observer's copy of any of them."""
        return KINDS.get(self._header.kind, "other")

    @property
    def tap(self):
        """Of a copy that a tap yields, what became of the message (`shmbus.Tap`); else None."""
        if self._header.kind != SB_TAP:
            return None
        from shmbus.shared.messages import Tap
        return Tap(
            kind=KINDS.get(self._tap.kind, "other"),
            outcome=OUTCOMES.get(self._tap.outcome, "?"),
            target=self._endpoint._source_of(self._tap.target, self._tap.target_generation)
            if self._tap.target != SB_FROM_BUS else None,
            sent_ns=self._header.sent_ns,
            forwarded_ns=self._tap.forwarded_ns,
        )

    @property
    def size(self):
        """Bytes of the encoded payload."""
        return len(self._raw)

    @property
    def correlation_id(self):
        """The request's `uuid.UUID`; None for events and commands."""
        cdef bytes identity = self._header.correlation[:16]
        return None if identity == bytes(16) else uuid.UUID(bytes=identity)

    @property
    def sent_ns(self):
        """When it was sent, by CLOCK_MONOTONIC."""
        return self._header.sent_ns

    @property
    def deadline_ns(self):
        """When nobody waits for the reply any more, by CLOCK_MONOTONIC; None: never."""
        return self._header.deadline_ns or None

    @property
    def redelivered(self):
        """Whether it was handed on when another receiver died."""
        return bool(self._header.flags & SB_REDELIVERED)

    @property
    def attempt(self):
        """1, and one more for each receiver that had begun it and died."""
        return self._header.attempt

    def done(self):
        """This group message needs no handing on any more. Happens by itself when its callback
        returns or raises, and at the next receive in this thread."""
        if self._position != SB_NOWHERE:
            self._endpoint._message_done(self)

    def defer(self):
        """Answer later, from any thread, with `reply` or `fail`: what the handler returns is not
        the reply. Raises `NotARequest`."""
        self._must_be_request()
        if not self._deferred and not self._answered:
            self._deferred = True
            self._endpoint._count_deferred(1)

    def reply(self, payload=None):
        """Answer the request. Raises `NotARequest`, `AlreadyReplied`, `EncodeError` and
        `MessageTooLarge` (the requester then gets a `RemoteError`), `QueueFull` (nothing was sent:
        answer again), `EndpointClosed`."""
        self._claim_answer()
        try:
            self._endpoint._answer(self, payload)
        except (EncodeError, MessageTooLarge) as error:
            self._endpoint._answer_failure(self, error)
            raise

    def fail(self, exception):
        """Answer the request with an exception: it is raised there as a `RemoteError`. Raises
        like `reply`."""
        self._claim_answer()
        self._endpoint._answer_failure(self, exception)

    cdef int _must_be_request(self) except -1:
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

    def __repr__(self):
        return f"<{self.kind} {self.type!r} from {self.source!r}, {len(self._raw)} bytes>"


KINDS = words(Kind)
OUTCOMES = words(Outcome)
RINGS = ("incoming data", "incoming reply", "outgoing data", "outgoing reply")


@cython.final
cdef class Route:
    """What an endpoint does with messages of one type."""

    cdef tuple callbacks         # (bit, function, payload type) of each subscription that has one
    cdef uint32_t yields         # bits of those that have none
    cdef object handler          # or None
    cdef object handler_type
    cdef object payload_type     # of what is yielded
    cdef bint redeliver

    def __init__(self, callbacks, yields, handler=None, handler_type=None, payload_type=None, redeliver=False):
        self.callbacks = callbacks
        self.yields = yields
        self.handler = handler
        self.handler_type = handler_type
        self.payload_type = payload_type
        self.redeliver = redeliver


@cython.final
cdef class Iteration:
    """One iteration over an endpoint's messages."""

    cdef EndpointCore _endpoint

    def __iter__(self):
        return self

    def __next__(self):
        cdef EndpointCore endpoint = self._endpoint
        endpoint._check()
        if endpoint._runners:
            endpoint._refuse_receiving()
        cdef Message m = endpoint._next(NEVER, True, True, endpoint.reconnect)
        if m is None:
            raise StopIteration
        return m


cdef struct Hand:                # a thread that has a message in hand
    unsigned long thread
    PyObject *held               # that message, if it is held for handing on


@cython.no_gc_clear              # the watcher thread looks at the mappings until __dealloc__
cdef class EndpointCore:
    """The native half of an endpoint."""

    cdef ep_endpoint *_e
    cdef sem_t *_dispatcher_bell
    cdef sem_t *_own_bell
    cdef readonly str name
    cdef object _mappings
    cdef readonly bint reconnect
    cdef dict _valid             # types that may be sent
    cdef object _encode_into
    cdef bytearray _scratch
    cdef bint _batching
    cdef ep_batch_limits _batch
    cdef dict _routes            # by type
    cdef bint _redelivers       # some handler is redeliver=True
    cdef list _sources           # names by slot
    cdef uint32_t *_source_generations
    cdef PyObject *_types[256]   # of received messages, by hash
    cdef PyObject *_last_type    # one of them
    cdef Hand _hands[64]
    cdef uint32_t _hand_count
    cdef int64_t _deferred_count
    cdef readonly int _runners   # threads inside run()
    cdef readonly int _iterators # threads inside iteration or receive, waiting
    cdef readonly bint _received # somebody has received at least once
    cdef bint _closing           # nobody begins anything any more
    cdef dict _futures           # index -> (future, type, reply_type, seconds, deadline)

    def __cinit__(self, *args, **kwargs):
        self._valid = {}
        self._routes = {}
        self._futures = {}
        self._sources = []
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._scratch = bytearray(512)

    def __dealloc__(self):
        cdef int i
        if self._e != NULL:
            if not ep_forked(self._e.fork_mark):
                ep_watcher_remove(self._e)
            ep_free(self._e)
            free(self._e)
        if self._dispatcher_bell != NULL:
            sem_close(self._dispatcher_bell)
        if self._own_bell != NULL:
            sem_close(self._own_bell)
        free(self._source_generations)
        for i in range(256):
            Py_XDECREF(self._types[i])

    def _open(self, *, bus, ready, up, down, str name, bytes dispatcher_bell, bytes own_bell,
              uint64_t random, uint32_t spin_ns, bint step_aside, uint32_t hold_limit, bint reconnect, batch):
        """Take over mappings that were opened and checked; from here on it is attached natively."""
        cdef uintptr_t bus_at = bus.address, ready_at = ready.address, up_at = up.address, down_at = down.address
        cdef const sb_bus *the_bus = <const sb_bus *>bus_at
        cdef const sb_down *the_down = <const sb_down *>down_at
        if not ep_down_sound(the_down, len(down), <sb_up *>up_at):
            raise ValueError("what the dispatcher made for this endpoint is not what was asked for")
        if the_down.slot >= the_bus.slots or <uint64_t>len(ready) < 64 + 4 * the_bus.slots:
            raise ValueError("the ready page is too small")
        if the_bus.rows_offset + the_bus.slots * sizeof(sb_row) > <uint64_t>len(bus):
            raise ValueError("the bus is smaller than its slots")
        self.name = name
        self.reconnect = reconnect
        self._dispatcher_bell = self._open_bell(dispatcher_bell)
        self._own_bell = self._open_bell(own_bell)
        self._mappings = (bus, ready, up, down)
        self._sources = [""] * <Py_ssize_t>the_bus.slots
        self._source_generations = <uint32_t *>calloc(the_bus.slots, sizeof(uint32_t))
        if self._source_generations == NULL:
            raise MemoryError
        if not ep_fork_watch():
            if errno != EINVAL:
                raise OSError(errno, "no page could be had by which to tell forked children")
            raise NotSupported(feature="attaching", reason="this system cannot tell forked children (MADV_WIPEONFORK)",
                               remedy="Use Linux 4.14 or newer")
        cdef ep_endpoint *e = <ep_endpoint *>calloc(1, sizeof(ep_endpoint))
        if e == NULL:
            raise MemoryError
        if not ep_open(e, the_bus, <sb_ready *>ready_at, <sb_up *>up_at, the_down, self._dispatcher_bell,
                       self._own_bell, random, spin_ns, step_aside, hold_limit):
            ep_free(e)
            free(e)
            raise MemoryError
        self._e = e
        if batch is not None:
            self._batching = True
            self._batch = self._limits(batch.max_messages, batch.max_bytes, batch.max_delay)
        cdef int failed = ep_watcher_add(e)
        if failed:
            raise OSError(failed, "the watcher thread could not be started")

    @property
    def native_address(self):
        """Where its `struct ep_endpoint` lies, for native code in this process that includes
        shmbus/endpoint/native/wait.h. Valid until it is closed."""
        self._check()
        return <uintptr_t>self._e

    cdef sem_t *_open_bell(self, bytes name) except NULL:
        cdef sem_t *bell = sem_open(name, 0)
        if bell == SEM_FAILED:
            raise OSError(errno, f"bell {name.decode()} could not be opened")
        return bell

    cdef ep_batch_limits _limits(self, object max_messages, object max_bytes, object max_delay):
        cdef ep_batch_limits limits
        limits.messages = max_messages if max_messages is not None else NEVER
        limits.bytes = rb_largest_record(self._e.out[SB_DATA].capacity)
        if max_bytes is not None and max_bytes < limits.bytes:
            limits.bytes = max_bytes
        limits.delay_ns = 0 if max_delay is None else max(<uint64_t>span_ns(max_delay), <uint64_t>1)
        return limits

    # What stands in the way ------------------------------------------------------------------

    cdef inline int _check(self) except -1:
        if not self._ours():
            self._refuse()
        return 0

    cdef inline bint _ours(self) noexcept:
        """Whether this process attached: a forked child may not even take the lock."""
        return self._e != NULL and not ep_forked(self._e.fork_mark)

    cdef int _refuse(self) except -1:
        if self._e == NULL:
            raise EndpointClosed(endpoint=self.name or "?")
        raise ForkedEndpoint(endpoint=self.name, pid=self._e.up.identity.pid)

    cdef int _raise_trouble(self, uint64_t trouble) except -1:
        raise self._explain_trouble(trouble)

    def _trouble_now(self):
        """What stands in the way: bits of enum ep_trouble."""
        if self._e == NULL:
            return EP_CLOSED_HERE
        ep_lock(self._e)
        cdef uint64_t trouble = ep_trouble(self._e)
        ep_unlock(self._e)
        return trouble

    cdef inline uint64_t _minds(self) noexcept:
        return EP_FOR_GOOD if self.reconnect else EP_FOR_GOOD | EP_FOR_NOW

    cdef int _wait(self, uint32_t want, uint32_t index, uint64_t value, uint64_t minds, bint vigilant,
                   uint64_t deadline) except -2:
        """See struct ep_waiter. 1: what it wants is there. 0: the deadline has come. -1: whoever receives
        shall come to an end. Raises what else stands in the way, and what Python's signal handlers raise."""
        cdef ep_waiter w
        cdef rb_wake wake
        cdef uint64_t now, until
        cdef uint64_t slice = SLICE_MAIN if PyThread_get_thread_ident() == main_thread else SLICE
        w.want, w.index, w.value, w.minds, w.vigilant = want, index, value, minds, vigilant
        while True:
            now = rb_now()
            until = now + slice
            if until > deadline:
                until = deadline
            with nogil:
                wake = ep_wait(self._e, &w, until)
            if wake == RB_READY:
                if minds & EP_STOPPING and w.trouble & (EP_STOPPING | EP_CLOSED_HERE):
                    return -1
                if w.trouble:
                    self._raise_trouble(w.trouble)
                return 1
            PyErr_CheckSignals()
            self._check()          # the handler may have forked
            if wake == RB_ELAPSED and until >= deadline:
                return 0

    # Sending ---------------------------------------------------------------------------------

    def publish(self, str type not None, payload=None, *, timeout=5.0):
        """Send an event to all who subscribe to a matching pattern.

        It is accepted when this returns. `timeout`: seconds to wait while this endpoint's ring is
        full; None waits for ever. Raises `QueueFull`, `MessageTooLarge`, `EncodeError`,
        `InvalidType`, `BusDown`, `EndpointClosed`.
        """
        self._post(SB_EVENT, type, payload, timeout, &self._batch if self._batching else NULL, ALONE)

    def send(self, str type not None, payload=None, *, timeout=5.0):
        """Send a command to the one endpoint that handles the most specific matching pattern.

        No reply comes; where nobody handles it, it becomes a dead letter. Raises like `publish`.
        """
        self._post(SB_SEND, type, payload, timeout, &self._batch if self._batching else NULL, ALONE)

    def publish_many(self, items, *, timeout=5.0):
        """Send events, given as pairs of type and payload, with one publication and one bell for
        many of them. Raises like `publish`, with the `index` of the message that failed; those
        before it are accepted."""
        self._check()
        cdef ep_batch_limits limits = self._limits(256, None, None)
        cdef int64_t index = 0
        try:
            for type, payload in items:
                self._post(SB_EVENT, type, payload, timeout, &limits, index)
                index += 1
        finally:
            self._flush()

    def batch(self, *, max_messages=256, max_bytes=None, max_delay=None):
        """A batch for this thread, to be used in a `with` statement: its messages are published
        together, after `max_messages` of them, `max_bytes` (at most a quarter of the ring) or
        `max_delay` seconds, and at the end, also when that is an exception. Raises
        `InvalidSetting`."""
        self._check()
        BatchSettings(max_messages=max_messages, max_bytes=max_bytes, max_delay=max_delay)
        cdef Batch batch = Batch.__new__(Batch)
        batch._endpoint = self
        batch._limits = self._limits(max_messages, max_bytes, max_delay)
        return batch

    def _find_again(self, bytes door, bytes bus, uint64_t file):
        """Where to show a connection to a dispatcher that adopts this endpoint, and by which file it
        is seen that none will."""
        if len(door) < sizeof(self._e.door_path) and len(bus) < sizeof(self._e.bus_path):
            memcpy(self._e.door_path, PyBytes_AS_STRING(door), len(door) + 1)
            memcpy(self._e.bus_path, PyBytes_AS_STRING(bus), len(bus) + 1)
            self._e.bus_file = file

    def _leave_door(self):
        """In a forked child: its copy of that connection."""
        if self._e != NULL:
            ep_leave_door(self._e)

    def _flush(self):
        """Publish what batches hold back."""
        if self._ours():
            ep_lock(self._e)
            ep_flush(self._e)
            ep_unlock(self._e)

    cdef int _accept_type(self, object type) except -1:
        check_type(type)
        if len(self._valid) >= TYPES:
            self._valid = {}
        self._valid[type] = True
        return 0

    cdef object _fill(self, ep_message *m, str type, object payload, int64_t index):
        """Fill in type and payload; returns what owns the payload's bytes."""
        cdef Py_ssize_t length
        cdef bytearray scratch
        if type not in self._valid:
            self._accept_type(type)
        m.type = PyUnicode_AsUTF8AndSize(type, &length)
        m.type_length = <uint32_t>length
        if payload is None:
            m.flags = SB_NONE
            m.payload = NULL
            m.size = 0
            return None
        if PyBytes_CheckExact(payload):
            m.flags = SB_RAW
            m.payload = PyBytes_AS_STRING(payload)
            m.size = PyBytes_GET_SIZE(payload)
            return payload
        if isinstance(payload, (bytes, bytearray, memoryview)):
            raw = bytes(payload)
            m.flags = SB_RAW
            m.payload = PyBytes_AS_STRING(raw)
            m.size = PyBytes_GET_SIZE(raw)
            return raw
        scratch = self._scratch
        self._scratch = None     # encoding may run Python code, which may send, too
        if scratch is None:
            scratch = bytearray(512)
        try:
            self._encode_into(payload, scratch)
        except Exception as why:
            self._scratch = scratch
            reason = str(why) if isinstance(why, msgspec.MsgspecError) else f"{why.__class__.__name__}: {why}"
            raise EncodeError(type=type, reason=reason, index=number_of(index)) from why
        m.flags = 0
        m.payload = PyByteArray_AS_STRING(scratch)
        m.size = PyByteArray_GET_SIZE(scratch)
        return scratch

    cdef inline void _give_back(self, object owner) noexcept:
        if PyByteArray_CheckExact(owner) and PyByteArray_GET_SIZE(owner) <= SCRATCH:
            self._scratch = <bytearray>owner

    cdef int _post(self, uint16_t kind, str type, object payload, object timeout, const ep_batch_limits *batch,
                   int64_t index) except -1:
        cdef ep_message m
        self._check()
        m.kind = kind
        m.peer = 0
        m.peer_generation = 0
        m.deadline_ns = 0
        m.correlation = NULL
        owner = self._fill(&m, type, payload, index)
        self._put(&m, type, timeout, batch, index)
        self._give_back(owner)
        return 0

    cdef int _put(self, ep_message *m, str type, object timeout, const ep_batch_limits *batch, int64_t index) except -1:
        cdef ep_endpoint *e = self._e
        cdef flag armed = 0
        cdef rb_status status
        cdef uint64_t limit = rb_largest_record(e.out[ep_ring_of(m.kind)].capacity)
        if ep_record_length(m) > limit:
            raise MessageTooLarge(type=type, size=m.size, limit=limit - SB_HEADER - m.type_length,
                                  endpoint=self.name, index=number_of(index))
        if m.size > <uint64_t>LARGE:
            with nogil:
                ep_lock(e)
                status = ep_push(e, m, ep_stamp(e), batch, &armed)
                ep_unlock(e)
        else:
            ep_lock(e)
            status = ep_push(e, m, ep_stamp(e), batch, &armed)
            ep_unlock(e)
        if status == RB_OK:
            if armed:
                ep_arm_watcher(e)
            return 0
        return self._put_slowly(m, type, timeout, batch, index)

    cdef int _put_slowly(self, ep_message *m, str type, object timeout, const ep_batch_limits *batch, int64_t index) except -1:
        """The ring was full."""
        cdef ep_endpoint *e = self._e
        cdef flag armed = 0
        cdef rb_status status
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now())
        cdef uint64_t trouble, depth
        cdef uint32_t ring = ep_ring_of(m.kind)
        while True:
            ep_lock(e)
            status = ep_push(e, m, ep_stamp(e), batch, &armed)
            depth = e.out[ring].next - e.out[ring].tail_seen  # now, and not when our time is up
            trouble = ep_trouble(e)
            ep_unlock(e)
            if status == RB_OK:
                if armed:
                    ep_arm_watcher(e)
                return 0
            if trouble & EP_FOR_GOOD:
                self._raise_trouble(trouble & EP_FOR_GOOD)
            if not self._wait(EP_WANT_SPACE, ring, ep_record_length(m), self._minds(), True, deadline):
                raise QueueFull(type=type, endpoint=self.name, depth=depth, capacity=e.out[ring].capacity,
                                seconds=timeout, index=number_of(index))

    # Requests --------------------------------------------------------------------------------

    def request(self, str type not None, payload=None, *, timeout=5.0, reply_type=None):
        """Ask the endpoint that handles the most specific matching pattern, and wait for its reply.

        `timeout`: seconds; None waits for ever. `reply_type`: what the reply's payload is decoded
        to. Raises `RequestTimeout`, `NoRoute`, `EndpointDied`, `RemoteError`, `ReplyLost`,
        `RequestsFull`, `BusDown`, and like `publish`.
        """
        cdef uint64_t span = span_ns(timeout)
        cdef uint64_t deadline
        cdef uint32_t index = self._ask(type, payload, timeout, span, False, &deadline)
        try:
            if not self._wait(EP_WANT_REPLY, index, 0, self._minds(), True, deadline):
                raise self._request_timeout(index, type, timeout)
            return self._result(index, type, reply_type)
        finally:
            self._finish_request(index)

    def request_async(self, str type not None, payload=None, *, timeout=5.0, reply_type=None):
        """Like `request`, but returns a `concurrent.futures.Future` of the reply at once; waits
        only where this endpoint's ring, or its table of requests, is full."""
        cdef uint64_t span = span_ns(timeout)
        cdef uint64_t deadline
        self._usable()
        self._pump.start()
        future = Reply()
        cdef uint32_t index = self._ask(type, payload, timeout, span, (future, type, reply_type, timeout), &deadline)
        future.request = self, index
        self._pump.watch(deadline, index, future)
        return future

    cdef uint32_t _ask(self, str type, object payload, object timeout, uint64_t span, object future,
                       uint64_t *deadline) except? 0xffffffff:
        """Put a request into the ring; the index of its entry."""
        cdef ep_message m
        cdef uint8_t identity[16]
        cdef uint32_t index
        cdef uint64_t trouble
        self._check()
        deadline[0] = deadline_after(span, rb_now())
        m.kind = SB_REQUEST
        m.peer = 0
        m.peer_generation = 0
        m.deadline_ns = 0 if deadline[0] == NEVER else deadline[0]
        m.correlation = identity
        owner = self._fill(&m, type, payload, ALONE)
        while True:
            ep_lock(self._e)
            trouble = ep_trouble(self._e) & self._minds()
            index = EP_NO_REQUEST
            if not trouble:
                ep_flush(self._e)
                index = ep_begin_request(self._e, m.deadline_ns, future is not False, identity)
            ep_unlock(self._e)
            if trouble:
                self._give_back(owner)
                self._raise_trouble(trouble)
            if index != EP_NO_REQUEST:
                break
            if not self._wait(EP_WANT_ENTRY, 0, 0, self._minds(), True, deadline[0]):
                raise RequestsFull(type=type, endpoint=self.name, limit=self._e.request_count, seconds=timeout)
        self._e.requests[index].asked = m.size
        if future is not False:
            self._futures[index] = future
        try:
            self._put(&m, type, timeout, NULL, ALONE)
        except BaseException:
            if future is not False:
                if self._futures.get(index) is not future:
                    raise              # it has been taken, and its entry is free
                del self._futures[index]
            self._finish_request(index)
            raise
        self._give_back(owner)
        return index

    cdef void _finish_request(self, uint32_t index) noexcept:
        if self._ours():
            ep_lock(self._e)
            ep_finish_request(self._e, index)
            ep_unlock(self._e)

    cdef object _result(self, uint32_t index, str type, object reply_type):
        """The reply that is there, or raises the error that came instead."""
        cdef ep_request *r = &self._e.requests[index]
        cdef Message m
        cdef sb_fault fault
        cdef bytes raw = (<const char *>r.payload)[:r.size] if r.size else b""
        source = self._source_of(r.header.peer, r.header.peer_generation)
        if r.header.kind == SB_REPLY:
            m = Message.__new__(Message)
            m._endpoint = self
            m.type = type
            m.source = source
            m._raw = raw
            m._payload = UNDECODED
            m._payload_type = reply_type
            m._header = r.header
            m._position = SB_NOWHERE
            return m
        if r.header.flags & SB_REMOTE:
            raise remote_error(type, source, raw)
        if r.size >= sizeof(sb_fault):
            memcpy(&fault, r.payload, sizeof(sb_fault))
            raise self._explain_fault(type, fault.code, fault.pid, fault.limit, (<const char *>fault.name)[:48],
                                      r.asked, (<const char *>r.header.correlation)[:16])
        raise self._explain_fault(type, 0, 0, 0, source.encode(), r.asked, b"")

    cdef object _request_timeout(self, uint32_t index, str type, object timeout):
        cdef uint64_t whom
        ep_lock(self._e)
        whom = ep_chosen(self._e, index)
        rb_add(&self._e.up.timeouts, 1)
        ep_unlock(self._e)
        if not whom:
            gone = self._trouble_now() & EP_FOR_NOW
            hint = "the bus has no dispatcher" if gone else "no handler was chosen yet"
            return RequestTimeout(type=type, seconds=timeout, hint=hint)
        slot, generation = sb_whom_slot(whom), sb_whom_generation(whom)
        hint = ""
        if slot == self._e.slot and generation == self._e.generation and self._hand_count >= <uint32_t>self._runners:
            hint = "this endpoint handles it itself, and no thread of it was free to do so"
        return RequestTimeout(type=type, seconds=timeout, endpoint=self._source_of(slot, generation) or None, hint=hint)

    def _collect(self, deadline):
        """For the pump: wait until a future's reply is there, or `deadline` (ns) comes, or
        `_nudge`; returns triples of future, message and exception."""
        cdef uint32_t index
        cdef bint vigilant = bool(self._futures)
        self._wait(EP_WANT_FUTURE, 0, 0, self._minds(), vigilant, NEVER if deadline is None else <uint64_t>deadline)
        found = []
        while True:
            ep_lock(self._e)
            self._e.nudge = False
            index = ep_next_completed(self._e)
            ep_unlock(self._e)
            if index == EP_NO_REQUEST:
                return found
            entry = self._futures.pop(index, None)
            try:
                if entry is not None:
                    found.append((entry[0], self._result(index, entry[1], entry[2]), None))
            except Exception as error:
                found.append((entry[0], None, error))
            self._finish_request(index)

    def _nudge(self):
        """Make `_collect` return."""
        ep_lock(self._e)
        self._e.nudge = True
        ep_wake_leader(self._e)
        ep_unlock(self._e)

    def _expire_future(self, uint32_t index, future):
        """The deadline of a future has come: the exception for it, or None if it has its reply."""
        entry = self._withdraw_future(index, future)
        return None if entry is None else self._request_timeout(index, entry[1], entry[3])

    def _withdraw_future(self, uint32_t index, future):
        """Nobody wants this reply any more: what there was to know of the request, or None if it
        has come."""
        entry = self._futures.get(index)
        if entry is None or entry[0] is not future or ep_forked(self._e.fork_mark):
            return None
        if not self._abandon(index):
            return None            # it has just come: the next _collect finds it
        del self._futures[index]
        return entry

    cdef bint _abandon(self, uint32_t index) noexcept:
        cdef bint waiting
        ep_lock(self._e)
        waiting = ep_request_waits(self._e, index)
        if waiting:
            ep_finish_request(self._e, index)
        ep_unlock(self._e)
        return waiting

    def _take_futures(self):
        """All futures that nobody will complete any more; their entries are free again."""
        cdef uint32_t index
        taken, self._futures = self._futures, {}
        for index in taken:
            self._abandon(index)
        while True:                # those that were completed all the same
            ep_lock(self._e)
            index = ep_next_completed(self._e)
            ep_unlock(self._e)
            if index == EP_NO_REQUEST:
                return [entry[0] for entry in taken.values()]
            self._finish_request(index)

    # Receiving -------------------------------------------------------------------------------

    cdef str _intern(self, const char *type, Py_ssize_t length):
        """The string for a received type, which is mostly one seen before, and often the last one.
        May be called under the lock: nothing here runs Python code."""
        if self._last_type != NULL and sb_is_text(self._last_type, type, length):
            return <str><object>self._last_type
        cdef uint32_t hash = <uint32_t>length
        cdef Py_ssize_t i
        cdef PyObject *found
        for i in range(length):
            hash = (hash ^ <unsigned char>type[i]) * 16777619u
        hash = (hash ^ (hash >> 15)) & 255
        found = self._types[hash]
        if found != NULL and sb_is_text(found, type, length):
            self._last_type = found
            return <str><object>found
        found = sb_new_ascii(type, length)
        if found == NULL:
            PyErr_Clear()
            return None
        Py_XDECREF(self._types[hash])
        self._types[hash] = self._last_type = found
        return <str><object>found

    cdef str _source_of(self, uint32_t slot, uint32_t generation):
        if slot == SB_FROM_BUS:
            return "$bus"
        if slot >= len(self._sources):
            return ""
        if self._source_generations[slot] != generation:
            name = self._read_row_name(slot, generation)
            if name is None:
                return ""
            self._sources[slot] = name
            self._source_generations[slot] = generation
        return <str>self._sources[slot]

    cdef object _read_row_name(self, uint32_t slot, uint32_t generation):
        """A name changes with its generation alone, so it does not matter that its row may be
        changing."""
        cdef const sb_row *row = row_at(self._mappings[0], slot)
        cdef char name[65]
        if row == NULL or rb_load_acquire(&row.generation) != generation:
            return None
        memcpy(name, row.name, 64)
        name[64] = 0
        rb_fence_acquire()
        return (<bytes>name).decode("ascii", "replace") if rb_load(&row.generation) == generation else None

    cdef inline Hand *_hand(self, unsigned long thread) noexcept:
        cdef uint32_t i
        for i in range(self._hand_count):
            if self._hands[i].thread == thread:
                return &self._hands[i]
        return NULL

    cdef void _note_in_hand(self) noexcept:
        """Under the lock."""
        ep_set_in_hand(self._e, self._hand_count + <uint64_t>self._deferred_count, rb_now())

    cdef void _put_down(self, unsigned long thread) noexcept:
        """This thread has nothing in hand any more."""
        cdef Hand *hand = self._hand(thread)
        cdef PyObject *held
        if hand == NULL:
            return
        held = hand.held
        self._hand_count -= 1
        hand[0] = self._hands[self._hand_count]
        if self._ours():
            ep_lock(self._e)
            if held != NULL and (<Message>held)._position != SB_NOWHERE:
                ep_done(self._e, (<Message>held)._position)
                (<Message>held)._position = SB_NOWHERE
            self._note_in_hand()
            ep_unlock(self._e)
        Py_XDECREF(held)

    cdef int _message_done(self, Message m) except -1:
        cdef ep_endpoint *e = self._e
        if not self._ours():
            return 0
        ep_lock(e)
        if m._position != SB_NOWHERE and not ep_trouble(e) & EP_CLOSED_HERE:
            ep_done(e, m._position)
        m._position = SB_NOWHERE
        ep_unlock(e)
        return 0

    cdef int _count_deferred(self, int by) except -1:
        self._check()
        ep_lock(self._e)
        self._deferred_count += by
        self._note_in_hand()
        ep_unlock(self._e)
        return 0

    cdef void _count(self, rb_word *counter) noexcept:
        if self._ours():
            ep_lock(self._e)
            rb_add(counter, 1)
            ep_unlock(self._e)

    cdef Message _take(self, unsigned long thread):
        """The next message, or None if there is none."""
        cdef ep_endpoint *e = self._e
        cdef sb_record header
        cdef const uint8_t *record
        cdef char type[256]
        cdef Py_ssize_t offset
        cdef PyObject *raw
        cdef PyObject *found
        cdef uint64_t hold
        cdef uint64_t position
        cdef uint32_t lost
        cdef sb_tap tap
        cdef Hand *hand = self._hand(thread)
        cdef Message m
        cdef str name
        memset(&tap, 0, sizeof(sb_tap))
        if hand != NULL and hand.held != NULL:
            self._put_down(thread)
            hand = NULL
        while True:
            ep_lock(e)
            if ep_peek(e, &header, &record) != RB_OK:
                ep_unlock(e)
                return None
            if header.kind == SB_TAP and header.extension_length >= sizeof(sb_tap):
                memcpy(&tap, record + SB_HEADER + header.type_length, sizeof(sb_tap))
            elif header.kind != SB_EVENT and header.kind != SB_SEND and header.kind != SB_REQUEST:
                ep_take(e, &header, SB_HELD_DONE)  # of a later version
                ep_unlock(e)
                continue
            if header.kind == SB_REQUEST and header.deadline_ns and header.deadline_ns < rb_now():
                rb_add(&e.up.expired, 1)
                ep_take(e, &header, SB_HELD_DONE)
                ep_unlock(e)
                continue
            hold = SB_HELD_DONE
            if header.kind == SB_SEND:
                hold = SB_HELD_FINAL
            elif header.kind == SB_EVENT and header.interests & ~<uint32_t>SB_PLAIN:
                hold = SB_HELD_OPEN
            if self._redelivers and hold == SB_HELD_FINAL:
                name = self._intern(<const char *>record + SB_HEADER, header.type_length)
                found = PyDict_GetItem(self._routes, <PyObject *>name)
                if found == NULL:
                    ep_unlock(e)
                    self._find_route(name)
                    hand = self._hand(thread)
                    continue
                if (<Route>found).redeliver:
                    hold = SB_HELD_OPEN
            memcpy(type, record + SB_HEADER, header.type_length)
            offset = <Py_ssize_t>sb_payload_offset(&header)
            raw = sb_new_bytes(<const char *>record + offset, <Py_ssize_t>header.length - offset)
            if raw == NULL:
                ep_unlock(e)
                raise MemoryError
            position = ep_take(e, &header, hold)
            ep_mark_progress(e)
            lost = header.lost - e.lost_seen
            e.lost_seen = header.lost
            if hand == NULL and self._hand_count < 64:
                hand = &self._hands[self._hand_count]
                hand.thread = thread
                hand.held = NULL
                self._hand_count += 1
                self._note_in_hand()
            ep_pass_on_data(e)
            ep_unlock(e)
            break
        m = Message.__new__(Message)
        m._endpoint = self
        m._raw = <bytes><object>raw
        Py_XDECREF(raw)
        m._header = header
        m.type = self._intern(type, header.type_length)
        m.source = self._source_of(header.peer, header.peer_generation)
        m.lost = lost
        m._payload = UNDECODED
        m._tap = tap
        m._position = position if hold != SB_HELD_DONE else SB_NOWHERE
        if hold != SB_HELD_DONE and hand != NULL and self._hand(thread) != NULL:
            hand = self._hand(thread)
            hand.held = <PyObject *>m
            Py_INCREF(hand.held)
        return m

    cdef Message _next(self, uint64_t deadline, bint stops, bint yields, bint reconnect):
        """The next message that a caller is to see, or None: at the deadline, or where `stops` and
        the endpoint comes to an end. Callbacks run on the way; without `yields`, all have one."""
        cdef unsigned long thread = PyThread_get_thread_ident()
        cdef Message m
        cdef PyObject *found
        cdef uint64_t minds = EP_STOPPING | (EP_FOR_GOOD if reconnect else EP_FOR_GOOD | EP_FOR_NOW)
        cdef int there
        self._received = True
        while True:
            self._check()          # a callback may have forked
            m = self._take(thread) if not self._closing else None
            if m is not None:
                found = PyDict_GetItem(self._routes, <PyObject *>m.type)
                route = <Route>found if found != NULL else self._find_route(m.type)
                if self._dispatch(m, <Route>route) and yields:
                    return m
                PyErr_CheckSignals()
                if deadline != NEVER and rb_now() >= deadline and not (yields and self._data_waits()):
                    self._put_down(thread)
                    return None
                continue
            self._put_down(thread)
            if yields:
                self._count_receivers(1)
            try:
                there = -1 if self._closing else self._wait(EP_WANT_DATA, 0, 0, minds, False, deadline)
            finally:
                if yields:
                    self._count_receivers(-1)
            if there < 0:
                if stops:
                    return None
                raise EndpointClosed(endpoint=self.name)
            if there == 0:
                return None

    cdef bint _data_waits(self) noexcept:
        return rb_load_acquire(&self._e.down.incoming[SB_DATA].head) != self._e.incoming[SB_DATA].next

    cdef int _count_receivers(self, int by) except -1:
        self._iterators += by
        if self._ours():
            ep_lock(self._e)
            rb_store_release(&self._e.up.receivers, self._iterators + self._runners)
            ep_unlock(self._e)
        return 0

    cdef bint _dispatch(self, Message m, Route route) except -1:
        """Run the callbacks for a message; true if it is for the caller to see, too."""
        cdef uint32_t interests = m._header.interests
        cdef uint32_t served = route.yields | SB_PLAIN
        if m._header.kind == SB_TAP:
            return True
        if m._header.kind != SB_EVENT:
            self._handle(m, route)
            return False
        for bit, function, payload_type in route.callbacks:
            if interests >> <int>bit & 1:
                served |= <uint32_t>1 << <int>bit
                m._expect(payload_type)
                try:
                    function(m)
                except Exception as error:
                    self._count(&self._e.up.handler_errors)
                    self._log_failure(m, error)
        if interests & ~served:        # of a group that has been left meanwhile
            self._count(&self._e.up.handler_errors)
            self._log_unhandled(m)
        if route.yields & interests:
            m._expect(route.payload_type)
            return True
        if m._position != SB_NOWHERE:
            self._message_done(m)
        return False

    cdef int _handle(self, Message m, Route route) except -1:
        if route.handler is None:
            self._count(&self._e.up.handler_errors)
            self._log_unhandled(m)
            if m._header.kind == SB_REQUEST:
                self._try_fail(m, LookupError(f"endpoint {self.name!r} handles {m.type!r} no longer"))
            m.done()
            return 0
        m._expect(route.handler_type)
        try:
            value = route.handler(m)
        except BaseException as error:
            self._count(&self._e.up.handler_errors)
            if m._header.kind != SB_REQUEST or m._answered:
                if isinstance(error, Exception):
                    self._log_failure(m, error)
            else:
                self._try_fail(m, error)
            m.done()
            if not isinstance(error, Exception):
                raise
            return 0
        if m._header.kind == SB_REQUEST and not (m._answered or m._refused or m._deferred):
            try:
                m.reply(value)
            except Exception as error:
                self._count(&self._e.up.handler_errors)
                self._log_failure(m, error)
        m.done()
        return 0

    cdef int _log_failure(self, Message m, object error) except -1:
        # What this endpoint's end cut short is told in a line: it is no fault of the handler's.
        cdef bint ended = isinstance(error, (BusDown, EndpointClosed, Evicted)) and self._trouble_now() & ~EP_STOPPING
        log.log(logging.WARNING if ended else logging.ERROR, "endpoint %r: its handler of %s %r raised %s: %s",
                self.name, m.kind, m.type, error.__class__.__name__, error, exc_info=None if ended else error)
        return 0

    cdef int _log_unhandled(self, Message m) except -1:
        log.error("endpoint %r: %s %r came from %r, and nothing here handles it any more",
                  self.name, m.kind, m.type, m.source)
        return 0

    cdef int _try_fail(self, Message m, object error) except -1:
        try:
            m.fail(error)
        except Exception as why:
            self._log_failure(m, why)
        return 0

    cdef int _put_answer(self, Message m, uint16_t kind, ep_message *answer) except -1:
        answer.kind = kind
        answer.peer = m._header.peer
        answer.peer_generation = m._header.peer_generation
        answer.deadline_ns = m._header.deadline_ns
        answer.correlation = m._header.correlation
        try:
            self._put(answer, m.type, 5.0, NULL, ALONE)
        except MessageTooLarge:
            raise                  # which is answered instead
        except BaseException:
            m._answered = False
            m._refused = True
            raise
        if m._deferred:
            self._count_deferred(-1)
        return 0

    cdef int _answer(self, Message m, object payload) except -1:
        cdef ep_message answer
        self._check()
        owner = self._fill(&answer, m.type, payload, ALONE)
        try:
            self._put_answer(m, SB_REPLY, &answer)
        finally:
            self._give_back(owner)
        return 0

    cdef int _answer_failure(self, Message m, object error) except -1:
        cdef ep_message answer
        self._check()
        trace = error.__traceback__
        if trace is not None and trace.tb_frame.f_code.co_filename.endswith("_kernel.pyx"):
            trace = trace.tb_next  # where we called the handler tells nobody anything
        text = "".join(traceback.format_exception(error.__class__, error, trace))
        limit = min(MAX_ACCOUNT, rb_largest_record(self._e.out[SB_REPLIES].capacity) - 512)
        account = encode_failure(error, text, limit=limit)
        self._fill(&answer, m.type, None, ALONE)
        answer.flags = SB_REMOTE
        answer.payload = PyBytes_AS_STRING(account)
        answer.size = PyBytes_GET_SIZE(account)
        self._put_answer(m, SB_ERROR, &answer)
        return 0

    def _serve(self, bint reconnect, timeout=None):
        """Run callbacks until the endpoint comes to an end by close() or drain(), or for so long."""
        self._check()
        self._runners += 1
        try:
            self._count_receivers(0)
            self._next(deadline_after(span_ns(timeout), rb_now()), True, False, reconnect)
        finally:
            self._runners -= 1
            if not self._e_closed():
                self._put_down(PyThread_get_thread_ident())
                self._count_receivers(0)

    cdef bint _e_closed(self) noexcept:
        return self._e == NULL or ep_trouble(self._e) & EP_CLOSED_HERE

    def _receive(self, timeout, bint stops):
        """The next message for the caller; None at the timeout, and where `stops` at the end."""
        self._check()
        cdef uint64_t deadline = NEVER if timeout is None else deadline_after(span_ns(timeout), rb_now())
        return self._next(deadline, stops, True, self.reconnect)

    def _messages(self):
        """An iterator over the messages that are for the caller to see, until the end."""
        self._check()
        cdef Iteration iteration = Iteration.__new__(Iteration)
        iteration._endpoint = self
        return iteration

    # Interests -------------------------------------------------------------------------------

    def _announce_interests(self, uint64_t serial):
        """Tell the dispatcher; returns the version to wait for."""
        self._check()
        ep_lock(self._e)
        cdef uint64_t version = ep_commit_interests(self._e, serial)
        ep_unlock(self._e)
        return version

    def _await_interests(self, uint64_t version, timeout):
        """Wait until the dispatcher routes by them: False at the timeout."""
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now())
        return bool(self._wait(EP_WANT_SEEN, 0, version, self._minds(), True, deadline))

    def _set_routes(self, bint redelivers):
        """Forget what was resolved."""
        self._routes = {}
        self._redelivers = redelivers

    cdef Route _find_route(self, str type):
        """What to do with messages of this type, kept until an interest changes."""
        if len(self._routes) >= TYPES:
            self._routes = {}
        cdef dict routes = self._routes
        cdef Route route = self._resolve(type)
        routes[type] = route     # where an interest has changed meanwhile, these are forgotten already
        return route

    # Ending ----------------------------------------------------------------------------------

    def _set_state(self, uint64_t state):
        ep_lock(self._e)
        ep_flush(self._e)
        ep_set_state(self._e, state)
        ep_wake_leader(self._e)
        ep_unlock(self._e)

    def _stop(self, bint at_once):
        """Let those who receive come to an end: when nothing is left to take, or `at_once`."""
        if at_once:
            self._closing = True
        ep_lock(self._e)
        ep_set_trouble(self._e, EP_STOPPING, 0)
        ep_unlock(self._e)

    def _await_state(self, uint64_t state, timeout):
        """Wait until the dispatcher has got so far: False at the timeout, or if it is gone."""
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now())
        cdef uint64_t minds = EP_FOR_NOW | EP_FOR_GOOD & ~<uint64_t>EP_CLOSED_HERE
        try:
            return bool(self._wait(EP_WANT_STATE, 0, state, minds, True, deadline))
        except BusError:
            return False

    def _finish(self):
        """All that this endpoint holds is done, its tails are final; no call proceeds any more."""
        ep_lock(self._e)
        ep_flush(self._e)
        ep_unhold_all(self._e)
        ep_release_data(self._e)
        ep_set_in_hand(self._e, 0, 0)
        ep_set_trouble(self._e, EP_CLOSED_HERE | EP_STOPPING, 0)  # nobody would forward what came now
        ep_set_state(self._e, SB_UP_CLOSED)
        ep_unlock(self._e)

    def _shut(self, timeout):
        """Wait until all threads are out, as `_finish` has told them."""
        try:
            self._wait(EP_WANT_ALONE, 0, 0, 0, False, deadline_after(span_ns(timeout), rb_now()))
        finally:
            ep_watcher_remove(self._e)
            while self._hand_count:
                self._hand_count -= 1
                Py_XDECREF(self._hands[self._hand_count].held)

    def _forked(self):
        """Whether this is a child of the process that attached."""
        return self._e != NULL and ep_forked(self._e.fork_mark)

    def _data_left(self):
        return self._e != NULL and self._data_waits()

    def _unfinished(self):
        """How many messages are here that are not done, but for the one whose handler asks."""
        cdef uint64_t delivered = rb_load_acquire(&self._e.down.incoming[SB_DATA].delivered)
        cdef uint64_t others = self._hand_count - (self._hand(PyThread_get_thread_ident()) != NULL)
        return delivered - rb_load(&self._e.up.incoming[SB_DATA].taken_count) + others + self._deferred_count

    def _bad_ring(self):
        """Which ring was found to be garbage, and where."""
        return RINGS[self._e.bad_ring], self._e.bad_position

    def _figures(self):
        """How this endpoint has waited, for benchmarks."""
        return {"parks": self._e.bell.parks, "hogs": self._e.bell.hogs, "moves": self._e.placement.moves}


@cython.final
cdef class Batch:
    """Messages that are published together; see `Endpoint.batch`."""

    cdef EndpointCore _endpoint
    cdef ep_batch_limits _limits
    cdef int64_t _count

    def __init__(self):
        raise TypeError("use Endpoint.batch()")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self._endpoint._flush()

    def publish(self, str type not None, payload=None, *, timeout=5.0):
        """Send an event with this batch. Raises like `Endpoint.publish`, with its `index`."""
        self._endpoint._post(SB_EVENT, type, payload, timeout, &self._limits, self._count)
        self._count += 1

    def send(self, str type not None, payload=None, *, timeout=5.0):
        """Send a command with this batch."""
        self._endpoint._post(SB_SEND, type, payload, timeout, &self._limits, self._count)
        self._count += 1

    def flush(self):
        """Publish what there is so far."""
        self._endpoint._flush()


