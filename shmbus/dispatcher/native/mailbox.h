/* Mailboxes: of a subscription that would rather have the newest than all, what has come for it and waits.
 *
 * A mailbox is a port like others, with a slot beyond those of endpoints and backlogs, and a target of runs. Its memory
 * is the dispatcher's, and its endpoint maps it read-only. So it is never full, and no tail moves: what has waited
 * longest is written over, and the endpoint sees by an entry's number whether what it has copied was whole. The
 * endpoint says what it took in UP, and nobody waits for that; all that came and was not taken is lost, once it is not
 * there any more.
 *
 * `head` counts what came: entries with a higher number are not published, so that the journal and adoption deal with a
 * run for a mailbox as with any other. Of a run it stores only what will be there after it.
 *
 * A message stands in cells, which are used again once no entry names them. A quiet type's stay where they are, however
 * much comes of others. Where there are none left, the oldest message goes.
 *
 * A message whose payload lies in a pool has a share of that block for its endpoint (share.h), while it stands here and
 * is not taken. A mailbox never makes anybody wait: so what lies in pools takes no more than a quarter of the pool of
 * the newest such message, which itself is always there.
 *
 * With history it is made with what was kept in it (recall.h), and listed in BUS only then.
 *
 * What is written is written a word at a time, because it may be read meanwhile. tests/models/mailbox.py explores that.
 *
 * Offers: dp_is_mailbox; dp_post_run, dp_post; dp_block_of_mail, dp_share_mail, dp_drop_mail; dp_make_mailbox,
 * dp_list_mailbox, dp_no_mailbox; dp_show_mailbox,
 *         dp_find_mailbox, dp_close_mailbox, dp_next_mailbox; dp_adopt_mailboxes. */
#pragma once

#include "shmbus/dispatcher/native/share.h"

#include <stdio.h>

#define DP_NO_ENTRY (~0u)

struct dp_mail { /* what is known of an entry beside its words */
    uint32_t cell, cells;      /* the first of them, and how many */
    uint32_t older, younger;   /* the entries that came just before and after it; DP_NO_ENTRY: none */
    uint16_t type_length;      /* LATEST: its type, which stands in the first cell */
    const uint8_t *type;
    uint64_t hash;
    uint64_t share, bytes;     /* of a block, and those of its payload; 0: the payload stands here */
};

struct dp_mailbox {
    struct sb_mailbox *memory;
    struct sb_mail *entries;
    struct sb_mail_cell *cells;
    struct dp_mail *mails;
    uint32_t depth, cell_count;
    uint32_t oldest, youngest;
    uint32_t *free_cells, free_count;
    uint32_t *free_entries, free_entry_count; /* LATEST */
    struct sb_table types;                    /* LATEST: of struct dp_mail, by type */
    uint64_t pooled;                          /* bytes of payloads in pools that entries name */
    bool latest;
    bool interested;                          /* its interest was in the log */
};

struct dp_piece { /* of a record */
    const void *bytes;
    uint64_t length;
};

static inline bool dp_is_mailbox(const struct dp_port *port) { return port->mailbox != NULL; }

/* One after the other, of one endpoint; NULL at the end. */
static inline struct dp_port *dp_next_mailbox(struct dp_forwarder *f, const struct dp_port *owner, uint32_t *index)
{
    for (; f->mailboxes_open && *index < SB_MAILBOXES; ++*index) {
        struct dp_port *port = &f->ports[SB_FIRST_MAILBOX + *index];
        if (port->state != SB_ROW_FREE && port->owner == owner->slot) {
            ++*index;
            return port;
        }
    }
    return NULL;
}

/* Entries ---------------------------------------------------------------------------------------------------- */

static inline uint32_t dp_cells_of(uint64_t length) { return (uint32_t)((length + SB_MAIL_BYTES - 1) / SB_MAIL_BYTES); }

static inline void dp_free_cells(struct dp_mailbox *box, uint32_t cell, uint32_t count)
{
    for (; count--; cell = (uint32_t)rb_load(&box->cells[cell].next))
        box->free_cells[box->free_count++] = cell;
}

