# cython: language_level=3, auto_pickle=False, autotestdict=False
"""The kernel's mappings, rings and bells, as Python sees them."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_SetFromErrno
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uintptr_t

cdef extern from "ringbuf/native/order.h" nogil:
    ctypedef struct rb_word:
        pass
    uint64_t rb_load_acquire(const rb_word *)
    void rb_store_release(rb_word *, uint64_t)

cdef extern from "ringbuf/native/prefix.h" nogil:
    const uint64_t RB_MAGIC
    const uint64_t RB_FINGERPRINT_START
    cdef struct rb_prefix:
        rb_word magic
        uint64_t layout
        uint64_t size
        uint64_t generation
        rb_word superseded_by
        uint32_t kind
    uint64_t rb_fingerprint(uint64_t, uint64_t)
    uint64_t rb_layout_word(uint32_t, uint64_t)

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int madvise(void *, size_t, int)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_SHARED, MADV_DONTDUMP

MAGIC = RB_MAGIC
PREFIX_SIZE = sizeof(rb_prefix)


def layout_hash(version: int, numbers) -> int:
    """The layout word of `version` and of the `numbers` (sizes and offsets) that make the layout."""
    cdef uint64_t fingerprint = RB_FINGERPRINT_START
    for number in numbers:
        fingerprint = rb_fingerprint(fingerprint, number)
    return rb_layout_word(version, fingerprint)


cdef class Mapping:
    """A file's first `size` bytes in memory, shared with all who map it, and left out of core dumps.

    A buffer, read-only unless `writable`. It lives as long as anything refers to it or views it, so
    nothing is ever unmapped under a view. Raises OSError.
    """

    cdef char *_at
    cdef readonly size_t size
    cdef readonly bint writable

    def __cinit__(self, int fd, size_t size, bint writable=False):
        cdef void *at = mmap(NULL, size, PROT_READ | (PROT_WRITE if writable else 0), MAP_SHARED, fd, 0)
        if at == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        madvise(at, size, MADV_DONTDUMP)  # where a kernel refuses, dumps are larger; nothing else
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
        """Make this a segment that others may open; whatever else they need must be in place already."""
        cdef rb_prefix *prefix = self._prefix()
        cdef rb_word *magic = self._word(0, True)
        prefix.layout = layout
        prefix.size = self.size
        prefix.generation = generation
        prefix.kind = kind
        rb_store_release(magic, RB_MAGIC)

    def read_prefix(self) -> tuple[int, int, int, int, int, int]:
        """Magic, layout, size, generation, superseded_by and kind, unchecked; all 0 before the magic is."""
        cdef rb_prefix *prefix = self._prefix()
        cdef uint64_t magic = rb_load_acquire(&prefix.magic)
        if magic == 0:
            return 0, 0, 0, 0, 0, 0
        return (magic, prefix.layout, prefix.size, prefix.generation,
                rb_load_acquire(&prefix.superseded_by), prefix.kind)
