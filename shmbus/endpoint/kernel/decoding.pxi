# From bytes to the types that an endpoint's receivers expect.

cdef object unpack = msgspec.msgpack.Decoder().decode
cdef object ndarray = numpy.ndarray
cdef object array_from = numpy.frombuffer
cdef object lone_in = frames.lone
cdef uint32_t LONE = frames.LONE
cdef uint32_t LONE_HEAD = frames.LONE_HEAD
cdef uint32_t SHORT = frames.SHORT


@cython.final
cdef class Lone:
    """An array that is the whole payload, as the head of its frame says it."""

    cdef bytes head
    cdef object dtype, shape, order  # of one dimension: shape is None
    cdef Py_ssize_t offset, count
    cdef uint64_t end


cdef Lone lone_of(const uint8_t *data, uint64_t size):
    """None: it may be something else, and the codec finds out."""
    cdef uint32_t words[2]
    cdef Lone found = Lone.__new__(Lone)
    if size < LONE_HEAD:
        return None
    memcpy(words, data, sizeof(words))
    if words[0] != LONE or words[1] > SHORT or size < LONE_HEAD + words[1]:
        return None
    found.head = PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>(LONE_HEAD + words[1]))
    laid = lone_in(found.head)
    if laid is None or laid.offset + laid.length > size:
        return None
    found.dtype, found.order, found.offset, found.end = laid.dtype, laid.order, laid.offset, laid.offset + laid.length
    found.shape = laid.shape if len(laid.shape) != 1 else None
    found.count = laid.length // laid.dtype.itemsize
    return found


@cython.final
cdef class Decoding:
    """Decodes the payloads of one endpoint, which mostly are of one type after the other."""

    cdef object _codec           # payloads.Codec
    cdef object _recent_type
    cdef object _recent          # its decoder
    cdef Lone _lone              # the last array

    def __cinit__(self, codec not None):
        self._codec = codec

    cdef inline object decode(self, Message m):
        """Its payload, which is not just bytes for whoever gets them. Raises what msgspec and the endpoint's hook
        do, and DecodeError."""
        cdef object payload_type = m._payload_type
        cdef Share share = m._share  # also if another thread releases it meanwhile
        if payload_type is None and m._header.flags & SB_RAW:
            return m.whole()
        if m._header.flags & SB_FRAMED and (payload_type is None or payload_type is ndarray):
            array = self._array(share, m.viewable())
            if array is not None:
                return array
        if m._header.flags & (SB_RAW | SB_NONE | SB_FRAMED):
            views = m._header.flags & SB_FRAMED or payload_type is memoryview
            return self._codec.decode(m._header.flags & (SB_RAW | SB_NONE | SB_FRAMED),
                                      m.viewable() if views else m.data(), payload_type, type=m.type)
        if payload_type is None:
            return unpack(m.data())
        if payload_type is not self._recent_type:
            return self._decoder(payload_type)(m.data())
        return self._recent(m.data())

    cdef object _array(self, Share share, object viewable):
        """The array that is the whole payload, where it lies. None: it may be something else; the codec finds out."""
        cdef const uint8_t *data
        cdef uint64_t size
        cdef Lone lone = self._lone  # mostly the one before was like it
        if share is None:
            data, size = <const uint8_t *>(<Viewed>viewable)._at, <uint64_t>(<Viewed>viewable)._size
        else:
            data, size = ep_share_data(share.at), <uint64_t>share.size()
        if data == NULL:
            return None
        if lone is None or size < lone.end or memcmp(data, PyBytes_AS_STRING(lone.head), PyBytes_GET_SIZE(lone.head)):
            lone = lone_of(data, size)
            if lone is None:
                return None
            self._lone = lone
        array = array_from(viewable, lone.dtype, lone.count, lone.offset)
        return array if lone.shape is None else array.reshape(lone.shape, order=lone.order)

    cdef object _decoder(self, object payload_type):
        cdef object made = self._codec.decoder(payload_type)
        self._recent_type = None
        self._recent = made
        self._recent_type = payload_type
        return made