static inline void dp_leave_age(struct dp_mailbox *box, uint32_t i)
{
    struct dp_mail *mail = &box->mails[i];
    *(mail->older == DP_NO_ENTRY ? &box->oldest : &box->mails[mail->older].younger) = mail->younger;
    *(mail->younger == DP_NO_ENTRY ? &box->youngest : &box->mails[mail->younger].older) = mail->older;
}

static inline void dp_join_youngest(struct dp_mailbox *box, uint32_t i)
{
    box->mails[i].older = box->youngest;
    box->mails[i].younger = DP_NO_ENTRY;
    *(box->youngest == DP_NO_ENTRY ? &box->oldest : &box->mails[box->youngest].younger) = i;
    box->youngest = i;
}

/* Before its cells are written again, nobody may take it for whole. */
static inline void dp_void_entry(struct dp_forwarder *f, struct dp_port *port, uint32_t i)
{
    struct dp_mailbox *box = port->mailbox;
    struct dp_mail *mail = &box->mails[i];
    rb_store(&box->entries[i].number, 0);
    rb_fence_release(); /* with ep_copy_mail: who saw a word written later sees that the number has changed */
    RB_FAIL("mailbox.void");
    if (!mail->share)
        return;
    dp_mail_left(f, &f->ports[port->owner], mail->share);
    box->pooled -= mail->bytes;
    mail->share = mail->bytes = 0;
}

static inline void dp_drop_mail(struct dp_forwarder *f, struct dp_port *port, uint32_t i)
{
    struct dp_mailbox *box = port->mailbox;
    struct dp_mail *mail = &box->mails[i];
    dp_void_entry(f, port, i);
    dp_free_cells(box, mail->cell, mail->cells);
    dp_leave_age(box, i);
    mail->cells = 0;
    if (box->latest) {
        sb_table_remove(&box->types, mail->hash, mail);
        box->free_entries[box->free_entry_count++] = i;
    }
}

struct dp_type_key { const uint8_t *type; uint16_t length; };
static inline bool dp_same_type(const void *item, const void *key)
{
    const struct dp_mail *mail = item;
    const struct dp_type_key *k = key;
    return mail->type_length == k->length && memcmp(mail->type, k->type, k->length) == 0;
}

/* Where the newest of this type stands, or will. */
static inline uint32_t dp_entry_of_type(struct dp_forwarder *f, struct dp_port *port, const uint8_t *type,
                                        uint16_t length, uint64_t hash)
{
    struct dp_mailbox *box = port->mailbox;
    struct dp_type_key key = {type, length};
    struct dp_mail *known = sb_table_find(&box->types, hash, dp_same_type, &key);
    if (known)
        return (uint32_t)(known - box->mails);
    if (!box->free_entry_count)
        dp_drop_mail(f, port, box->oldest);
    return box->free_entries[--box->free_entry_count];
}

/* The pieces into a chain of cells, of which there are enough; returns the first. */
static inline uint32_t dp_fill_cells(struct dp_mailbox *box, const struct dp_piece *pieces, uint32_t count,
                                     uint32_t cells)
{
    uint32_t first = box->free_cells[box->free_count - 1], piece = 0;
    uint64_t done = 0;
    while (cells--) {
        struct sb_mail_cell *cell = &box->cells[box->free_cells[--box->free_count]];
        uint64_t words[SB_MAIL_WORDS];
        uint64_t filled = 0;
        while (filled < SB_MAIL_BYTES && piece < count) {
            uint64_t left = pieces[piece].length - done, space = SB_MAIL_BYTES - filled;
            uint64_t n = left < space ? left : space;
            memcpy((uint8_t *)words + filled, (const uint8_t *)pieces[piece].bytes + done, n);
            filled += n;
            done += n;
            if (done == pieces[piece].length) {
                piece++;
                done = 0;
            }
        }
        memset((uint8_t *)words + filled, 0, RB_ALIGN8(filled) - filled);
        for (uint64_t i = 0; i < RB_ALIGN8(filled) / 8; i++)
            rb_store(&cell->words[i], words[i]);
        rb_store(&cell->next, cells ? box->free_cells[box->free_count - 1] : 0);
        RB_FAIL("mailbox.cell");
    }
    return first;
}

static inline const uint8_t *dp_first_bytes(const struct dp_mailbox *box, uint32_t cell)
{
    return (const uint8_t *)(const void *)box->cells[cell].words;
}

