# A record lent to the caller as a memoryview, in place.


@cython.final
@cython.internal
cdef class Loan:
    """A piece of a ring as a buffer that counts its views."""

    cdef RingCore _ring
    cdef Mapping _mapping
    cdef void *_at
    cdef Py_ssize_t _size
    cdef bint _writable
    cdef int _views
    cdef object _view            # the one handed out first; weakly, as it refers to this object

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self._at, self._size, not self._writable, flags)
        self._views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self._views -= 1

    cdef bint _returned(self):
        """Take back the view handed out; False while others, made from it, are alive."""
        view = self._view()
        if view is not None:
            try:
                view.release()
            except BufferError:
                return False
        return self._views == 0


cdef Loan _lend(RingCore ring, const void *at, Py_ssize_t size, bint writable):
    cdef Loan loan = Loan.__new__(Loan)
    loan._ring = ring
    loan._mapping = ring._mapping
    loan._at = <void *>at
    loan._size = size
    loan._writable = writable
    return loan


cdef object _view(Loan loan):
    view = memoryview(loan)
    loan._view = ref(view)
    return view
