# Messages as records: what is small and frequent goes as it is, the rest by pickle.

cdef enum:
    HEADER = 8  # bytes of a record before its payload

cdef enum:  # kinds of records; 0 is padding
    INT = 1
    FLOAT = 2
    NONE = 3
    FALSE = 4
    TRUE = 5
    ASCII = 6
    BYTES = 7
    PICKLE = 8


cdef object _pickled(obj):
    try:
        return _dumps(obj, 5)
    except (TypeError, AttributeError, PicklingError):
        return bytes(ForkingPickler.dumps(obj, 5))  # as multiprocessing sends sockets, locks and others


cdef object _encode(obj, sq_item *item):
    """Fill `item`; what is returned must live as long as it."""
    cdef int overflow = 0
    cdef long long number
    cdef double real
    cdef Py_ssize_t size = 0
    item.head.user = 0
    item.payload = NULL
    if PyLong_CheckExact(obj):
        number = PyLong_AsLongLongAndOverflow(obj, &overflow)
        if not overflow:
            item.value = <uint64_t>number
            item.head.kind, item.head.length = INT, HEADER + 8
            return None
    elif PyUnicode_CheckExact(obj) and PyUnicode_IS_COMPACT_ASCII(obj):
        size = PyUnicode_GET_LENGTH(obj)
        item.payload = PyUnicode_DATA(obj)
        return _sized(item, ASCII, size, obj)
    elif PyBytes_CheckExact(obj):
        item.payload = PyBytes_AS_STRING(obj)
        return _sized(item, BYTES, PyBytes_GET_SIZE(obj), obj)
    elif PyFloat_CheckExact(obj):
        real = PyFloat_AS_DOUBLE(obj)
        memcpy(&item.value, &real, 8)
        item.head.kind, item.head.length = FLOAT, HEADER + 8
        return None
    elif obj is None or obj is True or obj is False:
        item.head.kind = NONE if obj is None else TRUE if obj is True else FALSE
        item.head.length = HEADER
        return None
    data = _pickled(obj)
    item.payload = PyBytes_AS_STRING(data)
    return _sized(item, PICKLE, PyBytes_GET_SIZE(data), data)


cdef inline object _sized(sq_item *item, uint16_t kind, Py_ssize_t size, kept):
    if size > MOST_PAYLOAD:
        raise ValueError(f"a message of {size} bytes is too large for a queue: {MOST_PAYLOAD} are the limit")
    item.head.kind, item.head.length = kind, <uint32_t>(HEADER + size)
    return kept


cdef Py_ssize_t MOST_PAYLOAD = 4_000_000_000


cdef object _decode(sq_user *u):
    """The next message of what the user took; it is behind it then, whatever happens."""
    cdef rb_head8 head
    cdef uint8_t *record = u.data + u.at
    memcpy(&head, record, sizeof(head))
    cdef uint8_t *payload = record + HEADER
    cdef Py_ssize_t size = head.length - HEADER
    cdef int64_t number
    cdef double real
    u.at += (head.length + 7) & ~<uint64_t>7
    if head.kind == INT:
        memcpy(&number, payload, 8)
        return PyLong_FromLongLong(number)
    if head.kind == ASCII:
        text = PyUnicode_New(size, 127)
        memcpy(PyUnicode_DATA(text), payload, size)
        return text
    if head.kind == BYTES:
        return PyBytes_FromStringAndSize(<char *>payload, size)
    if head.kind == FLOAT:
        memcpy(&real, payload, 8)
        return PyFloat_FromDouble(real)
    if head.kind == NONE:
        return None
    if head.kind == TRUE or head.kind == FALSE:
        return head.kind == TRUE
    if u.at < u.end:
        return _loads(PyBytes_FromStringAndSize(<char *>payload, size))
    return _load_last(u, payload, size)


cdef object _load_last(sq_user *u, uint8_t *payload, Py_ssize_t size):
    """Unpickle from the user's own memory, which is not its own meanwhile: what is unpickled may call `get`, too."""
    cdef uint8_t *data = u.data
    cdef uint64_t bytes_of_data = u.size
    u.data = NULL
    u.size = u.at = u.end = 0
    try:
        return _loads(PyMemoryView_FromMemory(<char *>payload, size, PyBUF_READ))
    finally:
        if u.data == NULL and bytes_of_data <= 1 << 20:
            u.data, u.size = data, bytes_of_data
        else:
            free(data)
