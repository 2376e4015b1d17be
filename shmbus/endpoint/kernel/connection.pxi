# An endpoint's connection to its bus: segments, bells, waiting, states.

cdef uint64_t SLICE = 1000000000        # ns; the longest sleep of a wait, a backstop: bells end all waits
cdef uint64_t SLICE_MAIN = 250000000    # of the main thread: a signal may come between the check for it and the sleep
cdef unsigned long main_thread = threading.main_thread().ident

cdef enum:           # how `Connection.wait` ends
    WAIT_STOPPED = -1
    WAIT_ELAPSED = 0
    WAIT_GRANTED = 1

cdef enum:           # whether a waiter checks that the dispatcher, from which it waits for something, is alive
    NO_CHECKS = 0
    CHECKS_DISPATCHER = 1

cdef tuple RINGS = ("incoming data", "incoming reply", "incoming urgent", "outgoing data", "outgoing reply")


def after_fork():
    """In a forked child: the thread that forked is its main thread."""
    global main_thread
    main_thread = PyThread_get_thread_ident()


cdef inline uint64_t deadline_after(uint64_t span, uint64_t now) noexcept:
    return NEVER if span == NEVER else now + span


cdef sem_t *open_bell(str name) except NULL:
    cdef bytes encoded = name.encode()
    cdef sem_t *bell = sem_open(encoded, 0)
    if bell == SEM_FAILED:
        raise OSError(errno, os.strerror(errno), f"/dev/shm/sem.{name[1:]}")
    return bell


