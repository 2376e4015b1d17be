/* Mailboxes, as their endpoint reads them: memory of the dispatcher's, which goes on writing there. What is copied is
 * whole if the number of its entry is the same before and after; what was written over meanwhile is not there any more.
 *
 *   ep_open_mailbox       it is mapped; ep_close_mailbox, ep_close_mailboxes
 *   ep_mail_unmapped      one that is to be mapped (anew)
 *   ep_mail_waits         is there something to take?
 *   ep_mail_wants         for which of them the event is to be written
 *   ep_next_mail          the next message, where it is the mailboxes' turn; ep_take_mail: it is taken
 *
 * A message whose payload lies in a pool is taken with its share of that block, which is entered while the message is
 * only looked at: then its number is looked at once more, since the dispatcher may have written over it before it could
 * see the entry.
 *
 * Messages of one mailbox are numbered. With DROP_OLDEST they are taken in that order, so what is lost shows by the
 * next number. With LATEST an entry is there for each type, and is taken in rounds: those that wait when a round
 * begins, the one that came first before others, each with the newest that stands there when it is its turn. So no type
 * waits for another that comes more often. What came by the beginning of a round, and was neither taken nor is there
 * then, is lost.
 */
#pragma once

#include "shmbus/endpoint/native/share.h"

#include <stdlib.h>

enum ep_mail_state {
    EP_MAIL_TAKEN = 0, /* by whoever takes messages */
    EP_MAIL_ASKED = 1, /* by who takes those that no callback gets */
    EP_MAIL_LEFT = 2,  /* by nobody for the time being */
};

struct ep_waiting { /* in a round */
    uint64_t number;
    uint32_t entry;
};

struct ep_mailbox {
    uint64_t interest;
    uint64_t whom;                      /* what is mapped, or could not be; 0: nothing yet */
    const struct sb_mailbox *memory;    /* NULL: it is not mapped */
    const struct sb_mail *entries;
    const struct sb_mail_cell *cells;
    uint64_t depth, cell_count;
    uint64_t seen;                      /* what came up to here is taken, lost, or in the round */
    uint64_t *taken;                    /* LATEST: by entry, the number that was taken last; else NULL */
    struct ep_waiting *round;
    uint32_t round_count, round_next;
    struct ep_waiting copied;           /* stands in the endpoint's `mail` */
    uint64_t pooled;                    /* LATEST: the newest in a block that can go once UP.had.taken is raised; or
                                         * 0 */
    uint64_t received, lost, lost_told; /* by message.lost */
    uint64_t lost_before;               /* in others that had this index */
    enum ep_mail_state state;
};

static inline const rb_word *ep_mail_head(const struct ep_mailbox *box)
{
    return &box->memory->down.incoming[SB_DATA].head;
}

static inline bool ep_mail_wanted(const struct ep_endpoint *e, const struct ep_mailbox *box)
{
    return box->state == EP_MAIL_TAKEN || (box->state == EP_MAIL_ASKED && e->mail_asked);
}

/* Has the dispatcher made it, perhaps anew, and it is not mapped yet? */
static inline bool ep_mail_made(const struct ep_endpoint *e, uint32_t index)
{
    uint64_t whom = rb_load_acquire(&e->down->mailbox[index]);
    return whom >> 63 && whom != e->mailboxes[index]->whom;
}

/* Its index, or SB_OWN_MAILBOXES: none. */
static inline uint32_t ep_mail_unmapped(const struct ep_endpoint *e)
{
    uint32_t i = 0;
    while (i < SB_OWN_MAILBOXES && !(e->mailboxes[i] && ep_mail_made(e, i)))
        i++;
    return i;
}

static inline bool ep_mail_new(const struct ep_mailbox *box)
{
    return box->memory && (box->round_next < box->round_count || rb_load_seq(ep_mail_head(box)) != box->seen);
}

static inline bool ep_mail_waits(const struct ep_endpoint *e)
{
    for (uint32_t i = 0; i < SB_OWN_MAILBOXES; i++) {
        const struct ep_mailbox *box = e->mailboxes[i];
        if (box && ep_mail_wanted(e, box) && (ep_mail_new(box) || ep_mail_made(e, i)))
            return true;
    }
    return false;
}

static inline uint64_t ep_mail_wants(const struct ep_endpoint *e)
{
    uint64_t wants = 0;
    for (uint32_t i = 0; i < SB_OWN_MAILBOXES; i++)
        if (e->mailboxes[i] && ep_mail_wanted(e, e->mailboxes[i]))
            wants |= 1ull << (SB_EVENT_MAIL + i);
    return wants;
}

