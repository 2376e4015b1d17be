# What an endpoint calls for the messages of a type.


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
    """The callbacks of each type that has come, until an interest changes."""

    cdef object _resolve         # Upcalls.callbacks
    cdef dict _known
    cdef bint redelivers         # some handler is redeliver=True

    def __cinit__(self, resolve):
        self._resolve = resolve
        self._known = {}

    cdef inline Callbacks known(self, str type):
        """None where `find` must be called first. Runs no Python code, so it may be called under the lock."""
        cdef PyObject *found = PyDict_GetItem(self._known, <PyObject *>type)
        return <Callbacks>found if found != NULL else None

    cdef Callbacks find(self, str type):
        if len(self._known) >= TYPES:
            self._known = {}
        cdef dict known = self._known
        cdef Callbacks found = self._resolve(type)
        known[type] = found      # if an interest changed meanwhile, `known` is no longer in use
        return found

    cdef int forget(self, bint redelivers) except -1:
        self._known = {}
        self.redelivers = redelivers
        return 0