/* The block that the record of entry `i` names, as we have written it. False: it names none. */
static inline bool dp_block_of_mail(const struct dp_mailbox *box, uint32_t i, struct sb_block *block)
{
    struct sb_record h;
    uint32_t cell = box->mails[i].cell;
    memcpy(&h, dp_first_bytes(box, cell), sizeof h);
    if (!(h.flags & SB_POOLED) || h.length - sb_payload_offset(&h) != sizeof *block)
        return false;
    uint64_t from = h.length - sizeof *block;
    for (uint64_t n = from / SB_MAIL_BYTES; n; n--)
        cell = (uint32_t)rb_load(&box->cells[cell].next);
    for (uint64_t n = 0, at = from % SB_MAIL_BYTES; n < sizeof *block; n++, at++) {
        if (at == SB_MAIL_BYTES) {
            cell = (uint32_t)rb_load(&box->cells[cell].next);
            at = 0;
        }
        ((uint8_t *)block)[n] = dp_first_bytes(box, cell)[at];
    }
    return true;
}

static inline void dp_note_type(struct dp_mailbox *box, struct dp_mail *mail, uint16_t length, uint64_t hash)
{
    mail->type = dp_first_bytes(box, mail->cell) + SB_HEADER;
    mail->type_length = length;
    mail->hash = hash;
}

/* Entry `i` has this share from here on, which its endpoint does not see yet. False: there is no memory for that, or no
 * such pool any more. */
static inline bool dp_share_mail(struct dp_forwarder *f, struct dp_port *port, uint32_t i, uint64_t number,
                                 const struct sb_block *block)
{
    struct dp_mail *mail = &port->mailbox->mails[i];
    uint64_t name = sb_share_of_mail(port->owner_index, dp_whom_of(port), number);
    struct dp_share *share = dp_add_share(f, &f->ports[port->owner], name, block);
    if (!share)
        return false;
    share->mailed = true;
    mail->share = name;
    mail->bytes = block->length;
    port->mailbox->pooled += mail->bytes;
    return true;
}

/* The oldest of those whose payloads lie in pools go, until there is room for this one, which comes into entry `i`. */
static inline void dp_make_room_for(struct dp_forwarder *f, struct dp_port *port, uint32_t i,
                                    const struct sb_block *block)
{
    struct dp_mailbox *box = port->mailbox;
    const struct dp_pool *pool = dp_pool_of(f, block->pool_slot, block->pool_generation);
    uint64_t most = pool ? dp_pool_most(f, pool) / 4 : 0;
    for (uint32_t at = box->oldest, younger; at != DP_NO_ENTRY; at = younger) {
        younger = box->mails[at].younger;
        if (box->pooled - box->mails[i].bytes + block->length <= most)
            return;
        if (at != i && box->mails[at].share)
            dp_drop_mail(f, port, at);
    }
}

/* The record becomes message `number`; `block`: with SB_POOLED the last of it, which was checked. False: no memory for
 * its type, or its payload has gone. */
