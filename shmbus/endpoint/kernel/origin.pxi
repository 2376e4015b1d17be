# Messages of another bus: where they come from, and payloads that are passed on as they came, one by one or in runs.

cdef enum: ORIGIN = sizeof(sb_origin)   # bytes behind the payload of what a link sends
cdef uint16_t FORMATS = SB_RAW | SB_NONE | SB_FRAMED


cdef int _put_text(char *field, size_t size, str text, str what) except -1:
    """Into a field that is all zeros."""
    cdef bytes content = text.encode("ascii")
    if not 0 < <size_t>len(content) < size + 1:
        raise ValueError(f"{what} of {len(content)} characters: {text!r}")
    memcpy(field, PyBytes_AS_STRING(content), <size_t>len(content))
    return 0


cdef str _text_in(const char *field, size_t size):
    return field[:size].split(b"\0", 1)[0].decode("ascii", "replace")


@cython.final
@cython.freelist(64)
cdef class Origin:
    """Where a message comes from that a link brought from another bus.

    `source`, `site`: the endpoint there, and the site of its bus. `sent_ns`: when it was sent, by this machine's
    CLOCK_MONOTONIC, give or take `error_ns`. `sent_there_ns`: as its source stamped it. `lost`: how many were lost
    between the sites since the one before of its type.
    """

    cdef sb_origin o

    def __init__(self, str source not None, str site not None, uint64_t sent_ns, uint64_t error_ns,
                 uint64_t sent_there_ns, uint32_t lost):
        memset(&self.o, 0, sizeof(sb_origin))
        _put_text(self.o.source, sizeof(self.o.source), source, "a source")
        _put_text(self.o.site, sizeof(self.o.site), site, "a site")
        self.o.sent_ns, self.o.error_ns, self.o.sent_there_ns, self.o.lost = sent_ns, error_ns, sent_there_ns, lost

    @property
    def source(self):
        return _text_in(self.o.source, sizeof(self.o.source))

    @property
    def site(self):
        return _text_in(self.o.site, sizeof(self.o.site))

    @property
    def sent_ns(self):
        return self.o.sent_ns

    @property
    def error_ns(self):
        return self.o.error_ns

    @property
    def sent_there_ns(self):
        return self.o.sent_there_ns

    @property
    def lost(self):
        return self.o.lost

    def __repr__(self):
        return f"<origin {self.source}@{self.site}>"


cdef sb_origin _named            # whose name is
cdef str _name = ""

cdef str name_of(const sb_origin *origin):
    """`NAME@SITE`; of one message after the other it is often the same."""
    global _name
    cdef str name
    if memcmp(&_named, origin, SB_MAX_NAME + SB_MAX_SITE):
        name = f"{_text_in(origin.source, SB_MAX_NAME)}@{_text_in(origin.site, SB_MAX_SITE)}"
        memcpy(&_named, origin, SB_MAX_NAME + SB_MAX_SITE)
        _name = name
    return _name


cdef Origin free_origin():
    """To be filled in, as `free_share`. None: no memory."""
    try:
        return Origin.__new__(Origin)
    except MemoryError:
        return None


cdef Py_ssize_t take_origin(Origin origin, const uint8_t *data, Py_ssize_t size) noexcept:
    """Fill it in from behind a payload; bytes of the payload without it. It stays empty where there is none."""
    cdef Py_ssize_t own = size - <Py_ssize_t>sb_origin_size(SB_RELAYED, <uint64_t>size)
    if own != size:
        memcpy(&origin.o, data + own, ORIGIN)
    return own


cdef int take_shared_origin(Origin origin, Share share) noexcept:
    """Likewise from behind a payload in a pool, which is without it from here on. After `settle`."""
    cdef const uint8_t *data = ep_share_data(share.at)
    if data != NULL:
        share.behind = share.size() - take_origin(origin, data, share.size())
    return 0


cdef struct Entry:               # of the table of a run: one event of many that stand one behind the other
    uint64_t sent_ns
    uint64_t length              # of its payload

cdef enum:
    RUN_EVENTS = 1024            # in a run that is taken,
    RUN_BYTES = 48 << 10         # of payloads


