/* Gathering: which records at the front of a ring belong together, and where they are to go.
 *
 * A *run* is one or more consecutive records with the same chosen targets. Every record of it is copied out,
 * checked and looked up here, and nothing of it is read from the sender's header again. */
#ifndef SB_GATHER_H
#define SB_GATHER_H

#include "shmbus/dispatcher/native/notify.h"

enum sb_verdict { /* of one record */
    SB_DELIVER,   /* to the chosen targets, of which there may be none */
    SB_DROP,      /* nothing is owed: a late reply, a request nobody waits for any more */
    SB_NOBODY,    /* a send or request without a handler */
    SB_COLLIDES,  /* a request whose id is under way already */
    SB_VIOLATION, /* nothing a sound endpoint writes */
};

/* What is to become of a record, and its targets. `h` is a private copy; its type stands in `route`. */
static inline enum sb_verdict sb_judge(struct sb_forwarder *f, struct sb_port *p, struct sb_record *h,
                                       struct sb_route *route, struct sb_choice *list, uint32_t *count)
{
    *count = 0;
    if (route->reserved)
        return SB_VIOLATION;
    if (h->kind == SB_EVENT) {
        *count = sb_choose_event(f, route, list);
        return SB_DELIVER;
    }
    if (h->kind == SB_REQUEST) {
        uint16_t index = sb_index_of(h->correlation);
        if (index >= p->pending_count)
            return SB_VIOLATION;
        const struct sb_target *t = &p->target[index];
        if (rb_load(&t->whom) && !rb_load(&t->done) && memcmp(t->id, h->correlation, 16) == 0)
            return SB_COLLIDES;
        const struct sb_pending *w = &p->pending[index];
        if (rb_load_acquire(&w->state) != SB_PENDING_WAITING || memcmp(w->id, h->correlation, 16) != 0)
            return SB_DROP; /* its caller has given up */
    }
    if (!route->handler_count)
        return SB_NOBODY;
    const struct sb_receiver *r = sb_least_busy(f, route->handlers, route->handler_count, &route->turn, SB_MAX_SLOTS);
    list[0] = (struct sb_choice){r->slot, false, SB_PLAIN};
    *count = 1;
    return SB_DELIVER;
}

/* A reply is accepted from the request's target alone, once; the very position that was accepted before is
 * accepted again, so that repeating after a kill does no harm. */
static inline enum sb_verdict sb_judge_reply(struct sb_forwarder *f, struct sb_port *p, const struct sb_record *h,
                                             uint64_t position, struct sb_choice *list, uint32_t *count)
{
    *count = 0;
    uint16_t index = sb_index_of(h->correlation);
    if (h->peer >= f->slots)
        return SB_VIOLATION;
    struct sb_port *q = &f->ports[h->peer];
    if (q->state == SB_FREE || q->state == SB_DYING || q->generation != h->peer_generation || index >= q->pending_count)
        return SB_DROP;
    const struct sb_target *t = &q->target[index];
    uint64_t done = rb_load(&t->done);
    if (memcmp(t->id, h->correlation, 16) != 0 || rb_load(&t->whom) != sb_whom_of(p) || (done && done != position + 1))
        return SB_DROP;
    list[0] = (struct sb_choice){q->slot, false, 0};
    *count = 1;
    return SB_DELIVER;
}

static inline bool sb_same_choice(const struct sb_choice *a, const struct sb_choice *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (a[i].slot != b[i].slot || a[i].bits != b[i].bits || a[i].lossy != b[i].lossy)
            return false;
    return true;
}

/* Copy a record's header out and check it against what the ring said of it. */
static inline bool sb_copy_header(const struct rb_head8 *head, const uint8_t *record, struct sb_record *h)
{
    memcpy(h, record, sizeof *h);
    h->length = head->length;
    h->kind = head->kind;
    return sb_record_sound(h);
}

/* Has the run in hand to do with this request already? What it does stands in no target word yet, so a repeated
 * id must begin a run of its own. Two requests may share a mark: the run is a shorter one, no more. */