static inline bool dp_post(struct dp_forwarder *f, struct dp_port *port, uint64_t number,
                           const struct sb_record *header, const uint8_t *type, const void *rest,
                           uint64_t rest_length, const struct sb_block *block)
{
    struct dp_mailbox *box = port->mailbox;
    struct sb_record h = *header;
    uint32_t need = dp_cells_of(h.length), i = (uint32_t)((number - 1) % box->depth);
    uint64_t hash = 0;
    if (box->latest) {
        hash = sb_hash(type, h.type_length, 11);
        i = dp_entry_of_type(f, port, type, h.type_length, hash);
        if (i >= rb_load(&box->memory->used))
            rb_store(&box->memory->used, i + 1);
    }
    struct dp_mail *mail = &box->mails[i];
    bool replaces = mail->cells != 0;
    h.path = h.epoch = 0;
    h.interests = SB_PLAIN;
    h.flags |= SB_ALONE;
    h.deadline_ns = port->alone;
    if (__builtin_expect(block != NULL, 0))
        dp_make_room_for(f, port, i, block);
    while (box->free_count + mail->cells < need) /* there are cells for several of the largest */
        dp_drop_mail(f, port, box->oldest == i ? mail->younger : box->oldest);
    bool first = box->free_count < need; /* what it replaces makes space */
    uint32_t cell = mail->cell, cells = mail->cells;
    if (first) {
        dp_void_entry(f, port, i);
        dp_free_cells(box, cell, cells);
    }
    const struct dp_piece pieces[4] = {{&h, sizeof h}, {type, h.type_length}, {rest, rest_length},
                                       {block, block ? sizeof *block : 0}};
    uint32_t fresh = dp_fill_cells(box, pieces, block ? 4 : 3, need);
    if (!first)
        dp_void_entry(f, port, i);
    bool shared = !block || dp_share_mail(f, port, i, number, block);
    rb_store(&box->entries[i].at, fresh | (uint64_t)h.length << 32);
    RB_FAIL("mailbox.at");
    if (shared)
        rb_store_release(&box->entries[i].number, number);
    RB_FAIL("mailbox.entered");
    if (replaces) {
        dp_leave_age(box, i);
        if (!first)
            dp_free_cells(box, cell, cells);
    }
    mail->cell = fresh;
    mail->cells = need;
    dp_join_youngest(box, i);
    if (!box->latest)
        return shared;
    dp_note_type(box, mail, h.type_length, hash);
    if (replaces || sb_table_put(&box->types, hash, mail))
        return shared;
    dp_void_entry(f, port, i);
    dp_free_cells(box, fresh, need);
    dp_leave_age(box, i);
    mail->cells = 0;
    box->free_entries[box->free_entry_count++] = i;
    return false;
}

#define DP_SEEN_TYPES (2 * DP_RUN)

/* Is there another of its type behind it in the run, whose types are the cache's own? Asked from the last one on. */
static inline bool dp_superseded(const struct dp_run *run, uint32_t i, const uint8_t *seen[DP_SEEN_TYPES])
{
    const uint8_t *type = run->type[i];
    if (i + 1 < run->count && run->type[i + 1] == type)
        return true;
    for (uint32_t k = (uint32_t)((uintptr_t)type >> 6) % DP_SEEN_TYPES;; k = (k + 1) % DP_SEEN_TYPES) {
        if (seen[k] == type)
            return true;
        if (!seen[k]) {
            seen[k] = type;
            return false;
        }
    }
}

/* The run, not yet published: what will be there after it. All of it counts as come. */
static inline void dp_post_run(struct dp_forwarder *f, const struct dp_run *run, struct dp_port *port)
{
    struct dp_mailbox *box = port->mailbox;
    struct rb_producer *in = &port->in[SB_DATA];
    const uint8_t *seen[DP_SEEN_TYPES];
    bool over[DP_RUN];
    if (box->latest)
        memset(seen, 0, sizeof seen);
    for (uint32_t i = run->count; i-- > 0;)
        over[i] = box->latest ? dp_superseded(run, i, seen) : run->count - i > box->depth;
    for (uint32_t i = 0; i < run->count; i++) {
        if (over[i])
            continue;
        struct sb_record h = run->header[i];
        uint32_t front = SB_HEADER + h.type_length;
        const struct sb_block *block = h.flags & SB_POOLED ? &run->block[i] : NULL;
        h.flags &= SB_PAYLOAD_FLAGS | (run->urgent ? SB_URGENT : 0); /* those that a sender may set */
        h.peer = (uint16_t)run->span.source->slot;
        h.peer_generation = run->span.source->generation;
        h.attempt = 1;
        dp_post(f, port, in->next + i + 1, &h, run->type[i], run->record[i] + front,
                h.length - front - (block ? sizeof *block : 0), block);
    }
    in->next += run->count;
}

/* Memory ----------------------------------------------------------------------------------------------------- */

static inline void dp_mailbox_name(const struct dp_forwarder *f, uint32_t slot, uint64_t generation, char name[160])
{
    snprintf(name, 160, "%s:mailbox:%u:%llu", f->prefix, slot, (unsigned long long)generation);
}

static inline uint64_t dp_mailbox_entries(void) { return (sizeof(struct sb_mailbox) + 63) & ~63ull; }
static inline uint64_t dp_mailbox_cells(uint64_t depth)
{
    return dp_mailbox_entries() + ((depth * sizeof(struct sb_mail) + 63) & ~63ull);
}

