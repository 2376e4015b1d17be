# Patterns, found by the types that they match.


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class PatternNode:
    """Where the same tokens lead in all patterns that begin with them."""

    cdef dict literals           # token -> PatternNode
    cdef PatternNode star, rest  # `*` and `>`
    cdef list keys               # of the patterns that end here

    def __cinit__(self):
        self.literals = {}
        self.keys = []

    cdef PatternNode child(self, str token):
        if token == "*":
            return self.star
        if token == ">":
            return self.rest
        return self.literals.get(token)

    cdef PatternNode make_child(self, str token):
        cdef PatternNode child = PatternNode()
        if token == "*":
            self.star = child
        elif token == ">":
            self.rest = child
        else:
            self.literals[token] = child
        return child

    cdef int drop_child(self, str token) except -1:
        if token == "*":
            self.star = None
        elif token == ">":
            self.rest = None
        else:
            del self.literals[token]
        return 0

    cdef bint empty(self) noexcept:
        return not self.keys and not self.literals and self.star is None and self.rest is None

    cdef int find(self, list tokens, Py_ssize_t at, bint wild, list found) except -1:
        """The literal branch first, then `*`, then `>`: from the most specific pattern to the least."""
        cdef bint last = at + 1 == len(tokens)
        cdef PatternNode child = self.literals.get(tokens[at])
        if child is not None:
            if last:
                found.extend(child.keys)
            else:
                child.find(tokens, at + 1, True, found)
        if not wild:
            return 0
        if self.star is not None:
            if last:
                found.extend(self.star.keys)
            else:
                self.star.find(tokens, at + 1, True, found)
        if self.rest is not None:
            found.extend(self.rest.keys)
        return 0

    cdef int remove(self, list tokens, Py_ssize_t at, object key) except -1:
        cdef PatternNode child
        if at == len(tokens):
            self.keys.remove(key)
            return 0
        child = self.child(tokens[at])
        child.remove(tokens, at + 1, key)
        if child.empty():
            self.drop_child(tokens[at])
        return 0


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class PatternTable:
    """Keys by pattern: one thread at a time changes it, others may look meanwhile."""

    cdef PatternNode _root

    def __cinit__(self):
        self._root = PatternNode()

    def add(self, str pattern not None, key):
        """Add a key under a pattern, which was checked."""
        cdef PatternNode node = self._root, child
        for token in pattern.split("."):
            child = node.child(token)
            node = node.make_child(token) if child is None else child
        node.keys.append(key)

    def remove(self, str pattern not None, key):
        """Remove what was added."""
        self._root.remove(pattern.split("."), 0, key)

    cpdef tuple find(self, str type):
        """The keys of all patterns that match messages of this type, the most specific pattern's first."""
        cdef list found = []
        self._root.find(type.split("."), 0, not type.startswith("$"), found)
        return tuple(found)
