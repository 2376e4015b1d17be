# Deadlines: until when a request may take, and what the requests of its handler inherit of that.

cdef object IN_FORCE = contextvars.ContextVar("shmbus.deadline", default=None)  # a Deadline, or None

deadline_in_context = IN_FORCE   # for Python


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class Deadline:
    """Until when something may take.

    `ns`: by CLOCK_MONOTONIC.
    `seconds`: how long that was at its beginning; None: for ever.
    `origin`: whose it is: the type of the request that is handled; empty: that of `within`; None: nobody else's.
    """

    cdef readonly uint64_t ns
    cdef readonly object seconds
    cdef readonly str origin

    def __init__(self):
        raise TypeError("made by until() and deadline_of()")

    @property
    def left(self):
        """Seconds until then, or since."""
        return None if self.ns == NEVER else (<int64_t>(self.ns - rb_now())) / 1e9


cpdef Deadline in_force():
    """The deadline of what the caller does; None: it has none."""
    cdef PyObject *found = NULL
    PyContextVar_Get(IN_FORCE, NULL, &found)
    deadline = <object>found
    Py_XDECREF(found)
    return <Deadline>deadline


cpdef Deadline until(object timeout, Deadline outer, str origin=None, str what="timeout"):
    """After `timeout` seconds (None: never), or when `outer` ends, if that is sooner. Raises `InvalidSetting`, which
    calls it `what`."""
    cdef uint64_t now = rb_now()
    cdef Deadline deadline = Deadline.__new__(Deadline)
    deadline.ns = deadline_after(span_ns(timeout, what), now)
    deadline.seconds = timeout
    deadline.origin = origin
    if outer is not None and outer.ns < deadline.ns:
        deadline.ns = outer.ns
        deadline.seconds = (outer.ns - now) / 1e9 if outer.ns > now else 0.0
        deadline.origin = outer.origin
    return deadline


cpdef Deadline deadline_of(Message m):
    """What is in force while the callbacks of a message run: a request's own, nothing for all else."""
    cdef Deadline deadline
    if m._header.kind != SB_REQUEST or not m._header.deadline_ns:
        return None
    deadline = Deadline.__new__(Deadline)
    deadline.ns = m._header.deadline_ns
    deadline.origin = m.type
    return deadline
