# What an endpoint calls for the messages of a type.

cdef int KNOWN = 4096            # types, or sets of interests, whose callbacks an endpoint remembers


@cython.final
cdef class EventCallback:
    """What is called for the events of one subscription."""

    cdef uint32_t mask           # the bit of the subscription in a message's interests
    cdef object function
    cdef object payload_type

    def __init__(self, *, uint8_t bit, function, payload_type):
        self.mask = <uint32_t>1 << bit
        self.function = function
        self.payload_type = payload_type


@cython.final
cdef class Callbacks:
    """What an endpoint calls for messages of one type, and which of them it yields instead."""

    cdef tuple events            # of EventCallback
    cdef uint32_t yields         # bits of the subscriptions without a callback
    cdef object payload_type     # of what is yielded
    cdef object handler          # of commands and requests, or None
    cdef object handler_type
    cdef bint redeliver

    def __init__(self, *, tuple events not None, uint32_t yields, payload_type, handler, handler_type,
                 bint redeliver):
        self.events = events
        self.yields = yields
        self.payload_type = payload_type
        self.handler = handler
        self.handler_type = handler_type
        self.redeliver = redeliver


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class CallbackTable:
    """The callbacks of each type that has come, until an interest changes.

    They depend on nothing but the interests that match it. So a type that is not known yet costs a look into the
    patterns, and Python is asked only for a set of interests that have not met before."""

    cdef PatternTable _patterns  # Upcalls.patterns
    cdef object _resolve         # Upcalls.callbacks
    cdef dict _known             # by type
    cdef dict _of_keys           # by what `_patterns` has for it
    cdef bint redelivers         # some handler is redeliver=True

    def __cinit__(self, PatternTable patterns not None, resolve):
        self._patterns = patterns
        self._resolve = resolve
        self._known = {}
        self._of_keys = {}

    cdef inline Callbacks known(self, str type):
        """None where `find` must be called first. Runs no Python code, so it may be called under the lock."""
        cdef PyObject *found = PyDict_GetItem(self._known, <PyObject *>type)
        return <Callbacks>found if found != NULL else None

    cdef Callbacks find(self, str type):
        if len(self._known) >= KNOWN:
            self._known = {}
        if len(self._of_keys) >= KNOWN:
            self._of_keys = {}
        # If an interest changes meanwhile, these two are no longer in use.
        cdef dict known = self._known, of_keys = self._of_keys
        cdef tuple keys = self._patterns.find(type)
        cdef Callbacks found = of_keys.get(keys)
        if found is None:
            found = of_keys[keys] = self._resolve(keys)
        known[type] = found
        return found

    cdef int forget(self, bint redelivers) except -1:
        self._known = {}
        self._of_keys = {}
        self.redelivers = redelivers
        return 0
