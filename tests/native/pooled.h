/* A peer's pool: what it sends by blocks, and what it has of others. */
#pragma once

#include "peer.h"

#define POOL_PAGES 16u /* of each: a block has one page, block i the i-th */

static inline void make_pool(struct peer *p)
{
    char name[160];
    dp_pool_name(p->world->f, p->slot, p->generation, name);
    p->pool_size = SB_POOL_DATA + POOL_PAGES * DP_PAGE;
#ifdef DP_SEGMENTS_ELSEWHERE
    p->pool = dp_make_segment(name, SB_POOL_DATA);
    CHECK(p->pool);
    segment_named(name)->size = p->pool_size; /* nobody reads the blocks */
#else
    p->pool = dp_make_segment(name, p->pool_size);
    CHECK(p->pool);
#endif
    memcpy(made_names[made_count++ % 64], name, sizeof name);
    p->up->pool_limit = POOL_PAGES * DP_PAGE;
    p->pool->slot = p->slot;
    p->pool->generation = p->generation;
    p->pool->bytes = p->pool_size;
    stamp(&p->pool->prefix, p->pool_size, p->generation, SB_SEGMENT_POOL);
    rb_store_release(&p->up->pool_asked, sb_pool_question(1, POOL_PAGES));
    rb_store_release(&p->up->pool_bytes, p->pool_size);
    raise_ready(p);
    settle(p->world);
}

/* An endpoint with a pool. */
static inline struct peer *join_pooled(struct world *w, const char *name)
{
    struct peer *p = join(w, name);
    make_pool(p);
    return p;
}

static inline struct sb_block block_at(const struct peer *p, uint32_t index, uint64_t length)
{
    return (struct sb_block){.offset = SB_POOL_DATA + index * DP_PAGE, .length = length, .index = (uint16_t)index,
                             .pool_slot = (uint16_t)p->slot, .pool_generation = p->generation};
}

/* Put a record whose payload is that block into the ring, not yet visible; its use is filled in. False: no space. */
static inline bool put_block(struct peer *p, enum sb_ring_index ring, struct sb_record h, const char *type,
                             struct sb_block *block)
{
    uint64_t length = SB_HEADER + strlen(type) + sizeof *block;
    block->use = sb_use(rb_end_after(&p->out[ring], length) - RB_ALIGN8(length), ring);
    h.flags |= SB_POOLED;
    rb_store(&p->pool->blocks[block->index].bytes, DP_PAGE);
    rb_store(&p->pool->blocks[block->index].use, block->use);
    return put(p, ring, h, type, block, sizeof *block);
}

/* An event with block `index`, which has this text. */
static inline struct sb_block publish_block(struct peer *p, const char *type, uint32_t index, const char *text)
{
    struct sb_block block = block_at(p, index, strlen(text));
    memcpy((uint8_t *)p->pool + block.offset, text, strlen(text));
    CHECK(put_block(p, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, type, &block));
    flush(p);
    return block;
}

/* A request with block `index`; the index of its entry. 0: no deadline. */
static inline uint16_t ask_with_block(struct peer *p, const char *type, uint32_t index, uint64_t deadline_ns)
{
    uint16_t entry = 0;
    while (rb_load(&p->pending[entry].state) != SB_PENDING_FREE)
        CHECK(++entry < p->up->pending_count);
    struct sb_record h = {.kind = SB_REQUEST, .flags = SB_RAW, .deadline_ns = deadline_ns};
    struct sb_block block = block_at(p, index, 10);
    sb_make_id(p->pending[entry].id, p->generation, ++p->counter, entry);
    memcpy(h.correlation, p->pending[entry].id, 16);
    p->pending[entry].deadline_ns = deadline_ns;
    rb_store_release(&p->pending[entry].state, SB_PENDING_WAITING);
    CHECK(put_block(p, SB_DATA, h, type, &block));
    flush(p);
    return entry;
}