static inline void dp_free_mailbox(struct dp_mailbox *box)
{
    if (!box)
        return;
    free(box->mails);
    free(box->free_cells);
    free(box->free_entries);
    free(box->types.slots);
    free(box);
}

/* The private half of what stands in `memory`. NULL: no memory. */
static inline struct dp_mailbox *dp_new_mailbox(struct sb_mailbox *memory)
{
    struct dp_mailbox *box = calloc(1, sizeof *box);
    if (!box)
        return NULL;
    box->memory = memory;
    box->entries = (struct sb_mail *)(void *)((uint8_t *)memory + memory->entries_offset);
    box->cells = (struct sb_mail_cell *)(void *)((uint8_t *)memory + memory->cells_offset);
    box->depth = (uint32_t)memory->depth;
    box->cell_count = (uint32_t)memory->cell_count;
    box->latest = memory->latest;
    box->oldest = box->youngest = DP_NO_ENTRY;
    box->mails = calloc(box->depth, sizeof *box->mails);
    box->free_cells = calloc(box->cell_count, sizeof *box->free_cells);
    box->free_entries = calloc(box->depth, sizeof *box->free_entries);
    if (box->mails && box->free_cells && box->free_entries)
        return box;
    dp_free_mailbox(box);
    return NULL;
}

/* The chain of an entry, if all of it is there and nobody else's: its cells are marked as used. */
static inline bool dp_claim_chain(const struct dp_mailbox *box, uint32_t cell, uint32_t count, uint8_t *used)
{
    uint32_t at = cell;
    for (uint32_t n = 0; n < count; n++, at = (uint32_t)rb_load(&box->cells[at].next))
        if (at >= box->cell_count || used[at])
            return false;
    for (; count--; cell = (uint32_t)rb_load(&box->cells[cell].next))
        used[cell] = 1;
    return true;
}

static inline int dp_elder_mail(const void *one, const void *other)
{
    uint64_t a = ((const uint64_t *)one)[0], b = ((const uint64_t *)other)[0];
    return a < b ? -1 : a > b;
}

/* What stands there, the oldest first; what was not published, or is not whole, goes. False: no memory. */
static inline bool dp_read_mailbox(struct dp_mailbox *box, uint64_t head)
{
    uint64_t (*found)[2] = calloc(box->depth, sizeof *found);
    uint8_t *used = calloc(box->cell_count, 1);
    uint32_t count = 0;
    bool enough = found && used;
    for (uint32_t i = 0; enough && i < box->depth; i++) {
        uint64_t number = rb_load(&box->entries[i].number);
        if (number && number <= head) {
            found[count][0] = number;
            found[count++][1] = i;
        } else {
            rb_store(&box->entries[i].number, 0);
        }
    }
    if (enough)
        qsort(found, count, sizeof *found, dp_elder_mail);
    for (uint32_t k = 0; enough && k < count; k++) {
        uint32_t i = (uint32_t)found[k][1];
        uint64_t at = rb_load(&box->entries[i].at);
        struct dp_mail *mail = &box->mails[i];
        struct sb_record h;
        uint32_t cells = dp_cells_of(at >> 32), cell = (uint32_t)at;
        bool whole = at >> 32 >= SB_HEADER && dp_claim_chain(box, cell, cells, used);
        if (whole)
            memcpy(&h, dp_first_bytes(box, cell), sizeof h);
        if (!whole || !sb_record_sound(&h)) {
            rb_store(&box->entries[i].number, 0);
            continue;
        }
        mail->cell = cell;
        mail->cells = cells;
        dp_join_youngest(box, i);
        if (box->latest) {
            dp_note_type(box, mail, h.type_length, sb_hash(dp_first_bytes(box, cell) + SB_HEADER, h.type_length, 11));
            enough = sb_table_put(&box->types, mail->hash, mail);
        }
    }
    rb_fence_release(); /* what was dropped is not named any more when its cells are written */
    for (uint32_t cell = box->cell_count; enough && cell-- > 0;)
        if (!used[cell])
            box->free_cells[box->free_count++] = cell;
    for (uint32_t i = box->depth; box->latest && i-- > 0;)
        if (!box->mails[i].cells)
            box->free_entries[box->free_entry_count++] = i;
    free(found);
    free(used);
    return enough;
}

