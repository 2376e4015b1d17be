# What only the bus makes. The methods of these trust what their maker fills in, so Python code gets none without it, be
# it by `__new__` or by a copy. Here in the kernel they are made past `tp_new`.

cdef dict MAKERS = {
    Message: "messages are made by the bus; publish(), send() or request() one",
    Stream: "use Endpoint.stream()",
    LoopStream: "use Endpoint.stream()",
    Block: "made by the bus",
    Share: "made by the bus",
    Batch: "use Endpoint.batch()",
    Loan: "use Endpoint.loan() or Endpoint.loan_array()",
    Iteration: "iterate over an endpoint",
    Job: "made by the bus",
    Giving: "made by the bus",
}


cdef object refuse_new(type kind, PyObject *args, PyObject *named):
    raise TypeError(MAKERS[kind])


cdef int refuse_all() except -1:
    for kind in MAKERS:
        (<PyTypeObject *>kind).tp_new = <newfunc>refuse_new
    return 0


refuse_all()
