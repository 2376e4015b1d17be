/* Keeping: the last values of each type that were published with SB_RETAIN, in cells that a successor adopts.
 *
 * A value is a chain of cells in segments that are made when they are first needed. Its bytes are written first and its
 * number last, so it is there as a whole or not at all; and its number is 0 before any of its cells is used again, so
 * an observer that finds the same number after copying has copied a value. Numbers go up by one and are never used
 * again.
 *
 * A record is kept, once, before it is delivered to anybody: DOWN of its source says up to where its records are kept,
 * and the newest value bears its source and where its record ended. So a successor knows what was kept however the kill
 * fell.
 *
 * Of each type there are `history` values, of all together as many as `retain_bytes` hold. Where there is no space,
 * values go that a newer one of their type has replaced, the oldest first, then the oldest of all.
 *
 * Of a value in a pool (SB_POOLED) the cells have the record, and the payload stays where it is: a value has a share of
 * that block for as long as it is kept. It counts against `retain_bytes` as those in cells do, and against the pool of
 * who published it: of that half at the most, so that nobody waits for a block only because of what is kept.
 *
 * Everything but the cells is the forwarding thread's own, and is made again from them at adoption.
 *
 * Offers: dp_keep_run, dp_number_of; dp_read_value; dp_block_of_value, dp_keep_block, dp_drop_value, dp_evict_value;
 *         dp_say_values; dp_adopt_values, dp_close_values. */
#pragma once

#include "shmbus/dispatcher/native/journal.h"

#include <stdio.h>

#define DP_CHUNK_AGAIN_NS 100000000u /* without memory, another try is made after so long, not for each value */

struct dp_kept_type;

struct dp_value { /* a value that is kept */
    uint64_t number;
    uint32_t cell, cells;
    uint32_t length; /* of its record */
    bool replaced;   /* a newer one of its type is kept */
    bool relayed;    /* a link brought it: it goes to none */
    struct dp_pool *pool; /* in which its payload lies; NULL: in none */
    uint64_t bytes;       /* of that payload, */
    uint16_t block;       /* and its block */
    struct dp_kept_type *of;
    struct dp_value *older, *newer;   /* of its type */
    struct dp_value *before, *behind; /* of those that are replaced, or of those that are not */
};

struct dp_kept_type { /* a type of which values are kept */
    struct dp_value *newest, *oldest;
    uint64_t count;
    uint16_t length;
    char type[];
};

static inline bool dp_same_kept(const void *item, const void *key)
{
    const struct dp_kept_type *t = item;
    const struct dp_text *k = key;
    return t->length == k->length && sb_same_bytes(t->type, k->text, k->length);
}

static inline struct dp_kept_type *dp_kept_of(struct dp_values *s, const char *type, size_t length)
{
    struct dp_text key = {type, length};
    return sb_table_find(&s->types, sb_hash(type, length, 13), dp_same_kept, &key);
}

/* Cells ------------------------------------------------------------------------------------------------------- */

static inline struct sb_cell *dp_cell(const struct dp_values *s, uint32_t index)
{
    uint8_t *chunk = s->chunk[index / s->chunk_cells];
    uint64_t at = sizeof(struct rb_prefix) + SB_CELL_BYTES * (uint64_t)(index % s->chunk_cells);
    return (struct sb_cell *)(void *)(chunk + at);
}

struct dp_cursor { /* a place in a value's bytes, behind what its cells begin with */
    uint32_t cell, at;
};

/* Bytes that lie together from there on, `*n` at the most: how many is said there, and they are passed. */
static inline uint8_t *dp_part_at(const struct dp_values *s, struct dp_cursor *c, uint64_t *n)
{
    if (c->at == SB_CELL_BYTES) {
        c->cell = (uint32_t)rb_load(&dp_cell(s, c->cell)->next) - 1;
        c->at = sizeof(struct sb_cell);
    }
    uint8_t *there = (uint8_t *)dp_cell(s, c->cell) + c->at;
    *n = SB_CELL_BYTES - c->at < *n ? SB_CELL_BYTES - c->at : *n;
    c->at += (uint32_t)*n;
    return there;
}