static inline void ep_forget_mail(struct ep_mailbox *box)
{
    free(box->taken);
    free(box->round);
    box->taken = NULL;
    box->round = NULL;
    box->memory = NULL;
    box->round_count = box->round_next = 0;
    box->seen = box->received = box->lost = box->lost_told = 0;
}

/* The endpoint is about to log an interest with it. False: no memory. */
static inline bool ep_begin_mailbox(struct ep_endpoint *e, uint32_t index, uint64_t interest, enum ep_mail_state state)
{
    struct ep_mailbox *box = calloc(1, sizeof *box);
    if (!box)
        return false;
    box->interest = interest;
    box->state = state;
    rb_store(&e->up->had[index].interest, interest);
    e->mailboxes[index] = box;
    e->mailbox_count++;
    return true;
}

/* From now on `had` is about this one. Killed meanwhile, it is about none, and what was lost before stays counted. */
static inline void ep_begin_had(struct ep_endpoint *e, uint32_t index, uint64_t whom)
{
    struct sb_had *had = &e->up->had[index];
    e->mailboxes[index]->lost_before = rb_load(&had->lost);
    rb_store(&had->whom, 0);
    rb_store_release(&had->received, 0);
    rb_store_release(&had->taken, 0);
    rb_store(&had->lost_before, rb_load(&had->lost));
    RB_FAIL("mailbox.begun");
    rb_store_release(&had->whom, whom);
}

/* `memory` is the segment that `whom` names, NULL: there is none, of `size` bytes. False: no memory. */
static inline bool ep_open_mailbox(struct ep_endpoint *e, uint32_t index, uint64_t whom,
                                   const struct sb_mailbox *memory, uint64_t size)
{
    struct ep_mailbox *box = e->mailboxes[index];
    ep_forget_mail(box);
    box->whom = whom;
    ep_begin_had(e, index, whom);
    if (!memory || memory->interest != box->interest || !memory->depth || memory->depth > SB_MAX_DEPTH ||
        memory->entries_offset > size || memory->depth > (size - memory->entries_offset) / sizeof *box->entries ||
        memory->cells_offset > size || memory->cell_count > (size - memory->cells_offset) / sizeof *box->cells)
        return true;
    box->depth = memory->depth;
    box->cell_count = memory->cell_count;
    box->entries = (const struct sb_mail *)(const void *)((const uint8_t *)memory + memory->entries_offset);
    box->cells = (const struct sb_mail_cell *)(const void *)((const uint8_t *)memory + memory->cells_offset);
    if (memory->latest) {
        box->taken = calloc(box->depth, sizeof *box->taken);
        box->round = calloc(box->depth, sizeof *box->round);
        if (!box->taken || !box->round) {
            ep_forget_mail(box);
            box->whom = 0;
            return false;
        }
    }
    box->memory = memory;
    return true;
}

/* What was looked at was not taken. */
static inline void ep_drop_mail_share(struct ep_endpoint *e)
{
    struct ep_share *share = e->mail_share;
    e->mail_share = NULL;
    if (share)
        ep_free_share(share);
}

static inline void ep_free_mailbox(struct ep_endpoint *e, uint32_t index)
{
    struct ep_mailbox *box = e->mailboxes[index];
    if (!box)
        return;
    ep_drop_mail_share(e);
    ep_forget_mail(box);
    free(box);
    e->mailboxes[index] = NULL;
    e->mailbox_count--;
}

/* What is left there is not lost: nobody wants it. */
static inline void ep_close_mailbox(struct ep_endpoint *e, uint32_t index)
{
    if (e->mailboxes[index])
        rb_store(&e->up->had[index].interest, 0);
    ep_free_mailbox(e, index);
}

/* The endpoint ends. What it has not taken is lost. */
static inline void ep_close_mailboxes(struct ep_endpoint *e)
{
    for (uint32_t i = 0; i < SB_OWN_MAILBOXES; i++)
        ep_free_mailbox(e, i);
    free(e->mail);
    e->mail = NULL;
    e->mail_space = 0;
}

/* Copying ---------------------------------------------------------------------------------------------------- */

/* Space for a record of so many bytes. */
static inline bool ep_mail_space(struct ep_endpoint *e, uint64_t length)
{
    uint64_t need = (length + SB_MAIL_BYTES - 1) / SB_MAIL_BYTES * SB_MAIL_BYTES;
    if (need <= e->mail_space)
        return true;
    uint8_t *fresh = realloc(e->mail, need);
    if (!fresh)
        return false;
    e->mail = fresh;
    e->mail_space = need;
    return true;
}

