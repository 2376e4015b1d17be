# What an endpoint calls for the messages of a type.

cdef enum:
    KNOWN_SETS = 1024            # of two types that an endpoint remembers
    KNOWN_KEYS = 4096            # sets of interests whose callbacks it remembers


cdef struct KnownType:
    PyObject *type               # a string; NULL: none
    PyObject *callbacks          # of this version; not owned
    uint32_t version             # 0: none
    uint32_t hash


@cython.final
cdef class Late:
    """Whether a subscription with history gets what others get: only after all that was kept, which comes for it alone.
    From an SB_LIVE on, but what was kept under the number in that, or a lower one, it has got."""

    cdef readonly uint64_t id    # of the subscription
    cdef uint64_t since          # how many SB_LIVE this endpoint had taken with its own; 0: not yet
    cdef uint64_t number

    def __init__(self, *, uint64_t id):
        self.id = id

    cdef inline bint gets(self, Message m) noexcept:
        if not self.since or m._lives < self.since:
            return False
        return not m._header.flags & SB_RETAIN or kept_number(&m._header) > self.number


cdef inline uint64_t kept_number(const sb_record *header) noexcept:
    cdef uint64_t number
    memcpy(&number, header.correlation, sizeof(number))
    return number


@cython.final
cdef class EventCallback:
    """What is called for the events of one subscription."""

    cdef uint32_t mask           # the bit of the subscription in a message's interests
    cdef uint64_t id             # of the subscription
    cdef bint addressed          # it gets only what comes for it alone
    cdef Late late               # it has history; None: it has none
    cdef object function
    cdef object payload_type
    cdef bint retry              # what it raises gives the message of a group back
    cdef uint64_t limit_ns       # that it may take; 0: no limit
    cdef Gate gate               # it is asynchronous, and its jobs begin here; None: it is called

    def __init__(self, *, uint64_t id, uint8_t bit, function, payload_type, bint retry=False, limit=None,
                 Gate gate=None, bint addressed=False, Late late=None):
        self.late = late
        self.mask = <uint32_t>1 << bit
        self.id = id
        self.addressed = addressed
        self.function = function
        self.payload_type = payload_type
        self.retry = retry
        self.gate = gate
        self.limit_ns = 0 if limit is None else span_ns(limit)

    cdef inline bint gets(self, Message m) noexcept:
        if m._alone:
            return m._alone == self.id
        if self.late is not None and not self.late.gets(m):
            return False
        return not self.addressed and m._header.interests & self.mask