static inline bool is_returned(const struct peer *p, const struct sb_block *block)
{
    return rb_load_acquire(&p->down->returned[block->index]) == block->use;
}

static inline struct sb_block block_of(const struct message *m)
{
    struct sb_block block;
    CHECK(m->header.flags & SB_POOLED);
    memcpy(&block, m->text, sizeof block);
    return block;
}

/* Enter a share in the first free entry, which is the result. */
static inline uint32_t enter(struct peer *p, uint64_t share, const struct sb_block *block)
{
    uint32_t i = 0;
    while (rb_load(&p->pool->shares[i].share))
        CHECK(++i < SB_SHARES);
    if (rb_load(&p->pool->shares_used) <= i)
        rb_store(&p->pool->shares_used, i + 1);
    rb_store(&p->pool->shares[i].pool, sb_whom(block->pool_slot, block->pool_generation));
    rb_store(&p->pool->shares[i].block, block->index | 1ull << 63);
    rb_store(&p->pool->shares[i].bytes, block->length);
    rb_store_release(&p->pool->shares[i].share, share);
    return i;
}

/* Enter the block of the next message, if that has one. False: there is no message. */
static inline bool enter_next(struct peer *p)
{
    struct message next, *m = &next;
    struct rb_head8 head;
    const uint8_t *record;
    uint64_t position = p->in[SB_DATA].next;
    if (rb_peek_at(&p->in[SB_DATA], &position, SB_HEADER, &head, &record) != RB_OK)
        return false;
    copy_message(m, record, position);
    if (m->header.flags & SB_POOLED) {
        struct sb_block block = block_of(m);
        enter(p, sb_share_of(position, SB_DATA), &block);
    }
    return true;
}

/* Take the next message and keep its block, by the first free entry. */
static inline bool take_shared(struct peer *p, struct message *m) { return enter_next(p) && take(p, m); }
static inline bool begin_shared(struct peer *p, struct message *m) { return enter_next(p) && begin(p, m); }

static inline void look_no_more(struct peer *p, uint32_t entry)
{
    rb_store_release(&p->pool->shares[entry].share, 0);
    rb_store_release(&p->up->shares_ended, rb_load(&p->up->shares_ended) + 1);
    raise_ready(p);
}

static inline void look_at_none(struct peer *p)
{
    for (uint32_t i = 0; i < rb_load(&p->pool->shares_used); i++)
        if (rb_load(&p->pool->shares[i].share))
            look_no_more(p, i);
    rb_store_release(&p->up->shares_ended, rb_load(&p->up->shares_ended) + 1);
    advance(p->world, 200 * MILLISECOND);
}

/* So many blocks of this one's are not returned: those that were sent. */
static inline uint32_t in_use(const struct peer *p)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < POOL_PAGES; i++) {
        uint64_t use = rb_load(&p->pool->blocks[i].use);
        count += use && rb_load(&p->down->returned[i]) != use;
    }
    return count;
}

/* What it has begun, and entered first, it gives back and looks at no more. */
static inline void return_block(struct peer *b, const struct message *m, bool final)
{
    struct sb_record h = {.kind = SB_NACK,
                          .flags = (uint16_t)((m->header.flags & SB_PAYLOAD_FLAGS) | (final ? SB_FINAL : 0)),
                          .interests = SB_PLAIN, .peer = m->header.peer, .peer_generation = m->header.peer_generation,
                          .attempt = (uint16_t)(m->header.attempt + 1)};
    CHECK(put(b, SB_DATA, h, m->type, m->text, sizeof(struct sb_block)));
    flush(b);
    finish(b, m);
    look_no_more(b, 0);
}

/* How many pages it may have, once it has asked for so many. */
static inline uint64_t asks(struct peer *p, uint64_t number, uint64_t pages)
{
    rb_store_release(&p->up->pool_asked, sb_pool_question(number, pages));
    raise_ready(p);
    settle(p->world);
    return sb_pool_pages(rb_load(&p->down->pool_granted));
}