static inline bool sb_marked(struct sb_forwarder *f, uint32_t requester, const struct sb_record *h)
{
    uint32_t *mark = &f->run_mark[(requester * 61 + sb_index_of(h->correlation)) % 1024];
    bool was = *mark == f->run_number;
    *mark = f->run_number;
    return was;
}

/* The longest run at the front of a ring, `limit` records at the most. What ends it before its first record is
 * said by the verdict; otherwise SB_DELIVER and f->run_count, which is 0 where the ring is empty. */
static inline enum sb_verdict sb_gather_run(struct sb_forwarder *f, struct sb_source *s, uint32_t limit)
{
    struct sb_port *p = s->port;
    struct rb_consumer *c = &p->out[s->ring];
    uint64_t position = c->next, bytes = 0, most_bytes = ~0ull;
    struct sb_route *previous = NULL;
    enum sb_verdict first = SB_DELIVER;
    f->run_count = 0;
    if (++f->run_number == 0) {
        memset(f->run_mark, 0, sizeof f->run_mark);
        f->run_number = 1;
    }
    s->from = s->to = position;
    sb_pin_routes(&f->routes);
    while (f->run_count < limit) {
        struct rb_head8 head;
        const uint8_t *record = NULL;
        enum rb_status status = rb_peek_at(c, &position, SB_HEADER, &head, &record);
        if (status == RB_EMPTY) {
            if (f->run_count == 0)
                s->to = position; /* past padding that nothing follows */
            break;
        }
        struct sb_record *h = &f->run_header[f->run_count];
        struct sb_choice *list = f->run_count ? f->scratch_target : f->run_target;
        struct sb_route *route = NULL;
        enum sb_verdict verdict = SB_VIOLATION;
        uint32_t count = 0;
        bool same = false;
        if (status == RB_OK && sb_copy_header(&head, record, h)) {
            if (s->ring == SB_REPLIES) {
                if (h->kind == SB_REPLY || h->kind == SB_ERROR)
                    verdict = sb_judge_reply(f, p, h, position, list, &count);
            } else if ((h->kind == SB_EVENT || h->kind == SB_SEND || h->kind == SB_REQUEST) && h->type_length &&
                       (route = sb_lookup(&f->routes, sb_type_of(record), h->type_length))) {
                if (route == previous && h->kind == SB_EVENT && f->run_header[0].kind == SB_EVENT &&
                    !route->group_count) {
                    verdict = SB_DELIVER; /* the same type again, and no group to choose in */
                    same = true;
                } else {
                    verdict = sb_judge(f, p, h, route, list, &count);
                }
            }
        }
        if (f->run_count == 0)
            first = verdict;
        if (verdict != SB_DELIVER) {
            if (f->run_count == 0) {
                f->run_record[0] = record;
                f->run_type[0] = route ? route->type : NULL;
                s->to = status == RB_OK ? position + RB_ALIGN8(head.length) : position;
            }
            break;
        }
        if ((s->ring == SB_REPLIES || h->kind == SB_REQUEST) &&
            sb_marked(f, s->ring == SB_REPLIES ? h->peer : p->slot, h))
            break;
        if (f->run_count == 0)
            f->run_targets = count;
        else if (!same && (count != f->run_targets || !sb_same_choice(list, f->run_target, count)))
            break;
        /* Each target of a fan-out gets the run whole: a quarter of the smallest ring at the most. */
        if (f->run_targets > 1) {
            if (f->run_count == 0)
                for (uint32_t i = 0; i < f->run_targets; i++) {
                    uint64_t quarter = rb_largest_record(f->ports[f->run_target[i].slot].in[SB_DATA].capacity);
                    most_bytes = quarter < most_bytes ? quarter : most_bytes;
                }
            bytes += RB_ALIGN8(h->length);
            if (bytes > most_bytes && f->run_count)
                break;
        }
        for (uint32_t i = 0; i < f->run_targets; i++)
            f->run_extra[f->run_target[i].slot]++;
        f->run_record[f->run_count] = record;
        f->run_type[f->run_count++] = route ? route->type : NULL;
        previous = route;
        position += RB_ALIGN8(h->length);
        s->to = position;
    }
    for (uint32_t i = 0; f->run_count && i < f->run_targets; i++)
        f->run_extra[f->run_target[i].slot] = 0;
    return first;
}

#endif
