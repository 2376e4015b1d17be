# A process's end of a queue, and each thread's stay at it.


@cython.final
@cython.internal
cdef class Stay:
    """A thread's use of a queue, from its first call until the thread ends; then its row goes back."""

    cdef sq_user user
    cdef PyObject *core          # NULL: closed
    cdef uint64_t forks
    cdef object __weakref__

    def __dealloc__(self):
        if self.core != NULL:
            (<QueueCore>self.core)._forget(self)
        sq_unmap(&self.user.hand)
        free(self.user.data)


@cython.no_gc_clear  # what __dealloc__ gives back is still known then
cdef class QueueCore:
    """A queue by the name of its segment in /dev/shm. Classes that derive from it begin with `_create` or `_open`."""

    cdef sq_core _core
    cdef sq_look_for _look
    cdef rb_word _unparked       # the epoch of bells at which nobody parks
    cdef object _segment
    cdef object _stays           # of each thread its own
    cdef set _rows               # addresses of the Stay objects of this process
    cdef PyObject *_latest       # the Stay of the thread that called last
    cdef pthread_t _thread       # which it is
    cdef uint64_t _forks
    cdef uint64_t _looked        # when deaths were last looked for
    cdef uint32_t _pledge
    cdef dict _awaited           # pledges for children: (row, number) to what says which it is
    cdef bint _closed
    cdef readonly str name
    cdef readonly bint redeliver
    cdef readonly uint64_t maxsize

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *_, **__):
        self._closed = True  # until it has begun

    def _create(self, str name not None, *, Py_ssize_t maxsize=0, bint redeliver=False, uint64_t ring_bytes=65536):
        """Begin as a new queue. Raises ringbuf's SegmentErrors."""
        cdef uint64_t most = <uint64_t>maxsize if maxsize > 0 else 0
        if ring_bytes < 1024 or ring_bytes & (ring_bytes - 1) or ring_bytes > SQ_MOST_RING:
            raise ValueError(f"ring_bytes is a power of two from 1024 to {SQ_MOST_RING}: not {ring_bytes}")

        def prepare(mapping):
            self._begin(name, mapping)
            if sq_create(&self._core, most, redeliver, ring_bytes) != SQ_OK:
                raise SegmentNoSpace(name, ring_bytes, available(), REMEDIES[ENOSPC], errno=ENOSPC)

        try:
            self._segment = Segment.create(
                name, sizeof(sq_queue), kind=SQ_KIND, layout=SQ_LAYOUT, prepare=prepare
            )
            self._ready(None)
        except BaseException:
            if self._core.shared != NULL:
                sq_unlink_all(&self._core)
            self._closed = True
            raise

    def _open(self, str name not None, *, pledge=None):
        """Begin as a user of the queue of that name. Raises ringbuf's SegmentErrors, QueueGone, NoResource."""
        self._segment = Segment.attach(
            name, kind=SQ_KIND, layout=SQ_LAYOUT, size=sizeof(sq_queue), writable=True
        )
        self._begin(name, self._segment.memory)
        self._ready(pledge)

    cdef int _begin(self, str name, mapping) except -1:
        encoded = b"/" + os.fsencode(name)
        if len(encoded) >= SQ_MAX_FILE:
            raise ValueError(f"the name of a queue's segment has {SQ_MAX_FILE - 2} bytes at most: {name!r}")
        memcpy(self._core.name, PyBytes_AS_STRING(encoded), len(encoded) + 1)
        self.name = name
        self._core.shared = <sq_queue *><uintptr_t>mapping.address
        return 0

    cdef int _ready(self, pledge) except -1:
        self._look.queue = self._core.shared
        self.maxsize = self._core.shared.maxsize
        self.redeliver = self._core.shared.redeliver
        self._closed = False
        self._begin_process(pledge)
        self._user()
        return 0

    cdef int _begin_process(self, pledge) except -1:
        """In this process, which may have come out of a fork: nothing is known of its rows yet."""
        cdef sb_stat stat
        self._pledge = 0 if pledge is None else pledge
        self._core.pid = getpid()
        cdef int fd = sb_open_stat(<uint32_t>self._core.pid)
        if fd < 0:
            raise OSError(f"/proc/{self._core.pid}/stat cannot be read: a queue needs /proc")
        stat.start_time = 0
        sb_read_stat(fd, &stat)
        close(fd)
        self._core.start_time = stat.start_time
        self._core.namespace_ = namespace("pid")
        sq_unmap(&self._core.put_ring)
        sq_unmap(&self._core.get_ring)
        self._rows = set()
        self._awaited = {}
        self._stays = local()
        self._latest = NULL
        self._forks = _forks
        return 0

    cdef inline sq_user *_user(self) except NULL:
        """The calling thread's."""
        if self._latest != NULL and self._thread == pthread_self() and self._forks == _forks:
            return &(<Stay>self._latest).user
        return self._find_user()

    cdef sq_user *_find_user(self) except NULL:
        cdef Stay stay
        cdef uint32_t row
        self._check()
        if self._forks != _forks:
            self._begin_process(None)
        stay = getattr(self._stays, "stay", None)
        if stay is None:
            row = self._claim(SQ_USED)
            stay = Stay.__new__(Stay)
            stay.user.row = row
            rb_bell_open(&stay.user.spin, &self._unparked, NULL, RB_SPIN_NS)
            stay.core = <PyObject *>self
            stay.forks = _forks
            self._rows.add(<uintptr_t><void *>stay)
            self._stays.stay = stay
        self._latest = <PyObject *>stay
        self._thread = pthread_self()
        return &stay.user

    cdef uint32_t _claim(self, uint64_t state) except 0:
        cdef uint32_t row = 0
        cdef sq_status status
        global _pledges
        cdef uint64_t tid
        if state == SQ_USED:
            row, self._pledge = self._pledge, 0
            tid = get_native_id()
        else:
            _pledges += 1
            tid = _pledges
        for attempt in range(2):
            status = sq_claim_row(&self._core, state, tid, &row, rb_now() + 10 * SQ_SLICE_NS)
            if status != SQ_NO_ROW:
                break
            self._look_after_deaths()
        if status == SQ_OK:
            return row
        if status == SQ_GONE:
            raise QueueGone(queue=self.name)
        raise NoResource(
            bus=None, what=f"row of queue {self.name!r}",
            reason=f"all {SQ_ROWS} are taken" if status == SQ_NO_ROW else "its book is held by a stopped process",
            remedy="Let fewer threads use one queue" if status == SQ_NO_ROW else "Let that process go on, or end it",
        )

    cdef int _forget(self, Stay stay, bint leaves=False) except -1:
        """Give back a thread's row, in good order. If it was the last, another is kept, unless the process leaves."""
        cdef uint32_t row = 0
        self._rows.discard(<uintptr_t><void *>stay)
        leaves = leaves or self._closed
        if not leaves and not self._rows and not self._pledge and stay.forks == _forks:
            if sq_claim_row(&self._core, SQ_PLEDGED, 0, &row, rb_now() + PATIENCE) == SQ_OK:
                self._pledge = row
        if self._latest == <PyObject *>stay:
            self._latest = NULL
        if stay.forks == _forks and self._core.shared != NULL:
            sq_give_back_row(&self._core, stay.user.row, rb_now() + PATIENCE)
        stay.core = NULL
        return 0

    cdef int _check(self) except -1:
        if self._closed:
            raise QueueClosed(queue=self.name)
        return 0

    def __dealloc__(self):
        if self._rows is not None and self._core.shared != NULL:
            self._give_back()
        sq_unmap(&self._core.put_ring)  # not as it is closed: other threads may be in a call
        sq_unmap(&self._core.get_ring)

    cdef int _give_back(self) except -1:
        """All rows but those of threads that wait in a call: they do it as they return."""
        cdef Stay stay
        for address in list(self._rows):
            stay = <Stay><void *><uintptr_t>address
            if not stay.user.busy:
                self._forget(stay, True)
        if self._pledge and self._forks == _forks:
            sq_give_back_row(&self._core, self._pledge, rb_now() + PATIENCE)
        self._pledge = 0
        return 0

    cdef int _returned(self) except -1:
        """From a call that waited: another thread may have closed the queue meanwhile."""
        if self._closed and self._forks == _forks:
            self._give_back()
            sq_take_leave(&self._core, False, rb_now() + PATIENCE)
        return 0

    # Putting ------------------------------------------------------------------------------------------------------

    def put(self, obj, bint block=True, timeout=None):
        """Put a message into the queue.

        `timeout`: seconds to wait while it is full, None for ever. Raises queue.Full, ValueError where the queue is
        closed here, and what pickling raises.
        """
        cdef sq_item item
        cdef uint64_t put
        if self._closed:
            self._check()
        kept = _encode(obj, &item)  # which may call the queue, too
        cdef sq_user *u = self._user()
        cdef sq_status status = sq_put(&self._core, u, &item, 1, &put, 0)
        if status != SQ_OK:
            self._put_later(u, &item, 1, &put, status, _deadline(block, timeout))

    def put_nowait(self, obj):
        """`put` without waiting. Raises queue.Full."""
        self.put(obj, False)

    def put_many(self, items, bint block=True, timeout=None):
        """Put all messages of an iterable, several at a time; how many there were.

        `timeout`: seconds to wait in all while the queue is full, None for ever. Raises as `put` does; those before it
        have been put, and the one argument of queue.Full says how many.
        """
        cdef uint64_t deadline = _deadline(block, timeout)
        cdef uint64_t filled = 0, total = 0
        cdef sq_item *batch
        cdef list kept = []
        cdef sq_user *u
        self._check()
        batch = <sq_item *>malloc(MOST_ITEMS * sizeof(sq_item))
        if batch == NULL:
            raise MemoryError
        try:
            try:
                for obj in items:
                    alive = _encode(obj, &batch[filled])
                    if alive is not None:
                        kept.append(alive)
                    filled += 1
                    if filled == MOST_ITEMS:
                        filled = 0
                        self._put_batch(batch, MOST_ITEMS, &total, deadline)
                        kept.clear()
            finally:
                if filled:
                    self._put_batch(batch, filled, &total, deadline)
        finally:
            free(batch)
        return total

    cdef int _put_batch(self, sq_item *batch, uint64_t number, uint64_t *total, uint64_t deadline) except -1:
        cdef uint64_t done = 0, put
        cdef sq_status status
        cdef sq_user *u = self._user()
        while done < number:
            status = sq_put(&self._core, u, &batch[done], number - done, &put, 0)
            if status != SQ_OK and not put:
                try:
                    self._put_later(u, &batch[done], number - done, &put, status, deadline)
                except Full:
                    raise Full(total[0]) from None
            done += put
            total[0] += put
        return 0

    cdef int _put_later(self, sq_user *u, sq_item *items, uint64_t number, uint64_t *put, sq_status status,
                        uint64_t deadline) except -1:
        """Put at least one of them, waiting for what kept a first attempt from that."""
        cdef uint64_t until, patient = rb_now() + PATIENCE
        cdef uint64_t last = deadline if deadline else patient
        cdef rb_look look
        while not put[0]:
            if status == SQ_CORRUPT or status == SQ_GONE:
                raise self._corrupt()
            if rb_now() >= (last if status == SQ_BUSY else deadline):
                if status == SQ_NO_SPACE:
                    raise Full(f"no memory is free for another ring of the queue: {REMEDIES[ENOSPC]}")
                raise Full
            until = min(last if status == SQ_BUSY else deadline, rb_now() + SQ_SLICE_NS)
            look = sq_look_room if status == SQ_WAIT else <rb_look>_never
            u.busy = True
            with nogil:
                if status != SQ_BUSY:
                    sq_sleep(u, &self._core.shared.consumers.bell, look, &self._look, until)
                status = sq_put(&self._core, u, items, number, put, until)
            u.busy = False
            if not put[0]:
                self._attend()
        return self._returned()

    # Getting ------------------------------------------------------------------------------------------------------

    def get(self, bint block=True, timeout=None):
        """Take the oldest message.

        It is in hand until this thread's next get, `task_done`, or its end. `timeout`: seconds to wait for one, None
        for ever. Raises queue.Empty, ValueError where the queue is closed here, and what unpickling raises; the
        message is gone then.
        """
        if self._closed:
            self._check()
        cdef sq_user *u = self._user()
        if u.at == u.end:
            self._take(u, 1, block, timeout)
        return _decode(u)

    def get_nowait(self):
        """`get` without waiting. Raises queue.Empty."""
        return self.get(False)

    def get_many(self, uint64_t most, bint block=True, timeout=None):
        """Take up to `most` messages, at least one; they are in hand as one is.

        `timeout`: seconds to wait for the first, None for ever. Raises as `get` does; where a message but the first
        cannot be unpickled, those before it come and the next call raises.
        """
        cdef list taken = []
        cdef uint64_t before
        self._check()
        if most < 1:
            return taken
        cdef sq_user *u = self._user()
        if u.at == u.end:
            self._take(u, most, block, timeout)
        while u.at < u.end and <uint64_t>len(taken) < most:
            before = u.at
            if not taken:
                taken.append(_decode(u))
                continue
            try:
                taken.append(_decode(u))
            except Exception:
                u.at = before
                break
        return taken

    cdef int _take(self, sq_user *u, uint64_t most, bint block, timeout) except -1:
        cdef uint64_t got = 0
        cdef sq_status status = SQ_WAIT
        sq_empty_hand(&self._core, u)
        u.at = u.end = 0
        if rb_load(&self._core.shared.orphans):
            status = sq_take_over(&self._core, u, 0)
        if status != SQ_OK:
            status = sq_get(&self._core, u, most, &got, 0)
        if status != SQ_OK:
            self._take_later(u, most, status, _deadline(block, timeout))
        return 0

    cdef int _take_later(self, sq_user *u, uint64_t most, sq_status status, uint64_t deadline) except -1:
        cdef uint64_t until, got = 0, patient = rb_now() + PATIENCE
        cdef uint64_t last = deadline if deadline else patient
        while u.end == 0:
            if status == SQ_CORRUPT or status == SQ_GONE:
                raise self._corrupt()
            if status == SQ_NO_SPACE:
                raise NoResource(bus=None, what=f"memory for a message of queue {self.name!r}",
                                 reason="the system has none", remedy="Free some, in /dev/shm, too, then call again")
            if rb_now() >= (last if status == SQ_BUSY else deadline):
                raise Empty
            until = min(last if status == SQ_BUSY else deadline, rb_now() + SQ_SLICE_NS)
            u.busy = True
            with nogil:
                if status != SQ_BUSY:
                    sq_sleep(u, &self._core.shared.producers.bell, sq_look_message, &self._look, until)
                status = SQ_WAIT
                if rb_load(&self._core.shared.orphans):
                    status = sq_take_over(&self._core, u, until)
                if status != SQ_OK:
                    status = sq_get(&self._core, u, most, &got, until)
            u.busy = False
            if u.end == 0:
                self._attend()
        return self._returned()

    cdef int _attend(self) except -1:
        """While waiting: run signals' handlers, and look now and then who has died."""
        PyErr_CheckSignals()
        self._returned()
        self._check()
        if rb_now() - self._looked >= SQ_SLICE_NS:
            self._look_after_deaths()
        return 0

    # What is known of it ------------------------------------------------------------------------------------------

    def qsize(self):
        """How many messages are in the queue; those in hand are not."""
        self._check()
        cdef uint64_t taken = rb_load_acquire(&self._core.shared.consumers.count)
        cdef uint64_t put = rb_load(&self._core.shared.producers.count)
        return put - taken if put > taken else 0

    def empty(self):
        """Whether a get would wait."""
        return not self.qsize() and not rb_load(&self._core.shared.orphans)

    def full(self):
        """Whether a put would wait for `maxsize`."""
        size = self.qsize()
        return 0 < self.maxsize <= size

    @property
    def lost(self):
        """How many messages died in somebody's hand."""
        self._check()
        return rb_load(&self._core.shared.book.lost)

    @property
    def unfinished(self):
        """Messages that were put and neither done nor lost."""
        self._check()
        return sq_unfinished(self._core.shared)

    @property
    def closed(self):
        """Whether this process has closed it."""
        return self._closed

    def task_done(self):
        """Say that a message is done. Raises ValueError where none is unfinished."""
        self._check()
        cdef sq_user *u = self._user()
        cdef sq_status status = sq_task_done(&self._core, u, 0)
        while status == SQ_BUSY:
            u.busy = True
            with nogil:
                status = sq_task_done(&self._core, u, rb_now() + SQ_SLICE_NS)
            u.busy = False
            if status == SQ_BUSY:
                self._attend()
        if status != SQ_OK:
            raise ValueError("task_done() called too many times")

    def join(self, timeout=None):
        """Wait until all that was put is done or lost; whether it is. `timeout`: seconds, None for ever."""
        self._check()
        cdef uint64_t until, deadline = _deadline(True, timeout)
        cdef sq_user *u = self._user()
        while sq_unfinished(self._core.shared):
            if rb_now() >= deadline:
                return False
            until = min(deadline, rb_now() + SQ_SLICE_NS)
            u.busy = True
            with nogil:
                sq_sleep(u, &self._core.shared.book.bell, sq_look_finished, &self._look, until)
            u.busy = False
            self._attend()
        return True

    # Users --------------------------------------------------------------------------------------------------------

    def _use(self, pledge=None):
        """Be a user of the queue from now on, as every call is: after a fork, the child, whose parent has pledged a row
        before. Raises QueueGone, NoResource."""
        self._check()
        if self._forks != _forks:
            self._begin_process(pledge)
        self._user()

    def _keep_row(self, child=None):
        """Keep a row for another process; the number to `open` it with. `child`: says which that is: a pid, 0 where it
        has ended, None as long as that is not known; without, the row is kept until this process ends. Raises
        NoResource."""
        self._check()
        self._user()
        self._name_pledges()
        cdef uint32_t row = self._claim(SQ_PLEDGED)
        if child is not None:
            self._awaited[row, _pledges] = child
        return row

    cdef int _name_pledges(self) except -1:
        """From now on the rows of children that are known are kept by themselves, as long as they live."""
        for (row, number), child in list(self._awaited.items()):
            pid = child()
            if pid is not None and sq_name_pledge(&self._core, row, number, pid, rb_now() + PATIENCE) == SQ_OK:
                self._awaited.pop((row, number), None)
        return 0

    def _look_after_deaths(self):
        """Free the rows of dead processes; how many messages they had in hand. Waiting calls do it, too."""
        self._check()
        cdef uint64_t i, in_hand = 0, total = 0
        cdef sq_user nobody
        cdef sq_user *u
        cdef uint64_t pid
        u = &(<Stay>self._latest).user if self._latest != NULL else NULL
        if u == NULL:
            nobody.row = 0
            u = &nobody
        self._looked = rb_now()
        for i in range(min(rb_load_acquire(&self._core.shared.rows_used), <uint64_t>SQ_ROWS)):
            pid = rb_load(&self._core.shared.rows[i].pid)
            if sq_bury(&self._core, u, i, rb_now() + PATIENCE, &in_hand) == SQ_OK and in_hand:
                total += in_hand
                log.warning(
                    "queue %r: process %d died with %d message%s in hand, %s", self.name, pid, in_hand,
                    "" if in_hand == 1 else "s",
                    "which will be delivered again" if self.redeliver else "lost",
                )
        return total

    def _leave(self, bint at_exit=False):
        """End the use of the queue by this object; where nobody else uses it, remove its names: True. `at_exit`: the
        process ends, and its children have. Nothing happens if it is closed."""
        if self._closed:
            return False
        self._closed = True
        if self._forks != _forks:
            return False
        self._name_pledges()
        self._give_back()
        return sq_take_leave(&self._core, at_exit, rb_now() + 10 * PATIENCE)

    cdef object _corrupt(self):
        return RingCorrupt(self.name, "a ring is not as its users leave it", 0, 0, 0)

    def __reduce__(self):
        raise TypeError("a queue's core is not pickled: pass its name, and a pledge")


def users_of(str name not None):
    """Who uses the queue of that name, the dead included that nobody has looked after.

    Raises ringbuf's SegmentErrors."""
    segment = Segment.attach(name, kind=SQ_KIND, layout=SQ_LAYOUT, size=sizeof(sq_queue))
    memory = segment.memory
    cdef sq_queue *shared = <sq_queue *><uintptr_t>memory.address
    cdef list users = []
    cdef sq_row *row
    cdef uint64_t i, state
    for i in range(min(rb_load_acquire(&shared.rows_used), <uint64_t>SQ_ROWS)):
        row = &shared.rows[i]
        state = rb_load_acquire(&row.state)
        if state == SQ_USED or state == SQ_PLEDGED:
            users.append(User(i + 1, rb_load(&row.pid), rb_load(&row.start_time), rb_load(&row.tid),
                              state == SQ_PLEDGED, rb_load(&row.hand_count)))
    return users