static inline void dp_read_bytes(const struct dp_values *s, struct dp_cursor *c, void *to, uint64_t n)
{
    for (uint64_t done = 0, part; done < n; done += part) {
        part = n - done;
        const uint8_t *there = dp_part_at(s, c, &part);
        memcpy((uint8_t *)to + done, there, part);
    }
}

static inline void dp_write_bytes(const struct dp_values *s, struct dp_cursor *c, const void *from, uint64_t n)
{
    for (uint64_t done = 0, part; done < n; done += part) {
        part = n - done;
        uint8_t *there = dp_part_at(s, c, &part);
        memcpy(there, (const uint8_t *)from + done, part);
    }
}

/* Its record, v->length bytes. */
static inline void dp_read_value(const struct dp_values *s, const struct dp_value *v, uint8_t *to)
{
    struct dp_cursor c = {v->cell, sizeof(struct sb_value)};
    dp_read_bytes(s, &c, to, v->length);
}

/* The last `n` bytes of that. */
static inline void dp_read_end(const struct dp_values *s, const struct dp_value *v, void *to, uint64_t n)
{
    struct dp_cursor c = {v->cell, sizeof(struct sb_value)};
    for (uint64_t done = 0, part; done < v->length - n; done += part) {
        part = v->length - n - done;
        dp_part_at(s, &c, &part);
    }
    dp_read_bytes(s, &c, to, n);
}

static inline uint32_t dp_cells_for(uint64_t length)
{
    const uint64_t first = SB_CELL_BYTES - sizeof(struct sb_value), more = SB_CELL_BYTES - sizeof(struct sb_cell);
    return length <= first ? 1 : 1 + (uint32_t)((length - first + more - 1) / more);
}

static inline void dp_free_cell(struct dp_values *s, uint32_t index)
{
    uint32_t *fresh = sb_grown(s->free_cells, s->free_count, &s->free_capacity, sizeof *fresh);
    if (!fresh)
        return; /* that cell is used again after the next adoption */
    s->free_cells = fresh;
    s->free_cells[s->free_count++] = index;
}

static inline void dp_chunk_name(const struct dp_forwarder *f, uint32_t index, char name[160])
{
    snprintf(name, 160, "%s:retained:%u:0", f->prefix, index);
}

/* Cells of one chunk more. False: there are as many as there may be, or no memory. */
static inline bool dp_more_cells(struct dp_forwarder *f)
{
    struct dp_values *s = &f->values;
    char name[160];
    uint64_t bytes = s->chunk_cells * SB_CELL_BYTES, size = sizeof(struct rb_prefix) + bytes;
    if (s->chunks == SB_CHUNKS || (s->chunks + 1) * bytes >= f->bus->retain_bytes + bytes || f->now < s->again_ns)
        return false;
    dp_chunk_name(f, s->chunks, name);
    struct rb_prefix *prefix = dp_make_segment(name, size);
    if (!prefix) {
        s->again_ns = f->now + DP_CHUNK_AGAIN_NS;
        return false;
    }
    prefix->layout = SB_LAYOUT;
    prefix->size = size;
    prefix->kind = SB_SEGMENT_RETAINED;
    rb_store_release(&prefix->magic, RB_MAGIC); /* whoever opens it */
    RB_FAIL("keep.chunk");
    s->chunk[s->chunks] = (uint8_t *)prefix;
    for (uint64_t i = s->chunk_cells; i--;)
        dp_free_cell(s, (uint32_t)(s->chunks * s->chunk_cells + i));
    s->chunks++;
    rb_store_release(&f->bus->retained_chunks, s->chunks); /* dp_adopt_values, and observers */
    return true;
}

/* The index ----------------------------------------------------------------------------------------------------- */

static inline void dp_link_age(struct dp_ages *ages, struct dp_value *v)
{
    v->before = ages->last;
    v->behind = NULL;
    *(ages->last ? &ages->last->behind : &ages->first) = v;
    ages->last = v;
}

static inline void dp_unlink_age(struct dp_ages *ages, struct dp_value *v)
{
    *(v->before ? &v->before->behind : &ages->first) = v->behind;
    *(v->behind ? &v->behind->before : &ages->last) = v->before;
}

/* Bytes of all of them: their cells, and their payloads in pools. */
static inline uint64_t dp_kept_bytes(const struct dp_values *s) { return s->cells_used * SB_CELL_BYTES + s->pooled; }

