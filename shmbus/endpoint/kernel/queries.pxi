# Queries: what the dispatcher tells of who receives or handles a type, and what an endpoint keeps of it.

@cython.final
cdef class Addressee:
    """Whom a request is for and nobody else: an endpoint, or (`dispatcher`) the dispatcher, of whom it is a query."""

    cdef uint16_t _kind, _flags, _slot
    cdef uint32_t _generation
    cdef readonly str name       # of the endpoint

    def __init__(self):
        raise TypeError("made by Requests.query()")

    cdef bint is_endpoint(self, uint32_t slot, uint32_t generation) noexcept:
        return self._slot == slot and self._generation == generation


cdef Addressee addressee_of(uint64_t whom, str name):
    cdef Addressee made = Addressee.__new__(Addressee)
    made._kind, made._flags, made.name = SB_REQUEST, SB_DIRECTED, name
    made._slot, made._generation = <uint16_t>sb_whom_slot(whom), sb_whom_generation(whom)
    return made


cpdef Addressee dispatcher_from(uint16_t first):
    """For a query that names the handlers from this slot on."""
    cdef Addressee made = Addressee.__new__(Addressee)
    made._kind, made._slot, made.name = SB_QUERY, first, ""
    return made


@cython.final
cdef class Found:
    """What the dispatcher answered to a query: of some version of the routes, how many endpoints would get an event and
    how many handle it; those as addressees, one after the other."""

    cdef readonly uint64_t version
    cdef readonly uint32_t receivers
    cdef readonly uint32_t handlers
    cdef readonly list addressees
    cdef uint32_t _next          # the first slot that it does not tell of; SB_MAX_SLOTS: it tells of all

    def __init__(self):
        raise TypeError("made by Requests.query()")


cdef enum:
    KNOWN_MATCHES = 4096         # types of which an endpoint remembers how many receive or handle them


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Matches:
    """How many endpoints receive, or handle, a type, as far as that was asked for since the routes changed last."""

    cdef Connection _connection
    cdef uint64_t _version
    cdef dict _receivers, _handlers

    def __cinit__(self, Connection connection not None):
        self._connection = connection
        self._receivers, self._handlers = {}, {}

    cdef inline object known(self, str pattern, bint handlers):
        """None: not known (any more)."""
        cdef uint64_t version = rb_load_acquire(&self._connection.e.bus.routes_version)
        if version != self._version:
            return None
        return (self._handlers if handlers else self._receivers).get(pattern)

    cdef int learn(self, str pattern, Found found) except -1:
        if found.version != self._version or len(self._receivers) >= KNOWN_MATCHES:
            self._receivers, self._handlers = {}, {}
            self._version = found.version
        self._receivers[pattern] = found.receivers
        self._handlers[pattern] = found.handlers
        return 0
