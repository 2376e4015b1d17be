# A large payload, in the pool of its sender: a receiver's share of it.


cdef str unmapped_text(const ep_share *share):
    cdef int why = share.unmapped
    if why == 0 or why == ENOENT:
        return "it lies in a pool that is not there any more"
    advice = "" if why not in ADVICE else f": {ADVICE[why]}"
    return f"it lies in a pool that could not be mapped, {os.strerror(why)}{advice}"


@cython.final
cdef class Share:
    """The bytes of a large payload, read-only, as they lie in shared memory. Whatever is made of them without a copy
    keeps it alive, and so the memory, which its sender cannot use meanwhile."""

    cdef ep_share *at
    cdef Py_ssize_t behind       # bytes of an origin behind the payload
    cdef Py_ssize_t views        # buffers that were given out, and not back

    def __dealloc__(self):
        if self.at != NULL:
            ep_free_share(self.at)

    cdef inline Py_ssize_t size(self) noexcept:
        """Bytes of the payload."""
        return <Py_ssize_t>ep_share_size(self.at) - self.behind

    def __len__(self):
        return self.size()

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef const uint8_t *data = ep_share_data(self.at)
        if data == NULL:
            raise BufferError(unmapped_text(self.at))
        PyBuffer_FillInfo(view, self, <void *>data, self.size(), 1, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.views -= 1

    cdef bytes copied(self):
        """All of it, as bytes. Other threads may run meanwhile, so whoever calls this has a reference to it."""
        cdef const uint8_t *data = ep_share_data(self.at)
        cdef Py_ssize_t size = self.size()
        if data == NULL:
            raise BufferError(unmapped_text(self.at))
        made = PyBytes_FromStringAndSize(NULL, size)
        cdef char *to = <char *>PyBytes_AS_STRING(made)
        self.views += 1
        with nogil:
            memcpy(to, data, size)
        self.views -= 1
        return made


    cdef void settle(self, bint yields) noexcept:
        """It was just entered, and nobody else knows it: now it is copied where it is to be. `yields`: other threads
        may run meanwhile."""
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
    """To be filled in: made before anything is entered or taken, since there may be no memory. It has no cycles, so
    this runs no Python code, and may be done under the lock. None: no memory."""
    try:
        return Share.__new__(Share)
    except MemoryError:
        return None


@cython.final
@cython.freelist(64)
cdef class Viewed:
    """The bytes of a payload that came in its record, read-only and aligned like those of a `Share`, and how often they
    are viewed."""

    cdef bytes _memory
    cdef char *_at
    cdef Py_ssize_t _size
    cdef Py_ssize_t views        # buffers that were given out, and not back

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self._at, self._size, 1, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.views -= 1

    def __len__(self):
        return self._size


cdef Viewed aligned_copy(const uint8_t *data, Py_ssize_t size):
    """Like `free_share`, it may be made under the lock. None: no memory."""
    cdef Viewed viewed
    try:
        viewed = Viewed.__new__(Viewed)
        viewed._memory = PyBytes_FromStringAndSize(NULL, size + EP_VIEW_ALIGN)
    except MemoryError:
        return None
    viewed._at, viewed._size = <char *>PyBytes_AS_STRING(viewed._memory), size
    viewed._at += EP_VIEW_ALIGN - <uintptr_t>viewed._at % EP_VIEW_ALIGN
    memcpy(viewed._at, data, size)
    return viewed


cdef Viewed viewed_of(bytes raw):
    """They are copied where they are not aligned."""
    cdef Viewed viewed
    if <uintptr_t>PyBytes_AS_STRING(raw) % EP_VIEW_ALIGN:
        viewed = aligned_copy(<const uint8_t *>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
        if viewed is None:
            raise MemoryError
        return viewed
    viewed = Viewed.__new__(Viewed)
    viewed._memory, viewed._at, viewed._size = raw, <char *>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)
    return viewed