static inline void dp_say_values(struct dp_forwarder *f)
{
    rb_store(&f->bus->retained, f->values.count);
    rb_store(&f->bus->retained_bytes, dp_kept_bytes(&f->values));
}

/* What is written of it is whole: from here on it is the newest of its type. False: no memory. */
static inline bool dp_index_value(struct dp_forwarder *f, const char *type, uint16_t length, struct dp_value *v)
{
    struct dp_values *s = &f->values;
    struct dp_kept_type *t = dp_kept_of(s, type, length);
    if (!t) {
        t = calloc(1, sizeof *t + length + 1u);
        if (!t || !sb_table_put(&s->types, sb_hash(type, length, 13), t)) {
            free(t);
            return false;
        }
        t->length = length;
        memcpy(t->type, type, length);
    }
    if (t->newest) {
        t->newest->newer = v;
        t->newest->replaced = true;
        dp_unlink_age(&s->last, t->newest);
        dp_link_age(&s->replaced, t->newest);
    } else {
        t->oldest = v;
    }
    v->of = t;
    v->older = t->newest;
    t->newest = v;
    t->count++;
    dp_link_age(&s->last, v);
    s->count++;
    s->cells_used += v->cells;
    return true;
}

/* The block that a record of ours names is kept, too. False: there is no such pool any more. */
static inline bool dp_keep_block(struct dp_forwarder *f, struct dp_value *v, const struct sb_block *block)
{
    v->pool = dp_hold_block(f, block);
    v->bytes = block->length;
    v->block = block->index;
    if (!v->pool)
        return false;
    v->pool->kept += v->bytes;
    f->values.pooled += v->bytes;
    return true;
}

static inline void dp_leave_block(struct dp_forwarder *f, struct dp_value *v)
{
    struct dp_pool *pool = v->pool;
    v->pool = NULL;
    if (!pool)
        return;
    pool->kept -= v->bytes;
    f->values.pooled -= v->bytes;
    dp_drop_block(f, pool, v->block);
}

/* The block that its record names, as we have written it. False: it names none. */
static inline bool dp_block_of_value(const struct dp_values *s, const struct dp_value *v, struct sb_block *block)
{
    struct dp_cursor c = {v->cell, sizeof(struct sb_value)};
    struct sb_record h;
    dp_read_bytes(s, &c, &h, sizeof h);
    if (!(h.flags & SB_POOLED) || v->length - sb_payload_offset(&h) != sizeof *block)
        return false;
    dp_read_end(s, v, block, sizeof *block);
    return true;
}

/* Remove a value. Its type goes with its last one. */
static inline void dp_drop_value(struct dp_forwarder *f, struct dp_value *v)
{
    struct dp_values *s = &f->values;
    struct dp_kept_type *t = v->of;
    rb_store_release(&dp_cell(s, v->cell)->number, 0);
    rb_fence_release(); /* what its cells, and its block, are used for next stays below: an observer goes by the
                         * number */
    RB_FAIL("keep.dropped");
    dp_leave_block(f, v);
    for (uint32_t cell = v->cell, n = v->cells; n; n--) {
        dp_free_cell(s, cell);
        cell = (uint32_t)rb_load(&dp_cell(s, cell)->next) - 1;
    }
    dp_unlink_age(v->replaced ? &s->replaced : &s->last, v);
    *(v->older ? &v->older->newer : &t->oldest) = v->newer;
    *(v->newer ? &v->newer->older : &t->newest) = v->older;
    s->count--;
    s->cells_used -= v->cells;
    t->count--;
    free(v);
    if (!t->count) {
        sb_table_remove(&s->types, sb_hash(t->type, t->length, 13), t);
        free(t);
    }
}

/* All values of a type. Twice does no harm. */
static inline void dp_clear_type(struct dp_forwarder *f, const char *type, uint16_t length)
{
    struct dp_kept_type *t = dp_kept_of(&f->values, type, length);
    for (uint64_t left = t ? t->count : 0; left; left--)
        dp_drop_value(f, t->oldest);
}

/* This one goes for want of space: counted first. */
static inline void dp_evict_value(struct dp_forwarder *f, struct dp_value *v)
{
    rb_add(&f->bus->evicted, 1);
    dp_drop_value(f, v);
}

