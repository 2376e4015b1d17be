/* What a test of the kernel says a user is promised, of a bus (world.h) and its endpoints (peer.h). */
#pragma once

#include "peer.h"

#define GETS(peer, wanted)                                                                                      \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(take(peer, &m_));                                                                                 \
        if (strcmp(m_.text, wanted)) {                                                                          \
            fprintf(stderr, "%s:%d: %s: got %s\n", __FILE__, __LINE__, test_name, m_.text);                   \
            exit(1);                                                                                            \
        }                                                                                                       \
    } while (0)

#define GETS_NOTHING(peer)                                                                                      \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(!take(peer, &m_));                                                                                \
    } while (0)

#define GETS_REPLY(peer, wanted)                                                                                \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(take_reply(peer, &m_));                                                                           \
        EQUAL(m_.header.kind, SB_REPLY);                                                                        \
        CHECK(strcmp(m_.text, wanted) == 0);                                                                    \
    } while (0)

static inline struct sb_fault fault_of(const struct message *m)
{
    struct sb_fault fault;
    EQUAL(m->header.kind, SB_ERROR);
    EQUAL(m->header.length, SB_FAULT_RECORD);
    memcpy(&fault, m->text, sizeof fault);
    return fault;
}

#define GETS_FAULT(peer, wanted_code, wanted_name)                                                              \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(take_reply(peer, &m_));                                                                           \
        struct sb_fault fault_ = fault_of(&m_);                                                                 \
        EQUAL(fault_.code, wanted_code);                                                                        \
        CHECK(strcmp(fault_.name, wanted_name) == 0);                                                           \
    } while (0)

#define ID 2u /* of a key: the second token */

/* Would `a` rather have this type's key than `b`? */
static inline bool prefers(struct peer *a, struct peer *b, const char *type)
{
    uint64_t key = sb_key_hash((const uint8_t *)type, strlen(type), ID);
    return sb_key_weight(key, a->generation) > sb_key_weight(key, b->generation);
}

/* A type whose key `a` would rather have than `b`. */
static inline const char *type_of(struct peer *a, struct peer *b)
{
    static char types[8][32];
    static unsigned turn;
    char *type = types[turn++ % 8];
    uint32_t i = 0;
    do
        snprintf(type, sizeof types[0], "o.%u.x", i++);
    while (!prefers(a, b, type));
    return type;
}

/* All that it gets, with what waits until it is free. */
static inline uint32_t count_messages(struct peer *p)
{
    struct message m;
    uint32_t n = 0;
    for (bool more = true; more; settle(p->world))
        for (more = false; take(p, &m); more = true)
            n++;
    return n;
}

/* Does the payload, MessagePack of the bus's own, hold this text? */
static inline bool mentions(const struct message *m, const char *text)
{
    return memmem(m->text, sizeof m->text, text, strlen(text)) != NULL;
}

static inline void die(struct peer *p, enum sb_reason reason)
{
    struct dp_order order = {.kind = DP_DEAD, .slot = p->slot, .generation = p->generation, .reason = reason};
    CHECK(dp_give_order(&p->world->f->orders, &order));
    settle(p->world);
}

/* Another dispatcher finds the bus as it stands. */
static inline void reopen(struct world *w)
{
    struct dp_forwarder *f = w->f = open_forwarder(w);
    for (uint32_t i = 0; i < w->peers_count; i++) {
        struct peer *p = w->peers[i];
        uint64_t state = rb_load(&f->rows[p->slot].state);
        if (rb_load(&f->rows[p->slot].generation) != p->generation)
            continue;
        if (state == SB_ROW_GONE)
            rb_store(&f->rows[p->slot].state, SB_ROW_FREE);
        else if (state != SB_ROW_FREE)
            admit(p, true);
    }
}

/* The next dispatcher serves the bus. */
static inline void hand_over(struct world *w)
{
    close_forwarder(w->f);
    reopen(w);
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    settle(w);
}

static inline void say_closing(struct peer *p)
{
    rb_store_release(&p->up->state, SB_UP_CLOSING);
    raise_ready(p);
    settle(p->world);
}

static inline void say_closed(struct peer *p)
{
    rb_store_release(&p->up->state, SB_UP_CLOSED);
    raise_ready(p);
    settle(p->world);
}