def entry_of(uint64_t sent_ns, uint64_t length):
    """That of one event, as bytes."""
    cdef Entry entry
    entry.sent_ns, entry.length = sent_ns, length
    return (<const char *>&entry)[:sizeof(Entry)]


cdef inline Entry entry_at(bytes table, Py_ssize_t number) noexcept:
    cdef Entry entry
    memcpy(&entry, PyBytes_AS_STRING(table) + number * <Py_ssize_t>sizeof(Entry), sizeof(Entry))
    return entry


def entry_in(bytes table not None, Py_ssize_t number):
    """Where the payload of the event of this number begins, how many bytes it has, and when that was sent."""
    cdef uint64_t at = 0
    cdef Py_ssize_t i
    cdef Entry entry
    if not 0 <= number < PyBytes_GET_SIZE(table) // <Py_ssize_t>sizeof(Entry):
        raise IndexError(number)
    for i in range(number):
        at += entry_at(table, i).length
    entry = entry_at(table, number)
    return at, entry.length, entry.sent_ns


def events_in(bytes table not None, uint64_t size):
    """How many events a table has, which came from elsewhere and is to be one for so many bytes of payloads. Raises
    `ValueError`."""
    cdef Py_ssize_t i, count = PyBytes_GET_SIZE(table) // <Py_ssize_t>sizeof(Entry)
    cdef uint64_t at = 0
    cdef Entry entry
    if not count or PyBytes_GET_SIZE(table) % <Py_ssize_t>sizeof(Entry):
        raise ValueError(f"a table of {len(table)} bytes")
    for i in range(count):
        entry = entry_at(table, i)
        if entry.length > size - at:
            raise ValueError(f"{count} events of more than {size} bytes")
        if entry.sent_ns > <uint64_t>0x7fffffffffffffff:
            raise ValueError(f"sent at {entry.sent_ns}")
        at += entry.length
    if at != size:
        raise ValueError(f"{count} events of {at} bytes, not {size}")
    return count


@cython.final
@cython.no_gc                    # what it views is bytes of a payload, which know nothing of it
@cython.freelist(64)
cdef class Encoded:
    """A payload as it stands in a record: what is sent is this, not what it would be encoded to.

    `flags`: what it is, of RAW, NONE and FRAMED; none of them: MessagePack. `data`: its bytes, of any object that has
    them in one piece. `origin`: of what a link brings from another bus; `group`: then an event goes to one member of
    that queue group here and to nobody else, or, without, to those who subscribe without group. Only a link may send
    it with an origin.
    """

    cdef readonly uint16_t flags
    cdef readonly object data
    cdef readonly Origin origin
    cdef bytes _group
    cdef Py_buffer _view

    def __init__(self, uint16_t flags, data not None, Origin origin=None, str group not None=""):
        if self.data is not None:
            raise TypeError("made already")
        if flags & ~FORMATS:
            raise ValueError(f"flags {flags:#x} that say nothing of a payload")
        self._group = group.encode("ascii")
        if group and origin is None or len(self._group) >= SB_NAME:
            raise ValueError(f"a group {group!r} that it cannot be for")
        PyObject_GetBuffer(data, &self._view, PyBUF_ANY_CONTIGUOUS)
        self.flags, self.data, self.origin = flags, data, origin

    def __dealloc__(self):
        PyBuffer_Release(&self._view)

    @property
    def group(self):
        return self._group.decode("ascii")

    def __len__(self):
        return self._view.len

    cdef inline void fill(self, ep_message *m) noexcept:
        """Into a message that has none of all this."""
        m.flags = self.flags
        m.payload = self._view.buf
        m.size = <uint64_t>self._view.len
        if self.origin is not None:
            m.flags |= SB_RELAYED
            m.origin = &self.origin.o
            m.size += ORIGIN
            m.group = PyBytes_AS_STRING(self._group)
            m.group_length = <uint32_t>PyBytes_GET_SIZE(self._group)

    def __repr__(self):
        return f"<payload of {self._view.len} bytes>"