/* One goes for want of space. False: there is none. */
static inline bool dp_evict(struct dp_forwarder *f, struct dp_kept_type *incoming)
{
    struct dp_values *s = &f->values;
    struct dp_value *v = s->replaced.first;
    if (!v)
        v = incoming && incoming->newest ? incoming->newest : s->last.first; /* about to be replaced, else the oldest */
    if (!v)
        return false;
    dp_evict_value(f, v);
    return true;
}

/* The same for want of space in a pool: until this block can be kept, too. */
static inline void dp_make_room_to_keep(struct dp_forwarder *f, const struct sb_block *block)
{
    const struct dp_pool *pool = dp_pool_of(f, block->pool_slot, block->pool_generation);
    for (int replaced = 1; pool && replaced >= 0; replaced--)
        for (struct dp_value *v = replaced ? f->values.replaced.first : f->values.last.first, *behind; v; v = behind) {
            behind = v->behind;
            if (pool->kept + block->length <= dp_pool_most(f, pool) / 2)
                return;
            if (v->pool == pool)
                dp_evict_value(f, v);
        }
}

/* A chain of `n` cells for a value of this type, whose block is kept, of `pooled` bytes. False: there is no space for
 * both. */
static inline bool dp_chain(struct dp_forwarder *f, uint32_t n, uint64_t pooled, const struct dp_run *run,
                            uint32_t *first)
{
    struct dp_values *s = &f->values;
    const uint64_t most = f->bus->retain_bytes, bytes = n * (uint64_t)SB_CELL_BYTES;
    if (bytes + pooled > most)
        return false;
    while (s->free_count < n || dp_kept_bytes(s) + bytes > most) {
        if (dp_kept_bytes(s) + bytes <= most && dp_more_cells(f))
            continue;
        if (!dp_evict(f, dp_kept_of(s, (const char *)run->type[0], run->header[0].type_length)))
            return false;
    }
    uint64_t next = 0;
    for (; n; n--) {
        *first = s->free_cells[--s->free_count];
        rb_store(&dp_cell(s, *first)->next, next);
        next = *first + 1u;
    }
    return true;
}

/* Keeping ------------------------------------------------------------------------------------------------------- */

/* The run's record as it is kept, and goes to receivers: with the name of its source, where that makes it no larger
 * than what they take. */
static inline void dp_kept_header(const struct dp_forwarder *f, struct sb_record *h)
{
    const struct dp_run *run = &f->run;
    const struct dp_port *source = run->span.source;
    *h = run->header[0];
    uint16_t name = (uint16_t)strnlen(source->name, sizeof source->name);
    h->length -= h->extension_length;
    if (h->length + name > rb_largest_record(f->bus->in_bytes))
        name = 0;
    h->extension_length = name;
    h->length += name;
    h->flags = (uint16_t)((h->flags & SB_PAYLOAD_FLAGS) | SB_RETAINED);
    h->path = h->epoch = 0;
    h->interests = SB_PLAIN;
    h->peer = (uint16_t)source->slot;
    h->peer_generation = source->generation;
    h->attempt = 1;
    h->lost = 0;
    h->deadline_ns = 0;
    memset(h->correlation, 0, sizeof h->correlation);
}

/* Into the chain of cells `v`. */
static inline void dp_write_value(struct dp_forwarder *f, const struct dp_value *v, const struct sb_record *h)
{
    const struct dp_run *run = &f->run;
    const struct dp_values *s = &f->values;
    struct sb_value *first = (struct sb_value *)(void *)dp_cell(s, v->cell);
    struct dp_cursor c = {v->cell, sizeof *first};
    first->whom = dp_whom_of(run->span.source);
    first->end = run->span.to;
    dp_write_bytes(s, &c, h, sizeof *h);
    dp_write_bytes(s, &c, run->type[0], h->type_length);
    dp_write_bytes(s, &c, run->span.source->name, h->extension_length);
    if (h->flags & SB_POOLED)
        dp_write_bytes(s, &c, &run->block[0], sizeof run->block[0]);
    else
        dp_write_bytes(s, &c, run->record[0] + sb_payload_offset(&run->header[0]), h->length - sb_payload_offset(h));
}

/* Keep the run's only record; returns its number. 0: there is no space, and older ones of its type, which it would have
 * replaced, are not kept either. */
