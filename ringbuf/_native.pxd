"""What ringbuf's C headers offer, as far as Cython calls it."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

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
    void rb_fence_seq()

cdef extern from "ringbuf/native/bell.h" nogil:
    enum rb_wake:
        RB_READY
        RB_ELAPSED
    cdef struct rb_bell:
        uint64_t parks
    cdef struct rb_poster:
        rb_word *epoch
        sem_t *semaphore
        uint64_t posted
    ctypedef bint (*rb_look)(void *)
    const uint32_t RB_SPIN_NS
    uint64_t rb_now()
    void rb_bell_open(rb_bell *, rb_word *, sem_t *, uint32_t)
    int rb_bell_wait(rb_bell *, rb_look, void *, uint64_t)
    void rb_ring_bell(rb_poster *)

cdef extern from "ringbuf/native/ring.h" nogil:
    enum rb_status:
        RB_OK
        RB_FULL
        RB_CORRUPT
    cdef struct rb_head8:
        uint32_t length
        uint16_t kind
        uint16_t user
    cdef struct rb_producer:
        uint64_t next
        uint64_t published
        uint64_t tail_seen
        uint64_t capacity
    cdef struct rb_consumer:
        uint64_t next
        uint64_t released
        uint64_t head_seen
        uint64_t capacity
    bint rb_capacity_valid(uint64_t)
    uint64_t rb_largest_record(uint64_t)
    uint64_t rb_depth(const rb_word *, const rb_word *)
    int rb_producer_open(rb_producer *, rb_word *, const rb_word *, rb_word *, uint8_t *, uint64_t)
    int rb_claim(rb_producer *, uint64_t, uint64_t, uint8_t **)
    void rb_commit(rb_producer *, uint64_t)
    void rb_abort(rb_producer *)
    void rb_publish(rb_producer *)
    int rb_consumer_open(rb_consumer *, const rb_word *, rb_word *, const uint8_t *, uint64_t)
    int rb_peek_at(rb_consumer *, uint64_t *, uint32_t, rb_head8 *, const uint8_t **)
    void rb_release_to(rb_consumer *, uint64_t)