@cython.final
cdef class Callbacks:
    """What an endpoint calls for messages of one type, and which of them it yields instead."""

    cdef tuple events            # of EventCallback
    cdef uint32_t yields         # bits of the subscriptions without a callback, but those that get only what comes for
                                 # them alone
    cdef object payload_type     # of what is yielded
    cdef dict alone              # the same of what comes for one of them alone, by its id
    cdef tuple late              # those of all that are no members of groups, if each has history; else None
    cdef object handler          # of commands and requests, or None
    cdef object handler_type
    cdef uint64_t limit_ns       # that the handler may take; 0: no limit
    cdef Gate gate               # the handler is asynchronous, and its jobs begin here; None: it is called
    cdef bint redeliver

    def __init__(self, *, tuple events not None, uint32_t yields, payload_type, dict alone not None, handler,
                 handler_type, limit, bint redeliver, Gate gate=None, tuple late=None):
        self.late = late
        self.events = events
        self.yields = yields
        self.payload_type = payload_type
        self.alone = alone
        self.handler = handler
        self.handler_type = handler_type
        self.limit_ns = 0 if limit is None else span_ns(limit)
        self.redeliver = redeliver
        self.gate = gate

    cdef inline bint yield_it(self, Message m) except -1:
        """Whether the message is for a subscription without a callback; its payload is that one's then."""
        if m._alone:
            if m._alone not in self.alone:
                return False
            m.expect(self.alone[m._alone])
            return True
        cdef uint32_t bits = self.yields & m._header.interests
        if not bits or (self.late is not None and bits == SB_PLAIN and not self.late_gets(m)):
            return False
        m.expect(self.payload_type)
        return True

    cdef bint late_gets(self, Message m) noexcept:
        for item in self.late:
            if (<Late>item).gets(m):
                return True
        return False


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class CallbackTable:
    """The types that have come, as strings, and the callbacks of each until an interest changes.

    Callbacks depend on nothing but the interests that match. So a type that is not known (any more) costs a string
    and a look into the patterns, and Python is asked only for a set of interests that have not met before."""

    cdef PatternTable _patterns  # Upcalls.patterns
    cdef object _resolve         # Upcalls.callbacks
    cdef dict late               # the subscriptions with history, by id
    cdef KnownType _known[KNOWN_SETS][2]    # by hash; of each two the latest is first
    cdef KnownType *_last        # asked for
    cdef dict _of_keys           # by what `_patterns` has for a type. It owns all of this version
    cdef uint32_t _version       # of the interests: what has another one must be found again
    cdef bint redelivers         # some handler is redeliver=True
    cdef object groups           # Upcalls.groups

    def __cinit__(self, PatternTable patterns not None, resolve, dict late not None, groups):
        self.late, self.groups = late, groups
        self._patterns = patterns
        self._resolve = resolve
        self._of_keys = {}
        self._version = 1
        self._last = &self._known[0][0]

    def __dealloc__(self):
        cdef int i
        for i in range(KNOWN_SETS):
            Py_XDECREF(self._known[i][0].type)
            Py_XDECREF(self._known[i][1].type)

    cdef KnownType *_entry(self, const char *type, Py_ssize_t length, str text) noexcept:
        """That of a type, for which `text` is the string, if there is one already. NULL: no memory."""
        cdef KnownType *last = self._last
        if last.type != NULL and sb_is_text(last.type, type, length):
            return last
        cdef uint32_t hash = <uint32_t>sb_hash(type, <size_t>length, 0)
        cdef KnownType *two = self._known[hash % KNOWN_SETS]
        cdef PyObject *fresh
        cdef int i
        for i in range(2):
            if two[i].type != NULL and two[i].hash == hash and sb_is_text(two[i].type, type, length):
                self._last = &two[i]
                return &two[i]
        if text is None:
            fresh = sb_new_ascii(type, length)
            if fresh == NULL:
                PyErr_Clear()
                return NULL
        else:
            fresh = <PyObject *>text
            Py_INCREF(fresh)
        Py_XDECREF(two[1].type)
        two[1] = two[0]
        two[0].type = fresh
        two[0].hash = hash
        two[0].version = 0
        self._last = two
        return two

    cdef inline str type_of(self, const char *type, Py_ssize_t length):
        """The string for a type that has come, or None: no memory. Runs no Python code, as the next."""
        cdef KnownType *entry = self._entry(type, length, None)
        return <str><object>entry.type if entry != NULL else None

    cdef inline Callbacks known(self, str type):
        """None where `find` must be called first."""
        cdef KnownType *entry = self._last
        if entry.type != <PyObject *>type:
            entry = self._entry_of(type)
        return <Callbacks>entry.callbacks if entry != NULL and entry.version == self._version else None

    cdef KnownType *_entry_of(self, str type) noexcept:
        return self._entry(<const char *>PyUnicode_1BYTE_DATA(type), PyUnicode_GET_LENGTH(type), type)

    cdef Callbacks find(self, str type):
        """The callbacks of a type, which are then known."""
        cdef uint32_t version = self._version
        cdef dict of_keys = self._of_keys
        cdef bytes keys = self._patterns.match(type)
        cdef ep_pattern *alone = self._patterns.alone()
        cdef Callbacks found
        if alone != NULL and alone.version == version:
            return self._remember(type, <Callbacks>alone.callbacks)
        found = of_keys.get(keys)
        if found is None:
            found = self._resolve(keys_in(keys))
            if self._version != version:
                return found     # an interest has changed meanwhile
            if len(of_keys) >= KNOWN_KEYS:
                self.forget(self.redelivers)
            self._of_keys[keys] = found
        if self._patterns.match(type) == keys:
            alone = self._patterns.alone()
            if alone != NULL:
                alone.callbacks = <PyObject *>found
                alone.version = self._version
        return self._remember(type, found)

    cdef inline Callbacks _remember(self, str type, Callbacks found):
        """These are its callbacks in this version, which owns them."""
        cdef KnownType *entry = self._entry_of(type)
        if entry != NULL:
            entry.callbacks = <PyObject *>found
            entry.version = self._version
        return found

    cdef int forget(self, bint redelivers) except -1:
        """An interest has changed."""
        self._version += 1
        self._of_keys = {}
        self.redelivers = redelivers
        return 0
