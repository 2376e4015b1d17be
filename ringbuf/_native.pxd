"""What ringbuf's C headers offer, as far as Cython calls it."""

from libc.stdint cimport uint64_t

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    sem_t *sem_open(const char *, int)
    int sem_close(sem_t *)
    sem_t *SEM_FAILED

cdef extern from "ringbuf/native/order.h" nogil:
    ctypedef struct rb_word:
        pass
    uint64_t rb_load(const rb_word *)
    uint64_t rb_load_acquire(const rb_word *)
    void rb_add(rb_word *, uint64_t)
    void rb_store_release(rb_word *, uint64_t)
    void rb_fence_acquire()

cdef extern from "ringbuf/native/bell.h" nogil:
    enum rb_wake:
        RB_READY
        RB_ELAPSED
    uint64_t rb_now()

cdef extern from "ringbuf/native/ring.h" nogil:
    enum rb_status:
        RB_OK
    cdef struct rb_producer:
        uint64_t next
        uint64_t published
        uint64_t tail_seen
        uint64_t capacity
    cdef struct rb_consumer:
        uint64_t next
        uint64_t capacity
    uint64_t rb_largest_record(uint64_t)
