# Patterns, found by the types that they match.


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class PatternTable:
    """Keys, which are numbers, by pattern. Nothing here runs Python code."""

    cdef ep_patterns _patterns

    def __cinit__(self):
        if not ep_patterns_open(&self._patterns):
            raise MemoryError

    def __dealloc__(self):
        ep_patterns_close(&self._patterns)

    def add(self, str pattern not None, int64_t key):
        """Add a key under a pattern, which was checked."""
        cdef Py_ssize_t length
        cdef const char *text = PyUnicode_AsUTF8AndSize(pattern, &length)
        if not ep_add_key(&self._patterns, text, length, key):
            raise MemoryError

    def remove(self, str pattern not None, int64_t key):
        """Remove what was added."""
        cdef Py_ssize_t length
        cdef const char *text = PyUnicode_AsUTF8AndSize(pattern, &length)
        if not ep_remove_key(&self._patterns, text, length, key):
            raise KeyError(key)

    def find(self, str type not None):
        """The keys of all patterns that match messages of this type, the most specific pattern's first."""
        return keys_in(self.match(type))

    cdef bytes match(self, str type):
        """The same, as the bytes of these numbers."""
        cdef Py_ssize_t length
        cdef const char *text = PyUnicode_AsUTF8AndSize(type, &length)
        cdef uint64_t count = ep_match_type(&self._patterns, text, length)
        cdef ep_pattern *each
        cdef char *at
        cdef uint32_t i
        if count == EP_NO_MEMORY:
            raise MemoryError
        cdef bytes keys = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(count * sizeof(int64_t)))
        at = <char *>PyBytes_AS_STRING(keys)
        for i in range(self._patterns.count):
            each = self._patterns.found[i]
            memcpy(at, each.keys, each.at.patterns * sizeof(int64_t))
            at += each.at.patterns * sizeof(int64_t)
        return keys

    cdef inline ep_pattern *alone(self) noexcept:
        """The only pattern that matched in the latest `match`, or NULL."""
        return self._patterns.found[0] if self._patterns.count == 1 else NULL


cdef tuple keys_in(bytes keys):
    cdef const int64_t *each = <const int64_t *>PyBytes_AS_STRING(keys)
    return tuple([each[i] for i in range(<size_t>len(keys) // sizeof(int64_t))])
