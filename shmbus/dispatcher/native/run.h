/* Gathering: which records at the front of a ring belong together, and where they are to go.
 *
 * A *run* is one or more consecutive records with the same chosen targets. Every record of it is copied out,
 * checked and looked up here, and nothing of it is read from the sender's header again. */
#ifndef DP_RUN_H
#define DP_RUN_H

#include "shmbus/dispatcher/native/emit.h"

enum dp_verdict { /* of one record */
    DP_DELIVER,   /* to the chosen targets, of which there may be none */
    DP_DROP,      /* nothing is owed: a late reply, a request nobody waits for any more */
    DP_NOBODY,    /* a send or request without a handler */
    DP_COLLIDES,  /* a request whose id is under way already */
    DP_VIOLATION, /* nothing a sound endpoint writes */
};

/* What is to become of a record, and its targets. `h` is a private copy; its type stands in `route`. */
static inline enum dp_verdict dp_judge(struct dp_forwarder *f, struct dp_port *p, struct sb_record *h,
                                       struct dp_route *route, struct dp_choice *list, uint32_t *count)
{
    *count = 0;
    if (route->reserved)
        return DP_VIOLATION;
    if (h->kind == SB_EVENT) {
        *count = dp_choose_event(f, route, list);
        return DP_DELIVER;
    }
    if (h->kind == SB_REQUEST) {
        uint16_t index = sb_index_of(h->correlation);
        if (index >= p->pending_count)
            return DP_VIOLATION;
        const struct sb_target *t = &p->target[index];
        if (rb_load(&t->whom) && !rb_load(&t->done) && memcmp(t->id, h->correlation, 16) == 0)
            return DP_COLLIDES;
        const struct sb_pending *w = &p->pending[index];
        if (rb_load_acquire(&w->state) != SB_PENDING_WAITING || memcmp(w->id, h->correlation, 16) != 0)
            return DP_DROP; /* its caller has given up */
    }
    if (!route->handler_count)
        return DP_NOBODY;
    const struct dp_receiver *r = dp_least_busy(f, route->handlers, route->handler_count, &route->turn, SB_MAX_SLOTS);
    list[0] = (struct dp_choice){r->slot, false, SB_PLAIN};
    *count = 1;
    return DP_DELIVER;
}

/* A reply is accepted from the request's target alone, once; the very position that was accepted before is
 * accepted again, so that repeating after a kill does no harm. */
static inline enum dp_verdict dp_judge_reply(struct dp_forwarder *f, struct dp_port *p, const struct sb_record *h,
                                             uint64_t position, struct dp_choice *list, uint32_t *count)
{
    *count = 0;
    uint16_t index = sb_index_of(h->correlation);
    if (h->peer >= f->slots)
        return DP_VIOLATION;
    struct dp_port *q = &f->ports[h->peer];
    if (q->state == SB_ROW_FREE || q->state == SB_ROW_DYING || q->generation != h->peer_generation || index >= q->pending_count)
        return DP_DROP;
    const struct sb_target *t = &q->target[index];
    uint64_t done = rb_load(&t->done);
    if (memcmp(t->id, h->correlation, 16) != 0 || rb_load(&t->whom) != dp_whom_of(p) || (done && done != position + 1))
        return DP_DROP;
    list[0] = (struct dp_choice){q->slot, false, 0};
    *count = 1;
    return DP_DELIVER;
}

static inline bool dp_same_choice(const struct dp_choice *a, const struct dp_choice *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (a[i].slot != b[i].slot || a[i].bits != b[i].bits || a[i].lossy != b[i].lossy)
            return false;
    return true;
}

/* Copy a record's header out and check it against what the ring said of it. */
static inline bool dp_copy_header(const struct rb_head8 *head, const uint8_t *record, struct sb_record *h)
{
    memcpy(h, record, sizeof *h);
    h->length = head->length;
    h->kind = head->kind;
    return sb_record_sound(h);
}

/* Has the run in hand to do with this request already? What it does stands in no target word yet, so a repeated
 * id must begin a run of its own. Two requests may share a mark: the run is a shorter one, no more. */
static inline bool dp_marked(struct dp_forwarder *f, uint32_t requester, const struct sb_record *h)
{
    uint32_t *mark = &f->run_mark[(requester * 61 + sb_index_of(h->correlation)) % 1024];
    bool was = *mark == f->run_number;
    *mark = f->run_number;
    return was;
}

/* The longest run at the front of a ring, `limit` records at the most. What ends it before its first record is
 * said by the verdict; otherwise DP_DELIVER and f->run_count, which is 0 where the ring is empty. */
static inline enum dp_verdict dp_collect_run(struct dp_forwarder *f, struct dp_source *s, uint32_t limit)
{
    struct dp_port *p = s->port;
    struct rb_consumer *c = &p->out[s->ring];
    uint64_t position = c->next, bytes = 0, most_bytes = ~0ull;
    struct dp_route *previous = NULL;
    enum dp_verdict first = DP_DELIVER;
    f->run_count = 0;
    if (++f->run_number == 0) {
        memset(f->run_mark, 0, sizeof f->run_mark);
        f->run_number = 1;
    }
    s->from = s->to = position;
    dp_pin_routes(&f->routes);
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
        struct dp_choice *list = f->run_count ? f->scratch_target : f->run_target;
        struct dp_route *route = NULL;
        enum dp_verdict verdict = DP_VIOLATION;
        uint32_t count = 0;
        bool same = false;
        if (status == RB_OK && dp_copy_header(&head, record, h)) {
            if (s->ring == SB_REPLIES) {
                if (h->kind == SB_REPLY || h->kind == SB_ERROR)
                    verdict = dp_judge_reply(f, p, h, position, list, &count);
            } else if ((h->kind == SB_EVENT || h->kind == SB_SEND || h->kind == SB_REQUEST) && h->type_length &&
                       (route = dp_lookup(&f->routes, sb_type_of(record), h->type_length))) {
                if (route == previous && h->kind == SB_EVENT && f->run_header[0].kind == SB_EVENT &&
                    !route->group_count) {
                    verdict = DP_DELIVER; /* the same type again, and no group to choose in */
                    same = true;
                } else {
                    verdict = dp_judge(f, p, h, route, list, &count);
                }
            }
        }
        if (f->run_count == 0)
            first = verdict;
        if (verdict != DP_DELIVER) {
            if (f->run_count == 0) {
                f->run_record[0] = record;
                f->run_type[0] = route ? route->type : NULL;
                s->to = status == RB_OK ? position + RB_ALIGN8(head.length) : position;
            }
            break;
        }
        if ((s->ring == SB_REPLIES || h->kind == SB_REQUEST) &&
            dp_marked(f, s->ring == SB_REPLIES ? h->peer : p->slot, h))
            break;
        if (f->run_count == 0)
            f->run_targets = count;
        else if (!same && (count != f->run_targets || !dp_same_choice(list, f->run_target, count)))
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