static inline uint64_t dp_keep_value(struct dp_forwarder *f)
{
    const struct dp_run *run = &f->run;
    const char *type = (const char *)run->type[0];
    struct dp_values *s = &f->values;
    struct dp_value *v = calloc(1, sizeof *v);
    uint64_t number = rb_load(&f->bus->retained_last) + 1;
    struct sb_record h;
    dp_kept_header(f, &h);
    if (h.flags & SB_POOLED)
        dp_make_room_to_keep(f, &run->block[0]);
    if (!v || (h.flags & SB_POOLED && !dp_keep_block(f, v, &run->block[0])) ||
        !dp_chain(f, dp_cells_for(h.length), v->bytes, run, &v->cell)) {
        if (v)
            dp_leave_block(f, v);
        free(v);
        rb_add(&f->bus->evicted, 1);
        dp_clear_type(f, type, h.type_length);
        return 0;
    }
    v->number = number;
    v->cells = dp_cells_for(h.length);
    v->length = h.length;
    v->relayed = h.flags & SB_RELAYED;
    rb_store(&f->bus->retained_last, number);
    RB_FAIL("keep.numbered");
    dp_write_value(f, v, &h);
    RB_FAIL("keep.written");
    if (!dp_index_value(f, type, h.type_length, v)) {
        dp_leave_block(f, v);
        free(v); /* its cells are used again after the next adoption */
        return 0;
    }
    rb_store_release(&dp_cell(s, v->cell)->number, number);
    RB_FAIL("keep.kept");
    while (v->of->count > f->bus->history)
        dp_drop_value(f, v->of->oldest);
    return number;
}

/* The number under which the record that ends there is kept, if it is the last of its source that was; 0: it is not. */
static inline uint64_t dp_number_of(const struct dp_port *source, uint64_t end)
{
    return rb_load(&source->down->retained_to) == end ? rb_load(&source->down->retained_number) : 0;
}

/* Before the run's only record is delivered to anybody: keep it, or clear its type if it has no payload. Once. */
static inline void dp_keep_run(struct dp_forwarder *f)
{
    struct dp_run *run = &f->run;
    struct sb_down *down = run->span.source->down;
    const struct sb_record *h = &run->header[0];
    if (rb_load(&down->retained_to) < run->span.to) {
        uint64_t number = 0;
        if (h->flags & SB_NONE)
            dp_clear_type(f, (const char *)run->type[0], h->type_length);
        else
            number = dp_keep_value(f);
        dp_say_values(f);
        rb_store_release(&down->retained_number, number);
        RB_FAIL("keep.noting");
        rb_store_release(&down->retained_to, run->span.to); /* a successor does not keep it again */
        RB_FAIL("keep.noted");
    }
    run->kept = dp_number_of(run->span.source, run->span.to);
}

/* Adoption ------------------------------------------------------------------------------------------------------ */

static inline int dp_by_number(const void *one, const void *other)
{
    const struct dp_value *const *a = one, *const *b = other;
    return (*a)->number < (*b)->number ? -1 : (*a)->number > (*b)->number;
}

/* The value that begins in this cell, which its chain fills. NULL: none does, or no memory. */
static inline struct dp_value *dp_found_value(struct dp_values *s, uint32_t index, uint64_t total, uint8_t *used)
{
    struct sb_cell *cell = dp_cell(s, index);
    uint64_t number = rb_load_acquire(&cell->number);
    struct sb_record h;
    if (!number)
        return NULL;
    memcpy(&h, (uint8_t *)cell + sizeof(struct sb_value), sizeof h);
    struct dp_value *v = calloc(1, sizeof *v);
    if (v)
        *v = (struct dp_value){.number = number, .cell = index, .cells = dp_cells_for(h.length), .length = h.length,
                                 .relayed = h.flags & SB_RELAYED};
    for (uint32_t n = v ? v->cells : 0; n; n--) {
        used[index] = 1;
        uint64_t next = rb_load(&dp_cell(s, index)->next);
        if ((n == 1) != (next == 0) || next > total) { /* not ours */
            free(v);
            return NULL;
        }
        index = (uint32_t)next - 1;
    }
    return v;
}