/* Make a port of a mailbox that stands. False: no memory, or its words are garbage. */
static inline bool dp_open_mailbox(struct dp_forwarder *f, uint32_t slot, struct sb_mailbox *memory)
{
    struct dp_port *port = &f->ports[slot], *owner = dp_port_of(f, memory->owner);
    struct sb_down_incoming *in = &memory->down.incoming[SB_DATA];
    uint64_t depth = memory->depth, size = memory->down.prefix.size;
    if (!owner || owner->slot >= SB_MAX_SLOTS || !depth || depth > SB_MAX_DEPTH || memory->index >= SB_OWN_MAILBOXES ||
        memory->entries_offset != dp_mailbox_entries() || memory->cells_offset != dp_mailbox_cells(depth) ||
        !memory->cell_count || memory->cell_count > ~0u || memory->cells_offset > size ||
        memory->cell_count > (size - memory->cells_offset) / sizeof(struct sb_mail_cell))
        return false;
    struct dp_mailbox *box = dp_new_mailbox(memory);
    uint64_t head = rb_load(&in->head);
    if (!box || !dp_read_mailbox(box, head)) {
        dp_free_mailbox(box);
        return false;
    }
    *port = (struct dp_port){.slot = slot, .generation = (uint32_t)memory->down.generation, .state = SB_ROW_LIVE,
                             .confirmed = true, .down = &memory->down, .row = &f->no_row, .progress_ns = f->now,
                             .alone = memory->interest, .mailbox = box, .owner = owner->slot,
                             .owner_index = (uint32_t)memory->index};
    /* Positions are numbers of messages; a record may be as large as its endpoint's ring takes. */
    port->in[SB_DATA] = (struct rb_producer){.head = &in->head, .tail = &in->head, .high = &in->high,
                                             .capacity = owner->in[SB_DATA].capacity, .next = head, .published = head,
                                             .tail_seen = head, .high_seen = ~0ull};
    memcpy(port->name, owner->name, sizeof port->name);
    port->delivered = rb_load(&in->delivered);
    f->mailboxes_open++;
    return true;
}

static inline struct dp_port *dp_find_mailbox(struct dp_forwarder *f, const struct dp_port *owner, uint64_t interest)
{
    uint32_t index = 0;
    for (struct dp_port *port; (port = dp_next_mailbox(f, owner, &index));)
        if (port->mailbox->memory->interest == interest)
            return port;
    return NULL;
}

/* Its endpoint finds it. */
static inline void dp_show_mailbox(struct dp_port *owner, const struct dp_port *port)
{
    rb_store_release(&owner->down->mailbox[port->owner_index], dp_whom_of(port));
}

static inline struct dp_port *dp_no_mailbox(struct dp_forwarder *f, struct dp_port *owner, uint32_t index,
                                            enum sb_no_mailbox why)
{
    rb_add(&f->bus->mailboxes_failed, 1);
    rb_store_release(&owner->down->mailbox[index], why);
    return NULL;
}

