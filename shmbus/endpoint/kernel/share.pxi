# A large payload, in the pool of its sender: a receiver's share of it.


@cython.final
cdef class Share:
    """The bytes of a large payload, read-only, as they lie in shared memory. Whatever is made of them without a copy
    keeps it alive, and so the memory, which its sender cannot use meanwhile."""

    cdef ep_share *at
    cdef Py_ssize_t views        # buffers that were given out, and not back

    def __dealloc__(self):
        if self.at != NULL:
            ep_free_share(self.at)

    def __len__(self):
        return <Py_ssize_t>ep_share_size(self.at)

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef const uint8_t *data = ep_share_data(self.at)
        if data == NULL:
            raise BufferError("it lies in a pool that is not there, or could not be mapped")
        PyBuffer_FillInfo(view, self, <void *>data, <Py_ssize_t>ep_share_size(self.at), 1, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.views -= 1

    cdef bytes copied(self):
        """All of it, as bytes. Other threads may run meanwhile, so whoever calls this has a reference to it."""
        cdef const uint8_t *data = ep_share_data(self.at)
        cdef Py_ssize_t size = <Py_ssize_t>ep_share_size(self.at)
        if data == NULL:
            raise BufferError("it lies in a pool that is not there, or could not be mapped")
        made = PyBytes_FromStringAndSize(NULL, size)
        cdef char *to = <char *>PyBytes_AS_STRING(made)
        self.views += 1
        with nogil:
            memcpy(to, data, size)
        self.views -= 1
        return made


    cdef void settle(self, bint yields) noexcept:
        """It was just entered, and nobody else knows it: now it is copied where it is to be. `yields`: other threads may
        run meanwhile."""
        if self.at.first:
            ep_wake_watcher()      # which unmaps that pool one day
        if not ep_copies_share(self.at):
            return
        if yields:
            with nogil:
                ep_copy_share(self.at)
        else:
            ep_copy_share(self.at)


cdef Share free_share():
    """To be filled in: made before anything is entered or taken, since there may be no memory. It has no cycles, so this
    runs no Python code, and may be done under the lock. None: no memory."""
    try:
        return Share.__new__(Share)
    except MemoryError:
        return None