/* The message of this entry into e->mail, if it is whole; returns its number, or 0. Pairs with dp_void_entry. */
static inline uint64_t ep_copy_mail(struct ep_endpoint *e, const struct ep_mailbox *box, uint32_t entry)
{
    const struct sb_mail *mail = &box->entries[entry];
    uint64_t head = rb_load_acquire(ep_mail_head(box)); /* first: what is not published may get the same number again */
    uint64_t number = rb_load_acquire(&mail->number), at = rb_load(&mail->at), length = at >> 32, copied = 0;
    if (!number || number > head || length < SB_HEADER ||
        length > box->cell_count * SB_MAIL_BYTES || !ep_mail_space(e, length))
        return 0;
    for (uint64_t cell = (uint32_t)at; copied < length && cell < box->cell_count;) {
        uint64_t words = (length - copied + 7) / 8, *to = (uint64_t *)(void *)(e->mail + copied);
        words = words < SB_MAIL_WORDS ? words : SB_MAIL_WORDS;
        for (uint64_t i = 0; i < words; i++)
            to[i] = rb_load(&box->cells[cell].words[i]);
        copied += words * 8;
        cell = rb_load(&box->cells[cell].next);
    }
    rb_fence_acquire(); /* before the second look */
    RB_FAIL("mailbox.copied");
    return copied >= length && rb_load(&mail->number) == number ? number : 0;
}

/* Taking ----------------------------------------------------------------------------------------------------- */

static inline void ep_count_lost(struct ep_endpoint *e, uint32_t index, uint64_t lost)
{
    struct ep_mailbox *box = e->mailboxes[index];
    if (lost <= box->lost)
        return;
    box->lost = lost;
    rb_store(&e->up->had[index].lost, box->lost_before + lost);
}

/* Nothing is wanted any more of what came by then: it is taken, lost, or was replaced meanwhile. Blocks of pools that
 * are named there are free to go; those that were taken stand in the table of shares before. */
static inline void ep_say_mail_taken(struct ep_endpoint *e, uint32_t index)
{
    struct ep_mailbox *box = e->mailboxes[index];
    if (box->round_next < box->round_count)
        return;
    rb_store_release(&e->up->had[index].taken, box->seen);
    if (box->pooled)
        ep_pass_share(e);
    if (box->pooled <= box->seen)
        box->pooled = 0;
}

static inline int ep_by_number(const void *one, const void *other)
{
    uint64_t a = ((const struct ep_waiting *)one)->number, b = ((const struct ep_waiting *)other)->number;
    return a < b ? -1 : a > b;
}

/* What waits now is in the round. It looks at no more entries than there have been types. */
static inline void ep_begin_round(struct ep_endpoint *e, uint32_t index)
{
    struct ep_mailbox *box = e->mailboxes[index];
    uint64_t head = rb_load_acquire(ep_mail_head(box));
    uint64_t used = rb_load(&box->memory->used); /* after the head: enough for all that is published */
    box->round_count = box->round_next = 0;
    for (uint32_t i = 0; i < used && i < box->depth; i++) {
        uint64_t number = rb_load_acquire(&box->entries[i].number);
        if (number > box->taken[i] && number <= head)
            box->round[box->round_count++] = (struct ep_waiting){number, i};
    }
    qsort(box->round, box->round_count, sizeof *box->round, ep_by_number);
    box->seen = head;
    uint64_t here = box->received + box->round_count;
    ep_count_lost(e, index, head > here ? head - here : 0);
}

/* Of each type the newest: the number of the message that was copied, or 0. */
static inline uint64_t ep_next_latest(struct ep_endpoint *e, uint32_t index)
{
    struct ep_mailbox *box = e->mailboxes[index];
    if (box->round_next == box->round_count)
        ep_begin_round(e, index);
    for (; box->round_next < box->round_count; box->round_next++) {
        uint32_t entry = box->round[box->round_next].entry;
        for (int tries = 0; tries < 4; tries++) {
            uint64_t number = ep_copy_mail(e, box, entry);
            if (number > box->taken[entry]) {
                box->copied = (struct ep_waiting){number, entry};
                return number;
            }
        }
    }
    return 0;
}

