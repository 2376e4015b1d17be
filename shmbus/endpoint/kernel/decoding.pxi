# From bytes to the types that an endpoint's receivers expect.

cdef object unpack = msgspec.msgpack.Decoder().decode
cdef object ndarray = numpy.ndarray
cdef object array_from = numpy.frombuffer
cdef object lone = frames.lone
cdef uint32_t LONE = frames.LONE
cdef uint32_t LONE_HEAD = frames.LONE_HEAD
cdef uint32_t SHORT = 512    # bytes of MessagePack; of most arrays it is some tens


@cython.final
cdef class Decoding:
    """Decodes the payloads of one endpoint, which mostly are of one type after the other."""

    cdef object _codec           # payloads.Codec
    cdef object _recent_type
    cdef object _recent          # its decoder

    def __cinit__(self, codec not None):
        self._codec = codec

    cdef inline object decode(self, Message m):
        """Its payload, which is not just bytes for whoever gets them. Raises what msgspec and the endpoint's hook
        do, and DecodeError."""
        cdef object payload_type = m._payload_type
        cdef Share share = m._share  # also if another thread releases it meanwhile
        if payload_type is None and m._header.flags & SB_RAW:
            return m.whole()
        if m._header.flags & SB_FRAMED and share is not None and (payload_type is None or payload_type is ndarray):
            array = lone_array(share)
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

    cdef object _decoder(self, object payload_type):
        cdef object made = self._codec.decoder(payload_type)
        self._recent_type = None
        self._recent = made
        self._recent_type = payload_type
        return made


cdef object lone_array(Share share):
    """The array that is the whole payload, where it lies. None: it may be something else, and the codec finds out."""
    cdef const uint8_t *data = ep_share_data(share.at)
    cdef uint64_t size = ep_share_size(share.at)
    cdef uint32_t words[2]
    if data == NULL or size < LONE_HEAD:
        return None
    memcpy(words, data, sizeof(words))
    if words[0] != LONE or words[1] > SHORT or size < LONE_HEAD + words[1]:
        return None
    found = lone(PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>(LONE_HEAD + words[1])))
    if found is None:
        return None
    dtype, count, offset, shape, order, end = found
    if end > size:
        return None
    array = array_from(share, dtype, count, offset)
    return array if len(shape) == 1 else array.reshape(shape, order=order)