@cython.final
@cython.no_gc_clear              # the watcher thread reads the mappings until __dealloc__
cdef class Connection:
    """The segments and bells of an endpoint, waiting, and what keeps its calls from proceeding."""

    cdef ep_endpoint *e
    cdef sem_t *_dispatcher_bell
    cdef sem_t *_own_bell
    cdef tuple _mappings
    cdef PeerNames peers
    cdef Decoding decoding
    cdef readonly str name
    cdef readonly bint reconnect
    cdef object _explain         # Upcalls.explain_trouble
    cdef object _explain_full    # of Upcalls
    cdef object _explain_silence # likewise
    cdef bint closing            # no thread may take a message any more
    cdef uint32_t _pid           # that attached
    cdef object _open_mailbox    # of Upcalls
    cdef list _mailboxes         # what is mapped of each
    cdef list _left              # what was, and since when (ep_end_looks); a leader may look there

    def __cinit__(self, seat not None, explain_trouble, explain_full, explain_silence, open_mailbox):
        """Take over the segments of the seat, which were opened and checked."""
        self.name = seat.name
        self._pid = seat.owner.pid
        self.reconnect = seat.reconnect
        self._explain = explain_trouble
        self._explain_full = explain_full
        self._explain_silence = explain_silence
        self._open_mailbox = open_mailbox
        self._mailboxes = [None] * SB_OWN_MAILBOXES
        self._left = []
        self.decoding = Decoding(seat.codec)
        self._mappings = (seat.bus, seat.ready, seat.up, seat.down)
        cdef uintptr_t bus_at = seat.bus.address, down_at = seat.down.address, up_at = seat.up.address
        cdef const sb_bus *bus = <const sb_bus *>bus_at
        cdef const sb_down *down = <const sb_down *>down_at
        if not ep_down_sound(down, len(seat.down), <sb_up *>up_at):
            raise ValueError("segment DOWN does not have the rings that this endpoint's UP asks for")
        if down.slot >= bus.slots or <uint64_t>len(seat.ready) < sizeof(sb_ready) + sizeof(uint32_t) * bus.slots:
            raise ValueError("the ready page is too small")
        if bus.rows_offset + bus.slots * sizeof(sb_row) > <uint64_t>len(seat.bus):
            raise ValueError("the bus is smaller than its slots")
        self.peers = PeerNames(seat.bus, bus.slots)
        self._dispatcher_bell = open_bell(seat.names.bell)
        self._own_bell = open_bell(seat.names.endpoint_bell(seat.owner))
        if not ep_fork_watch():
            if errno != EINVAL:
                raise MemoryError("the page that marks forked children could not be mapped")
            raise NotSupported(feature="attaching", reason="this system cannot mark forked children (MADV_WIPEONFORK)",
                               remedy="Use Linux 4.14 or newer")
        self._open(seat, bus, <sb_up *>up_at, down)
        self._store_paths(seat.door_path, seat.bus_path, seat.bus_file)
        cdef int failed = ep_watcher_add(self.e)
        if failed == EMFILE or failed == ENFILE:
            raise OSError(failed, os.strerror(failed))
        if failed:
            raise NoThread(endpoint=self.name, bus=seat.names.bus, task="watcher", reason=os.strerror(failed))

    cdef int _open(self, object seat, const sb_bus *bus, sb_up *up, const sb_down *down) except -1:
        cdef uintptr_t ready_at = seat.ready.address
        cdef uint64_t random = int.from_bytes(os.urandom(8), "little")
        cdef uint32_t spin_ns = seat.settings.spin_ns, hold_limit = seat.settings.hold_limit
        cdef ep_endpoint *e = <ep_endpoint *>calloc(1, sizeof(ep_endpoint))
        if e == NULL:
            raise MemoryError
        if not ep_open(e, bus, <sb_ready *>ready_at, up, down, self._dispatcher_bell, self._own_bell, random, spin_ns,
                       hold_limit):
            ep_free(e)
            free(e)
            raise MemoryError
        self.e = e
        return 0

    cdef int _store_paths(self, bytes door, bytes bus, uint64_t file) except -1:
        """The door of a dispatcher that adopts this endpoint, and the file that is gone if none will."""
        if <size_t>len(door) < sizeof(self.e.door_path) and <size_t>len(bus) < sizeof(self.e.bus_path):
            memcpy(self.e.door_path, PyBytes_AS_STRING(door), len(door) + 1)
            memcpy(self.e.bus_path, PyBytes_AS_STRING(bus), len(bus) + 1)
            self.e.bus_file = file
        return 0

    def __dealloc__(self):
        if self.e != NULL:
            if not ep_forked(self.e.fork_mark):
                ep_watcher_remove(self.e)
            ep_free(self.e)
            free(self.e)
        self._close_bells()

    cdef void _close_bells(self) noexcept:
        if self._dispatcher_bell != NULL:
            sem_close(self._dispatcher_bell)
        if self._own_bell != NULL:
            sem_close(self._own_bell)
        self._dispatcher_bell = self._own_bell = NULL

    # Trouble ---------------------------------------------------------------------------------

    cdef inline bint ours(self) noexcept:
        """Whether this process attached. A forked child must not even take the lock."""
        return not ep_forked(self.e.fork_mark)

    cdef inline int check(self) except -1:
        if not self.ours():
            raise ForkedEndpoint(endpoint=self.name, pid=self._pid)
        return 0

    cdef inline bint closed(self) noexcept:
        return ep_trouble(self.e) & EP_CLOSED_HERE

    cdef inline uint64_t minds(self) noexcept:
        """Troubles that end its calls."""
        return EP_FOR_GOOD if self.reconnect else EP_FOR_GOOD | EP_FOR_NOW

    cdef int raise_trouble(self, uint64_t trouble) except -1:
        cdef object ring = BadRing(RINGS[self.e.bad_ring], self.e.bad_position) if trouble & EP_RING_BAD else None
        raise self._explain(trouble, ring)

    def require(self, *, bint served=False):
        """Raise the error of a trouble that keeps any call from proceeding. With `served`, also if there is no
        dispatcher and this endpoint does not wait for the next."""
        if self.closed():
            raise EndpointClosed(endpoint=self.name)
        self.check()
        cdef uint64_t trouble = <uint64_t>self.trouble() & (self.minds() if served else EP_FOR_GOOD)
        if trouble:
            self.raise_trouble(trouble)

    cpdef uint64_t trouble(self):
        """Bits of enum ep_trouble."""
        ep_lock(self.e)
        cdef uint64_t trouble = ep_trouble(self.e)
        ep_unlock(self.e)
        return trouble

    def require_own(self):
        """Raise ForkedEndpoint in a forked child."""
        self.check()

    def forked(self):
        """Whether this is a child of the process that attached."""
        return not self.ours()

    def leave_door(self):
        """In a forked child: close its copies of the event and of the connection to a dispatcher that adopted us, and
        leave the pool to the parent."""
        ep_leave_door(self.e)
        ep_drop_event(self.e)
        ep_part_pool(self.e)

    # Waiting, counting -----------------------------------------------------------------------

    cdef int wait(self, uint32_t want, uint32_t index, uint64_t value, uint64_t minds, bint checks_dispatcher,
                  uint64_t deadline) except -2:
        """See struct ep_waiter. WAIT_GRANTED: what it wants is there. WAIT_ELAPSED: the deadline has come.
        WAIT_STOPPED: receiving threads are to stop. Raises the error of any other trouble, and what Python's
        signal handlers raise."""
        cdef ep_waiter w
        cdef rb_wake wake
        cdef uint64_t now, until
        cdef uint64_t slice = SLICE_MAIN if PyThread_get_thread_ident() == main_thread else SLICE
        w.want, w.index, w.value, w.minds, w.checks_dispatcher = want, index, value, minds, checks_dispatcher
        while True:
            now = rb_now()
            until = now + slice
            if until > deadline:
                until = deadline
            with nogil:
                wake = ep_wait(self.e, &w, until)
            if self._left:
                self._drop_left()
            if wake == RB_READY:
                if minds & EP_STOPPING and w.trouble & (EP_STOPPING | EP_CLOSED_HERE):
                    return WAIT_STOPPED
                if w.trouble:
                    self.raise_trouble(w.trouble)
                return WAIT_GRANTED
            PyErr_CheckSignals()
            self.check()           # the handler may have forked
            if wake == RB_ELAPSED and until >= deadline:
                return WAIT_ELAPSED

    cdef bint answered(self, uint32_t want, uint64_t value, timeout, bint patient) except -1:
        """Wait for something that the dispatcher answers: False at the timeout. `patient`: while there is none, and
        this endpoint waits for the next, that does not count."""
        cdef int waited
        while True:
            waited = self.wait(want, 0, value, self.minds(), CHECKS_DISPATCHER,
                               deadline_after(span_ns(timeout), rb_now()))
            if waited == WAIT_GRANTED or not patient or not self.trouble() & EP_FOR_NOW:
                return waited == WAIT_GRANTED

    cdef void count(self, rb_word *counter) noexcept:
        if self.ours():
            ep_lock(self.e)
            rb_add(counter, 1)
            ep_unlock(self.e)

    cdef bint data_waits(self) noexcept:
        cdef bint waits
        if not self.e.mailbox_count:
            return ep_data_waits(self.e)
        ep_lock(self.e)
        waits = ep_data_waits(self.e)
        ep_unlock(self.e)
        return waits

    # The event -------------------------------------------------------------------------------

    def open_event(self, timeout, *, bint patient=False) -> int:
        """Have an event, a descriptor that becomes readable where `arm` asks for it: which the dispatcher knows when
        this returns. Closed at the end. Raises OSError, the error of a trouble, `AttachTimeout`, `Refused`. `patient`:
        the timeout is for a dispatcher that is there."""
        self.check()
        ep_lock(self.e)
        cdef int failed = ep_event_open(self.e)
        ep_unlock(self.e)
        if failed:
            raise OSError(failed, os.strerror(failed))
        ep_wake_watcher()
        if not self.answered(EP_WANT_EVENT, 0, timeout, patient):
            ep_lock(self.e)
            refusal = <bytes>self.e.event_refusal
            ep_unlock(self.e)
            raise self._explain_silence(timeout, refusal.decode(errors="replace"))
        return self.e.event_fd

    @property
    def event(self):
        """The descriptor that `open_event` returned; -1: there is none."""
        return self.e.event_fd if self.ours() else -1

    def descriptor(self, timeout) -> int:
        """The event, from now on readable while there is something to receive, or receiving raises; -1 once it is
        closed. Raises like `open_event` where there is none yet."""
        self.check()
        if self.e.event_minds or self.closed():
            return self.e.event_fd
        self.open_event(timeout, patient=True)
        ep_lock(self.e)
        self.e.event_minds = EP_STOPPING | self.minds()
        ep_event_rest(self.e)
        ep_unlock(self.e)
        return self.e.event_fd

    cdef inline void rest(self) noexcept:
        """Nothing was found to receive."""
        if self.e.event_minds and self.ours():
            ep_lock(self.e)
            ep_event_rest(self.e)
            ep_unlock(self.e)

    cpdef bint arm(self, uint64_t wants):
        """About to sleep until the event is readable: for `wants`, bits of EventWant. True: what is wanted is there
        already, so look instead. What was written is taken. STATE: anything else has changed since `disarm`, or
        since this returned True."""
        if not self.ours():
            return True
        ep_lock(self.e)
        cdef bint due = ep_event_arm(self.e, wants)
        ep_unlock(self.e)
        return due

    cpdef void disarm(self) noexcept:
        """Awake again, and about to look: nothing is written until `arm`."""
        if self.ours():
            ep_lock(self.e)
            ep_event_disarm(self.e)
            ep_unlock(self.e)

    cdef void need(self, uint32_t ring, uint64_t length) noexcept:
        """What EventWant.SPACE means for this outgoing ring: that a record of `length` bytes fits; 0: nothing."""
        if self.ours():
            ep_lock(self.e)
            ep_event_need(self.e, ring, length)
            ep_unlock(self.e)

    cdef void need_block(self, uint64_t pages) noexcept:
        """And that a block of so many pages may be had; 0: nothing."""
        if self.ours():
            ep_lock(self.e)
            ep_event_need_block(self.e, pages)
            ep_unlock(self.e)

    # Interests -------------------------------------------------------------------------------

    def commit_interests(self, uint64_t serial):
        """Make the dispatcher read the log of this serial; returns the version to wait for."""
        self.check()
        ep_lock(self.e)
        cdef uint64_t version = ep_commit_interests(self.e, serial)
        ep_unlock(self.e)
        return version

    def await_interests(self, uint64_t version, timeout, *, bint patient):
        """Wait until the dispatcher routes by them: False at the timeout. `patient`: that is for a dispatcher that is
        there."""
        return self.answered(EP_WANT_SEEN, version, timeout, patient)

    def refused(self, uint64_t interest):
        """Why the dispatcher does not route by the interest with this id: enum Refusal. 0: it does, once
        `await_interests` has seen it."""
        self.check()
        return ep_refused(self.e, interest)

    def watch_tail(self):
        """From now on the dispatcher is rung when the tail of the incoming data ring has come where it asked for,
        however empty that is."""
        if self.ours():
            ep_lock(self.e)
            ep_watch_tail(self.e)
            ep_unlock(self.e)

    # Mailboxes -------------------------------------------------------------------------------

    def begin_mailbox(self, uint64_t interest, int state):
        """For an interest that is about to be logged: which of DOWN's mailboxes will be its own; None: all are in use.
        `state`: who takes from it."""
        cdef uint32_t index = 0
        cdef bint begun = True
        self.check()
        ep_lock(self.e)
        while index < SB_OWN_MAILBOXES and self.e.mailboxes[index] != NULL:
            index += 1
        if index < SB_OWN_MAILBOXES:
            begun = ep_begin_mailbox(self.e, index, interest, state)
        ep_unlock(self.e)
        if not begun:
            raise MemoryError
        return index if index < SB_OWN_MAILBOXES else None

    cpdef int map_mailboxes(self) except -1:
        """Those that the dispatcher has made since."""
        cdef uint32_t index
        cdef uint64_t whom
        cdef uintptr_t at
        cdef uint64_t size
        cdef bint opened
        cdef uint64_t looks
        while True:
            ep_lock(self.e)
            index = ep_mail_unmapped(self.e)
            whom = 0 if index == SB_OWN_MAILBOXES else rb_load(&self.e.down.mailbox[index])
            ep_unlock(self.e)
            if index == SB_OWN_MAILBOXES:
                return 0
            memory = self._open_mailbox(sb_whom_slot(whom), sb_whom_generation(whom))
            at = 0 if memory is None else memory.address
            size = 0 if memory is None else len(memory)
            opened = True
            before = None
            ep_lock(self.e)
            if self.e.mailboxes[index] != NULL:
                opened = ep_open_mailbox(self.e, index, whom, <const sb_mailbox *>at, size)
                before, self._mailboxes[index] = self._mailboxes[index], memory
            looks = ep_end_looks(self.e)
            ep_unlock(self.e)
            self._leave(before, looks)
            if not opened:
                raise MemoryError

    def mailbox(self, uint32_t index):
        """None where it is mapped; else why not, `NoMailbox` of the layout or 0."""
        cdef ep_mailbox *box
        ep_lock(self.e)
        box = self.e.mailboxes[index]
        cdef bint mapped = box != NULL and box.memory != NULL
        cdef uint64_t why = rb_load(&self.e.down.mailbox[index])
        ep_unlock(self.e)
        return None if mapped else 0 if why >> 63 else why

    def close_mailbox(self, uint32_t index):
        """Its interest is logged no more."""
        cdef uint64_t looks
        if self.ours():
            ep_lock(self.e)
            ep_close_mailbox(self.e, index)
            before, self._mailboxes[index] = self._mailboxes[index], None
            looks = ep_end_looks(self.e)
            ep_unlock(self.e)
            self._leave(before, looks)

    cdef int _leave(self, object memory, uint64_t looks) except -1:
        """It is mapped until nobody looks there."""
        if memory is not None:
            self._left.append((looks, memory))
            self._drop_left()
        return 0

    cdef int _drop_left(self) except -1:
        cdef uint64_t looks
        cdef bint looked
        while self._left:
            looks = self._left[0][0]
            ep_lock(self.e)
            looked = ep_looked(self.e, looks)
            ep_unlock(self.e)
            if not looked:
                break
            memory = self._left.pop(0)
        return 0

    cdef void leave_mailbox(self, int index, int state) noexcept:
        """Who takes from it from now on."""
        if self.ours():
            ep_lock(self.e)
            if self.e.mailboxes[index] != NULL:
                self.e.mailboxes[index].state = state
            ep_unlock(self.e)

    # Its states ------------------------------------------------------------------------------

    def set_state(self, uint64_t state):
        ep_lock(self.e)
        ep_flush(self.e)
        ep_set_state(self.e, state)
        ep_wake(self.e, SB_EVENT_STATE)
        ep_unlock(self.e)

    def await_state(self, uint64_t state, timeout):
        """Wait until the dispatcher has set this state: False at the timeout, or if it is gone."""
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now())
        cdef uint64_t minds = EP_FOR_NOW | EP_FOR_GOOD & ~<uint64_t>EP_CLOSED_HERE
        try:
            return self.wait(EP_WANT_STATE, 0, state, minds, CHECKS_DISPATCHER, deadline) == WAIT_GRANTED
        except BusError:
            return False

    def await_answered(self, timeout):
        """Wait until no request is deferred any more: False at the timeout, or if there is no bus to answer on."""
        cdef uint64_t deadline = deadline_after(span_ns(timeout), rb_now())
        try:
            return self.wait(EP_WANT_ANSWERED, 0, 0, self.minds(), CHECKS_DISPATCHER, deadline) == WAIT_GRANTED
        except BusError:
            return False

    def stop(self, *, bint at_once):
        """Make receiving threads stop: when nothing is left to take, or `at_once`."""
        if at_once:
            self.closing = True
        ep_lock(self.e)
        ep_set_trouble(self.e, EP_STOPPING, 0)
        ep_unlock(self.e)

    def finish(self):
        """Mark all that is held as done, store the final tails, and end every call."""
        with nogil:
            ep_part_shares(self.e)
        ep_lock(self.e)
        ep_flush(self.e)
        ep_unhold_all(self.e)
        ep_release_data(self.e)
        ep_set_in_hand(self.e, 0, 0)
        ep_set_trouble(self.e, EP_CLOSED_HERE | EP_STOPPING, 0)  # what is sent now would not be forwarded
        ep_end_shares(self.e)
        ep_set_state(self.e, SB_UP_CLOSED)
        ep_unlock(self.e)

    def shut(self, timeout):
        """Wait until all threads have left their calls, which `finish` has ended."""
        try:
            self.wait(EP_WANT_ALONE, 0, 0, 0, NO_CHECKS, deadline_after(span_ns(timeout), rb_now()))
        finally:
            ep_watcher_remove(self.e)

    def vacate(self):
        """It is closed: give its memory and its bells back, unless a thread that did not leave in time still waits
        in it."""
        cdef ep_span spans[4]
        cdef uintptr_t at
        cdef uint32_t count = 0
        cdef bint vacated, writable
        for mapping in self._mappings:
            at, writable = mapping.address, mapping.writable
            spans[count] = ep_span(<void *>at, len(mapping), writable)
            count += 1
        ep_lock(self.e)
        vacated = ep_vacate(self.e, spans, count)
        ep_unlock(self.e)
        if vacated:
            self._left = []
            self._mailboxes = [None] * SB_OWN_MAILBOXES
            self._close_bells()