/* One after the other: likewise. */
static inline uint64_t ep_next_oldest(struct ep_endpoint *e, uint32_t index)
{
    struct ep_mailbox *box = e->mailboxes[index];
    uint64_t head = rb_load_acquire(ep_mail_head(box));
    uint64_t number = box->seen + 1;
    if (head > box->depth && number <= head - box->depth)
        number = head - box->depth + 1;
    for (; number <= head; number++)
        if (ep_copy_mail(e, box, (uint32_t)((number - 1) % box->depth)) == number)
            break;
    box->seen = number - 1;
    box->copied = (struct ep_waiting){number, (uint32_t)((number - 1) % box->depth)};
    ep_count_lost(e, index, number - 1 - box->received);
    return number <= head ? number : 0;
}

/* What was copied does not come again. */
static inline void ep_pass_mail(struct ep_mailbox *box)
{
    if (box->taken) {
        box->taken[box->copied.entry] = box->copied.number;
        box->round_next++;
    } else {
        box->seen = box->copied.number;
    }
}

/* What ep_peek_mail found in this mailbox is taken. */
static inline void ep_take_mail(struct ep_endpoint *e, uint32_t index)
{
    struct ep_mailbox *box = e->mailboxes[index];
    ep_pass_mail(box);
    box->lost_told = box->lost;
    rb_store(&e->up->had[index].received, ++box->received);
    ep_say_mail_taken(e, index);
    e->mailbox_turn = index + 1;
}

/* What is about to be taken lies in a block. Unless that says so itself, the dispatcher is to be told later: with the
 * end of the round, or with that of the next, where it came during this one. */
static inline void ep_note_pooled(struct ep_mailbox *box)
{
    bool last = box->round_next + 1 == box->round_count;
    if (box->taken && (!last || box->copied.number > box->seen) && box->copied.number > box->pooled)
        box->pooled = box->copied.number;
}

/* The share of what was copied into e->mail, with this header. False: that was written over before it was entered. */
static inline bool ep_enter_mail(struct ep_endpoint *e, uint32_t index, const struct sb_record *header)
{
    struct ep_mailbox *box = e->mailboxes[index];
    uint64_t name = sb_share_of_mail(index, box->whom, box->copied.number);
    e->mail_share = ep_enter_share(e, name, header, e->mail, false);
    if (e->mail_share && ep_drop_unmapped(e, e->mail_share))
        e->mail_share = NULL;
    RB_FAIL("mailbox.shared");
    rb_fence_seq(); /* with dp_sweep_shares: it sees the entry, or we that the number is void */
    if (rb_load(&box->entries[box->copied.entry].number) == box->copied.number) {
        ep_note_pooled(box);
        return true;
    }
    ep_drop_mail_share(e);
    return false;
}

/* The next message of any of them, in e->mail, with the header as its endpoint wants it, in which stands how many were
 * lost before it; the index of its mailbox, or SB_OWN_MAILBOXES: there is none. */
static inline uint32_t ep_peek_mail(struct ep_endpoint *e, struct sb_record *header)
{
    int tries = 0;
    ep_drop_mail_share(e);
    if (__builtin_expect(ep_trouble(e) & EP_EVICTED, 0)) /* as in ep_peek */
        return SB_OWN_MAILBOXES;
    for (uint32_t n = 0; n < SB_OWN_MAILBOXES; n++) {
        uint32_t index = (e->mailbox_turn + n) % SB_OWN_MAILBOXES;
        struct ep_mailbox *box = e->mailboxes[index];
        if (!box || !ep_mail_wanted(e, box) || !ep_mail_new(box))
            continue;
        if (!(box->taken ? ep_next_latest(e, index) : ep_next_oldest(e, index))) {
            ep_say_mail_taken(e, index);
            continue;
        }
        memcpy(header, e->mail, sizeof *header);
        if (!sb_record_sound(header) || header->length > e->mail_space) {
            ep_pass_mail(box);
            continue;
        }
        if (__builtin_expect(header->flags & SB_POOLED, 0) && !ep_enter_mail(e, index, header)) {
            if (tries++ < 4)
                n--;
            continue;
        }
        header->lost = (uint32_t)(box->lost - box->lost_told);
        return index;
    }
    return SB_OWN_MAILBOXES;
}

/* Mailboxes and the ring take turns, after what is urgent: `ring_dry` where the rings have nothing, else before they
 * are asked. As ep_peek_mail. */
static inline uint32_t ep_next_mail(struct ep_endpoint *e, struct sb_record *header, bool ring_dry)
{
    const struct rb_consumer *urgent = &e->in[SB_URGENT_EVENTS];
    if (!e->mailbox_count || !(ring_dry || e->mail_first) || rb_load_acquire(urgent->head) != urgent->next)
        return SB_OWN_MAILBOXES;
    e->mail_first = false;
    return ep_peek_mail(e, header);
}