/* For this interest, and not listed. NULL: there is no memory, or there are too many, which DOWN says. */
static inline struct dp_port *dp_make_mailbox(struct dp_forwarder *f, struct dp_port *owner,
                                              const struct sb_interest *e, const char *pattern)
{
    char name[160];
    uint32_t index = 0;
    while (index < SB_MAILBOXES && f->ports[SB_FIRST_MAILBOX + index].state != SB_ROW_FREE)
        index++;
    if (index == SB_MAILBOXES)
        return dp_no_mailbox(f, owner, e->mailbox, SB_MAILBOX_TOO_MANY);
    uint64_t bytes = f->bus->mailbox_bytes, generation = rb_load(&f->bus->mailboxes_made) + 1;
    if (bytes < owner->in[SB_DATA].capacity)
        bytes = owner->in[SB_DATA].capacity; /* of which a record takes a quarter at the most */
    uint64_t cells = dp_cells_of(bytes) > e->depth ? dp_cells_of(bytes) : e->depth;
    uint64_t size = dp_mailbox_cells(e->depth) + cells * sizeof(struct sb_mail_cell);
    dp_mailbox_name(f, SB_FIRST_MAILBOX + index, generation, name);
    struct sb_mailbox *memory = dp_make_segment(name, size);
    if (!memory)
        return dp_no_mailbox(f, owner, e->mailbox, SB_MAILBOX_NO_MEMORY);
    memory->down.slot = SB_FIRST_MAILBOX + index;
    memory->down.generation = generation;
    rb_store(&memory->down.todo.from, SB_NOWHERE);
    for (int r = 0; r < SB_RINGS_IN; r++)
        rb_store(&memory->down.incoming[r].need, SB_NO_NEED);
    memory->owner = dp_whom_of(owner);
    memory->interest = e->id;
    memory->index = e->mailbox;
    memory->latest = e->flags & SB_LATEST ? 1 : 0;
    memory->depth = e->depth;
    memory->entries_offset = dp_mailbox_entries();
    memory->cells_offset = dp_mailbox_cells(e->depth);
    memory->cell_count = cells;
    memcpy(memory->pattern, pattern, e->pattern_length);
    memory->down.prefix.layout = SB_LAYOUT;
    memory->down.prefix.size = size;
    memory->down.prefix.generation = generation;
    memory->down.prefix.kind = SB_SEGMENT_MAILBOX;
    rb_store_release(&memory->down.prefix.magic, RB_MAGIC); /* whoever opens it */
    RB_FAIL("mailbox.made");
    if (!dp_open_mailbox(f, SB_FIRST_MAILBOX + index, memory)) {
        dp_remove_segment(name);
        dp_close_segment(memory, size);
        return dp_no_mailbox(f, owner, e->mailbox, SB_MAILBOX_NO_MEMORY);
    }
    return &f->ports[SB_FIRST_MAILBOX + index];
}

/* It is whole. */
static inline void dp_list_mailbox(struct dp_forwarder *f, const struct dp_port *port)
{
    rb_store_release(&f->bus->mailbox[port->slot - SB_FIRST_MAILBOX], port->generation); /* dp_adopt_mailboxes, and
                                                                                          * observers */
    RB_FAIL("mailbox.listed");
    rb_store(&f->bus->mailboxes_made, port->generation);
}

/* With `remove` for good: nothing goes there any more. Its endpoint may read on in what it has mapped. */
static inline void dp_close_mailbox(struct dp_forwarder *f, struct dp_port *port, bool remove)
{
    char name[160];
    struct sb_mailbox *memory = port->mailbox->memory;
    struct dp_port *owner = &f->ports[port->owner];
    if (remove) {
        for (uint32_t i = 0; i < port->mailbox->depth; i++)
            if (port->mailbox->mails[i].share)
                dp_void_entry(f, port, i); /* first: its endpoint may take from there still */
        rb_word *shown = &owner->down->mailbox[port->owner_index];
        if (rb_load(shown) == dp_whom_of(port))
            rb_store(shown, 0);
        dp_mailbox_name(f, port->slot, port->generation, name);
        dp_remove_segment(name); /* first: a successor goes by what BUS says */
        RB_FAIL("mailbox.removed");
        rb_store_release(&f->bus->mailbox[port->slot - SB_FIRST_MAILBOX], 0);
    }
    dp_free_mailbox(port->mailbox);
    port->mailbox = NULL;
    port->state = SB_ROW_FREE;
    f->mailboxes_open--;
    dp_close_segment(memory, memory->down.prefix.size);
}

/* Those that the last dispatcher left, once the ports of their endpoints are open. */
static inline void dp_adopt_mailboxes(struct dp_forwarder *f)
{
    for (uint32_t index = 0; index < SB_MAILBOXES; index++) {
        uint64_t generation = rb_load_acquire(&f->bus->mailbox[index]); /* with dp_make_mailbox */
        char name[160];
        uint64_t size = 0;
        if (!generation)
            continue;
        if (rb_load(&f->bus->mailboxes_made) < generation)
            rb_store(&f->bus->mailboxes_made, generation);
        dp_mailbox_name(f, SB_FIRST_MAILBOX + index, generation, name);
        struct sb_mailbox *memory = dp_open_segment(name, &size);
        if (!memory || size <= sizeof *memory || memory->down.generation != generation ||
            memory->down.prefix.size != size || !dp_open_mailbox(f, SB_FIRST_MAILBOX + index, memory)) {
            if (memory)
                dp_close_segment(memory, size);
            dp_remove_segment(name); /* its interest gets another */
            rb_store(&f->bus->mailbox[index], 0);
        }
    }
}
