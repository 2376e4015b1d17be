/* Memory ordering, by name. Every access to a word that another thread or process may touch goes through
 * this page, so that a reader can see which order each step of a protocol relies on:
 *
 *   rb_load / rb_store            no order beyond the word itself (hints, counters, words of one's own)
 *   rb_load_acquire               what was written before the matching release is visible from here on
 *   rb_store_release              publishes everything written before it
 *   rb_load_seq / rb_store_seq    take part in the single total order that the wait protocol (bell.h) needs:
 *                                 "I stored, then looked" on both sides, and at least one sees the other
 *   rb_count_seq                  adds one to a word of several writers, as one step of that order
 *   rb_fence_seq                  one fence in place of many rb_store_seq: stores before it, loads after it
 *   rb_fence_release              stores before it become visible no later than stores after it (seqlocks, journal)
 *   rb_fence_acquire              loads before it are no later than loads after it (seqlocks)
 *
 * ThreadSanitizer does not understand fences; its build (RB_TSAN) turns release stores into seq_cst ones.
 */
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* before the first header of libc: sem_clockwait, sched_getcpu, memfd_create ... */
#endif
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t rb_word;

#if defined(__SANITIZE_THREAD__)
#define RB_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RB_TSAN 1
#endif
#endif

static inline uint64_t rb_load(const rb_word *w) { return atomic_load_explicit(w, memory_order_relaxed); }
static inline uint64_t rb_load_acquire(const rb_word *w) { return atomic_load_explicit(w, memory_order_acquire); }
static inline uint64_t rb_load_seq(const rb_word *w) { return atomic_load_explicit(w, memory_order_seq_cst); }
static inline void rb_store(rb_word *w, uint64_t v) { atomic_store_explicit(w, v, memory_order_relaxed); }
static inline void rb_store_seq(rb_word *w, uint64_t v) { atomic_store_explicit(w, v, memory_order_seq_cst); }

static inline void rb_store_release(rb_word *w, uint64_t v)
{
#ifdef RB_TSAN
    atomic_store_explicit(w, v, memory_order_seq_cst);
#else
    atomic_store_explicit(w, v, memory_order_release);
#endif
}

static inline void rb_fence_seq(void)
{
#ifndef RB_TSAN
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void rb_fence_release(void)
{
#ifndef RB_TSAN
    atomic_thread_fence(memory_order_release);
#endif
}

static inline void rb_fence_acquire(void)
{
#ifndef RB_TSAN
    atomic_thread_fence(memory_order_acquire);
#endif
}

static inline void rb_count_seq(rb_word *w) { atomic_fetch_add_explicit(w, 1, memory_order_seq_cst); }

/* A word of one writer that counts: no read-modify-write is needed. */
static inline void rb_add(rb_word *w, uint64_t n) { rb_store(w, rb_load(w) + n); }

static inline void rb_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* This cache line will be written soon: fetch it from whichever core has it. A hint. */
static inline void rb_will_write(const void *line)
{
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)line)); /* for old CPUs' sake the builtin only reads */
#else
    __builtin_prefetch(line, 1);
#endif
}

#define RB_LINE 64
#define RB_ALIGN8(n) (((uint64_t)(n) + 7u) & ~(uint64_t)7u)