/* The newest value says what its source's DOWN may not say yet. */
static inline void dp_adopt_newest(struct dp_forwarder *f, const struct dp_value *newest)
{
    const struct sb_value *first = (const struct sb_value *)(const void *)dp_cell(&f->values, newest->cell);
    struct dp_port *source = dp_port_of(f, first->whom);
    if (!source || source->slot >= SB_MAX_SLOTS || rb_load(&source->down->retained_to) >= first->end)
        return;
    rb_store_release(&source->down->retained_number, newest->number);
    rb_store_release(&source->down->retained_to, first->end);
}

/* The chunks that the last dispatcher left. False: somebody removed one, or there is no memory: nothing is kept. */
static inline bool dp_adopt_chunks(struct dp_forwarder *f)
{
    struct dp_values *s = &f->values;
    uint64_t count = rb_load_acquire(&f->bus->retained_chunks); /* with dp_more_cells */
    char name[160];
    bool whole = count <= SB_CHUNKS;
    for (uint32_t i = 0; whole && i < count; i++) {
        uint64_t size = 0;
        dp_chunk_name(f, i, name);
        uint8_t *chunk = dp_open_segment(name, &size);
        whole = chunk && size == sizeof(struct rb_prefix) + s->chunk_cells * SB_CELL_BYTES;
        if (whole)
            s->chunk[s->chunks++] = chunk;
        else if (chunk)
            dp_close_segment(chunk, size);
    }
    if (whole)
        return true;
    rb_add(&f->bus->evicted, rb_load(&f->bus->retained));
    rb_store(&f->bus->retained_chunks, 0);
    for (uint32_t i = 0; i < SB_CHUNKS; i++) {
        dp_chunk_name(f, i, name);
        dp_remove_segment(name);
    }
    return false;
}

static inline void dp_close_values(struct dp_forwarder *f);

/* After the ports were adopted, before anything is forwarded. */
static inline void dp_adopt_values(struct dp_forwarder *f)
{
    struct dp_values *s = &f->values;
    if (!dp_adopt_chunks(f))
        dp_close_values(f);
    uint64_t total = s->chunks * s->chunk_cells, count = 0;
    uint8_t *used = calloc(1, total + 1);
    struct dp_value **found = calloc(total + 1, sizeof *found);
    for (uint32_t i = 0; used && found && i < total; i++)
        if ((found[count] = dp_found_value(s, i, total, used)))
            count++;
    if (count) {
        qsort(found, count, sizeof *found, dp_by_number);
        dp_adopt_newest(f, found[count - 1]);
    }
    for (uint64_t i = 0; used && i < total; i++)
        if (!used[total - 1 - i]) {
            rb_store(&dp_cell(s, (uint32_t)(total - 1 - i))->number, 0);
            dp_free_cell(s, (uint32_t)(total - 1 - i));
        }
    for (uint64_t i = 0; i < count; i++) {
        struct sb_record h;
        char type[SB_MAX_TYPE + 1];
        struct dp_cursor c = {found[i]->cell, sizeof(struct sb_value)};
        dp_read_bytes(s, &c, &h, sizeof h);
        dp_read_bytes(s, &c, type, h.type_length <= SB_MAX_TYPE ? h.type_length : 0);
        if (h.type_length > SB_MAX_TYPE || !dp_index_value(f, type, h.type_length, found[i]))
            free(found[i]);
        else
            while (found[i]->of->count > f->bus->history)
                dp_drop_value(f, found[i]->of->oldest);
    }
    free(used);
    free(found);
    dp_say_values(f);
}

/* The index, and what is mapped; the segments stay. */
static inline void dp_close_values(struct dp_forwarder *f)
{
    struct dp_values *s = &f->values;
    struct dp_ages *ages[2] = {&s->last, &s->replaced};
    for (int i = 0; i < 2; i++)
        for (struct dp_value *v = ages[i]->first, *next; v; v = next) {
            next = v->behind;
            if (!--v->of->count)
                free(v->of);
            free(v);
        }
    for (uint32_t i = 0; i < s->chunks; i++)
        dp_close_segment(s->chunk[i], sizeof(struct rb_prefix) + s->chunk_cells * SB_CELL_BYTES);
    free(s->types.slots);
    free(s->free_cells);
    free(s->recalled);
    *s = (struct dp_values){.chunk_cells = s->chunk_cells};
}
