# From bytes to the types that an endpoint's receivers expect.

cdef object unpack = msgspec.msgpack.Decoder().decode


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
        if m._header.flags & (SB_RAW | SB_NONE | SB_FRAMED):
            return self._codec.decode(m._header.flags & (SB_RAW | SB_NONE | SB_FRAMED), m.data(),
                                      payload_type, type=m.type)
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
