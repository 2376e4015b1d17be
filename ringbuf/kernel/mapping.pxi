# The memory of a segment: reserved, and mapped.


def reserve(int fd, long start, long length):
    """Give so many bytes of the file from `start` memory of their own. An error number: EINTR where a signal came
    first and nothing was done; 0: it is done."""
    cdef int error
    with nogil:
        error = rb_reserve(fd, start, length)
    return error


@cython.final
cdef class Mapping:
    """A file's first `size` bytes in memory, shared with all who map it, and left out of core dumps.

    A buffer, read-only unless `writable`. It stays mapped as long as anything refers to it or views it.
    Raises OSError.
    """

    cdef char *_at
    cdef readonly size_t size
    cdef readonly bint writable

    def __cinit__(self, int fd, size_t size, *, bint writable=False):
        cdef void *at = mmap(NULL, size, PROT_READ | (PROT_WRITE if writable else 0), MAP_SHARED, fd, 0)
        if at == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        madvise(at, size, MADV_DONTDUMP)  # if Linux refuses, core dumps are larger, no more
        self._at = <char *>at
        self.size = size
        self.writable = writable

    def __dealloc__(self):
        if self._at != NULL:
            munmap(self._at, self.size)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self._at, <Py_ssize_t>self.size, not self.writable, flags)

    def __len__(self):
        return self.size

    @property
    def address(self):
        """Where it begins, for native code that holds a reference to this object meanwhile."""
        return <uintptr_t>self._at

    cdef rb_word *_word(self, uint64_t offset, bint write) except NULL:
        if offset & 7 or self.size < 8 or offset > self.size - 8:
            raise IndexError(f"no 8-byte word at offset {offset} of {self.size} bytes")
        if write and not self.writable:
            raise TypeError("the mapping is read-only")
        return <rb_word *>(self._at + offset)

    def load(self, uint64_t offset) -> int:
        """The unsigned 64-bit word at `offset`, and with it (acquire) all that its writer wrote before."""
        return rb_load_acquire(self._word(offset, False))

    def store(self, uint64_t offset, uint64_t value) -> None:
        """Store an unsigned 64-bit word and with it (release) publish all that was written before."""
        rb_store_release(self._word(offset, True), value)

    cdef rb_prefix *_prefix(self) except NULL:
        if self.size < sizeof(rb_prefix):
            raise IndexError(f"{self.size} bytes are too few for a prefix of {sizeof(rb_prefix)}")
        return <rb_prefix *>self._at

    def write_prefix(self, uint64_t layout, uint32_t kind, uint64_t generation=0) -> None:
        """Make this a segment that others may open; whatever else they read must have been written already."""
        cdef rb_prefix *prefix = self._prefix()
        cdef rb_word *magic = self._word(0, True)
        prefix.layout = layout
        prefix.size = self.size
        prefix.generation = generation
        prefix.kind = kind
        rb_store_release(magic, RB_MAGIC)

    def read_prefix(self) -> Prefix:
        """The prefix, unchecked."""
        cdef rb_prefix *prefix = self._prefix()
        cdef uint64_t magic = rb_load_acquire(&prefix.magic)
        if magic == 0:
            return Prefix(0, 0, 0, 0, 0, 0)
        return Prefix(magic=magic, layout=prefix.layout, size=prefix.size, generation=prefix.generation,
                      superseded_by=rb_load_acquire(&prefix.superseded_by), kind=prefix.kind)
