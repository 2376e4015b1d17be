# The names of other endpoints, as the rows of BUS have them.


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class PeerNames:
    """Names by slot, read from the rows when a message of a new generation comes."""

    cdef object _bus             # the mapping of BUS
    cdef list _names             # by slot
    cdef uint32_t *_generations  # whose names these are

    def __cinit__(self, bus, uint64_t slots):
        self._bus = bus
        self._names = [""] * <Py_ssize_t>slots
        self._generations = <uint32_t *>calloc(slots, sizeof(uint32_t))
        if self._generations == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._generations)

    cdef str of(self, uint32_t slot, uint32_t generation):
        """Empty where the row has another holder by now."""
        if slot == SB_FROM_BUS:
            return "$bus"
        if slot >= len(self._names):
            return ""
        if self._generations[slot] != generation:
            name = self._read(slot, generation)
            if name is None:
                return ""
            self._names[slot] = name
            self._generations[slot] = generation
        return <str>self._names[slot]

    cdef bint attached(self, uint32_t slot, uint32_t generation):
        """Whether it has not ended, as far as the bus knows."""
        cdef const sb_row *row = row_at(self._bus, slot)
        if row == NULL:
            return False
        cdef uint64_t state = rb_load_acquire(&row.state)
        return rb_load(&row.generation) == generation and (state == SB_ROW_LIVE or state == SB_ROW_LEAVING)

    cdef object _read(self, uint32_t slot, uint32_t generation):
        """A name changes only with its generation, so the generation shows whether the copy is whole."""
        cdef const sb_row *row = row_at(self._bus, slot)
        cdef char name[SB_NAME + 1]
        if row == NULL or rb_load_acquire(&row.generation) != generation:
            return None
        memcpy(name, row.name, SB_NAME)
        name[SB_NAME] = 0
        rb_fence_acquire()
        return (<bytes>name).decode("ascii", "replace") if rb_load(&row.generation) == generation else None
