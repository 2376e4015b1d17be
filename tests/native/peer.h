/* An endpoint without a process: a few functions over ring.h. */
#pragma once

#include "world.h"

static inline void open_log(struct peer *p, uint64_t serial, uint64_t bytes)
{
    const struct sb_row *row = &p->world->f->rows[p->slot];
    snprintf(p->log_name, sizeof p->log_name, "%s:int:%u:%llu:%016llx:%llu", p->world->f->prefix, row->identity.pid,
             (unsigned long long)row->identity.start_time, (unsigned long long)row->nonce, (unsigned long long)serial);
    p->log_size = sizeof(struct sb_interests) + bytes;
    int fd = shm_open(p->log_name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)p->log_size) == 0);
    memcpy(made_names[made_count++ % 64], p->log_name, sizeof p->log_name);
    p->log = mmap(NULL, p->log_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p->log != MAP_FAILED);
    close(fd);
    stamp(&p->log->prefix, p->log_size, 0, SB_SEGMENT_INTERESTS);
    rb_store(&p->up->outgoing[SB_DATA].interests_serial, serial);
}

static inline uint64_t place_rings(struct sb_ring_descriptor *place, uint64_t at, const uint64_t *capacity,
                                  uint32_t rings)
{
    for (uint32_t r = 0; r < rings; r++) {
        place[r] = (struct sb_ring_descriptor){.offset = at, .capacity = capacity[r], .kind = r};
        at += (capacity[r] + 63) & ~63ull;
    }
    return at;
}

/* The endpoint's half of an attach: UP, and its side of the rings. */
static inline void make_up(struct peer *p, struct size size)
{
    uint64_t out[SB_RINGS] = {or_default(size.data_out, 65536), or_default(size.replies_out, 65536)};
    uint64_t in[SB_RINGS_IN] = {or_default(size.data_in, 65536), or_default(size.replies_in, 65536),
                                or_default(size.urgent_in, 4096)};
    uint64_t requests = or_default(size.requests, 16), pending = (sizeof(struct sb_up) + 63) & ~63ull;
    struct sb_ring_descriptor places[SB_RINGS];
    p->up_size = place_rings(places, (pending + requests * sizeof(struct sb_pending) + 63) & ~63ull, out, SB_RINGS);
    p->up = shared(p->up_size);
    memcpy(p->up->outgoing_ring, places, sizeof places);
    place_rings(p->up->incoming_ring, 0, in, SB_RINGS_IN);
    p->up->pending_count = requests;
    p->up->pending_offset = pending;
    p->up->prefetch = p->world->bus->prefetch;
    p->pending = (struct sb_pending *)((uint8_t *)p->up + pending);
    for (uint32_t i = 0; i < SB_HELD; i++)
        rb_store(&p->up->held[i].position, SB_NOWHERE);
    for (int r = 0; r < SB_RINGS; r++)
        rb_store(&p->up->outgoing[r].need, SB_NO_NEED);
    snprintf(p->up->name, sizeof p->up->name, "%s", p->name);
    stamp(&p->up->prefix, p->up_size, p->generation, SB_SEGMENT_UP);
    struct dp_shape shape;
    CHECK(dp_read_shape(p->up, p->up_size, &shape));
}

#define GRANT_BYTES (sizeof(struct sb_rights) + 64) /* at the end of each DOWN */

/* The control plane's half: the row and DOWN. */
static inline void make_down(struct peer *p)
{
    uint64_t requests = p->up->pending_count;
    uint64_t todo = p->world->bus->slots + SB_BACKLOGS + SB_MAILBOXES + SB_KEYED_GROUPS;
    uint64_t targets_at = (sizeof(struct sb_down) + 63) & ~63ull;
    uint64_t todo_at = (targets_at + requests * sizeof(struct sb_target) + 63) & ~63ull;
    uint64_t capacity[SB_RINGS_IN];
    struct sb_ring_descriptor places[SB_RINGS_IN];
    for (int r = 0; r < SB_RINGS_IN; r++)
        capacity[r] = p->up->incoming_ring[r].capacity;
    p->down_size = place_rings(places, (todo_at + todo * sizeof(struct sb_todo_target) + 63) & ~63ull, capacity,
                               SB_RINGS_IN);
    p->down_size += GRANT_BYTES;
    p->down = shared(p->down_size);
    struct sb_down *d = p->down;
    memcpy(d->incoming_ring, places, sizeof places);
    d->slot = p->slot;
    d->generation = p->generation;
    d->target_count = requests;
    d->target_offset = targets_at;
    d->todo_count = todo;
    d->todo_offset = todo_at;
    rb_store(&d->state, SB_DOWN_LIVE);
    for (int r = 0; r < SB_RINGS_IN; r++) {
        rb_store(&d->incoming[r].need, SB_NO_NEED);
        rb_store(&d->incoming[r].reclaim, SB_NOWHERE);
    }
    rb_store(&d->todo.from, SB_NOWHERE);
    stamp(&d->prefix, p->down_size, p->generation, SB_SEGMENT_DOWN);
    struct sb_row *row = &p->world->f->rows[p->slot];
    dp_row_begin(row);
    rb_store(&row->generation, p->generation);
    rb_store(&row->reason, 0);
    rb_store(&row->health, 0);
    rb_store(&row->down_emitted, 0);
    row->identity = (struct sb_identity){.pid = (uint32_t)getpid(), .start_time = p->generation};
    row->nonce = p->generation;
    snprintf(row->name, sizeof row->name, "%s", p->name);
    rb_store(&row->state, SB_ROW_LIVE);
    dp_row_end(row);
}

static inline void open_rings(struct peer *p)
{
    for (int r = 0; r < SB_RINGS; r++) {
        struct sb_ring_descriptor out = p->up->outgoing_ring[r];
        CHECK(rb_producer_open(&p->out[r], &p->up->outgoing[r].head, &p->down->outgoing[r].tail,
                               &p->up->outgoing[r].high, (uint8_t *)p->up + out.offset, out.capacity) == RB_OK);
    }
    for (int r = 0; r < SB_RINGS_IN; r++) {
        struct sb_ring_descriptor in = p->down->incoming_ring[r];
        CHECK(rb_consumer_open(&p->in[r], &p->down->incoming[r].head, &p->up->incoming[r].tail,
                               (const uint8_t *)p->down + in.offset, in.capacity) == RB_OK);
    }
}

static inline void admit(struct peer *p, bool adopted)
{
    struct dp_order order = {.kind = DP_ADMIT, .slot = p->slot, .generation = p->generation, .up = p->up,
                             .down = p->down, .bell = &p->bell, .adopted = adopted};
    CHECK(dp_read_shape(p->up, p->up_size, &order.shape));
    CHECK(dp_give_order(&p->world->f->orders, &order));
}

/* What the control plane does with an eventfd that has come through the door. */
static inline void pass_event(struct peer *p, int fd)
{
    struct dp_order order = {.kind = DP_EVENT, .slot = p->slot, .generation = p->generation, .event = dup(fd)};
    CHECK(order.event >= 0 && dp_give_order(&p->world->f->orders, &order));
}

/* How often it was written since it was last read. */
static inline uint64_t read_event(int fd)
{
    uint64_t written = 0;
    return read(fd, &written, sizeof written) == sizeof written ? written : 0;
}

/* Everything of an attach but the forwarder's part in it. */
static inline struct peer *make_peer(struct world *w, const char *name, struct size size)
{
    struct peer *p = calloc(1, sizeof *p);
    CHECK(p && w->peers_count < MAX_PEERS);
    w->peers[w->peers_count++] = p;
    p->world = w;
    snprintf(p->name, sizeof p->name, "%s", name);
    p->generation = (uint32_t)++w->generation;
    while (rb_load(&w->f->rows[p->slot].state) != SB_ROW_FREE)
        CHECK(++p->slot < w->f->slots);
    sem_init(&p->bell, 0, 0);
    make_up(p, size);
    make_down(p);
    open_rings(p);
    rb_store(&p->up->receivers, w->bus->prefetch); /* it may have as much as anybody, at once */
    open_log(p, 1, 8192);
    admit(p, false);
    rb_store_release(&p->up->state, SB_UP_ATTACHED);
    return p;
}

static inline struct peer *join_sized(struct world *w, const char *name, struct size size)
{
    struct peer *p = make_peer(w, name, size);
    settle(w);
    return p;
}

/* One that may do so with what this pattern matches, and nothing else. */
static inline struct peer *join_granted(struct world *w, const char *name, struct size size, enum sb_right right,
                                        const char *pattern)
{
    struct peer *p = make_peer(w, name, size);
    p->down->rights_offset = p->down_size - GRANT_BYTES;
    struct sb_rights *rights = (struct sb_rights *)((uint8_t *)p->down + p->down->rights_offset);
    uint8_t *at = (uint8_t *)(rights + 1);
    at[0] = (uint8_t)right;
    at[1] = (uint8_t)strlen(pattern);
    memcpy(at + 2, pattern, at[1]);
    rights->bytes = 2u + at[1];
    settle(w);
    return p;
}

static inline struct peer *join(struct world *w, const char *name) { return join_sized(w, name, (struct size){0}); }

static inline void raise_ready(struct peer *p)
{
    _Atomic uint32_t *word = &p->world->ready->word[p->slot];
    uint32_t count = atomic_load_explicit(word, memory_order_relaxed);
    atomic_store_explicit(word, count + 1, memory_order_release);
}

/* Append to the log of interests, without telling. */
static inline uint64_t log_interest(struct peer *p, struct sb_interest e, const char *pattern, const char *group)
{
    uint8_t *log = (uint8_t *)(p->log + 1);
    uint64_t at = rb_load(&p->log->bytes);
    e.pattern_length = (uint16_t)strlen(pattern);
    e.group_length = (uint16_t)strlen(group);
    e.length = (uint32_t)sizeof e + e.pattern_length + e.group_length;
    if (!e.id)
        e.id = ++p->next_interest;
    CHECK(sizeof(struct sb_interests) + at + RB_ALIGN8(e.length) <= p->log_size);
    memcpy(log + at, &e, sizeof e);
    memcpy(log + at + sizeof e, pattern, e.pattern_length);
    memcpy(log + at + sizeof e + e.pattern_length, group, e.group_length);
    rb_store_release(&p->log->bytes, at + RB_ALIGN8(e.length));
    return e.id;
}

static inline void tell_interests(struct peer *p)
{
    rb_word *version = &p->up->outgoing[SB_DATA].interests_version;
    rb_store_release(version, rb_load(version) + 1);
    raise_ready(p);
}

/* Append to it and tell. */
static inline uint64_t commit_interest(struct peer *p, struct sb_interest e, const char *pattern, const char *group)
{
    uint64_t id = log_interest(p, e, pattern, group);
    tell_interests(p);
    settle(p->world);
    EQUAL(rb_load(&p->down->interests_seen), rb_load(&p->up->outgoing[SB_DATA].interests_version));
    return id;
}

static inline uint64_t subscribe(struct peer *p, const char *pattern)
{
    return commit_interest(p, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE}, pattern, "");
}

static inline uint64_t subscribe_lossy(struct peer *p, const char *pattern)
{
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .flags = SB_DROP_NEWEST};
    return commit_interest(p, e, pattern, "");
}

static inline uint64_t subscribe_group(struct peer *p, const char *pattern, const char *group, uint8_t bit)
{
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .bit = bit};
    return commit_interest(p, e, pattern, group);
}

/* A member of a group whose key are these tokens. */
static inline uint64_t subscribe_keyed(struct peer *p, const char *pattern, const char *group, uint8_t bit,
                                       uint32_t key)
{
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .bit = bit, .key = key};
    return commit_interest(p, e, pattern, group);
}

/* To be told whether anybody receives what the pattern matches. */
static inline uint64_t await_receivers(struct peer *p, const char *pattern)
{
    return commit_interest(p, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_MATCH}, pattern, "");
}

static inline uint64_t handle(struct peer *p, const char *pattern)
{
    return commit_interest(p, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_HANDLE}, pattern, "");
}

static inline void remove_interest(struct peer *p, uint64_t id)
{
    commit_interest(p, (struct sb_interest){.op = SB_INTEREST_REMOVE, .id = id}, "", "");
}

/* Put a record into an outgoing ring, not yet visible. The header's lengths are filled in. */
static inline bool put(struct peer *p, enum sb_ring_index ring, struct sb_record h, const char *type,
                       const void *payload, uint64_t size)
{
    uint8_t *at;
    h.type_length = (uint16_t)strlen(type);
    h.length = (uint32_t)(SB_HEADER + h.type_length + size);
    h.sent_ns = rb_now();
    enum rb_status status = rb_claim(&p->out[ring], h.length, 0, &at);
    CHECK(status != RB_CORRUPT);
    if (status == RB_FULL)
        return false;
    memcpy(at, &h, sizeof h);
    memcpy(at + SB_HEADER, type, h.type_length);
    memcpy(at + SB_HEADER + h.type_length, payload, size);
    rb_commit(&p->out[ring], h.length);
    return true;
}

static inline void flush(struct peer *p)
{
    rb_publish(&p->out[SB_DATA]);
    rb_publish(&p->out[SB_REPLIES]);
    raise_ready(p);
}

static inline bool say(struct peer *p, uint16_t kind, const char *type, const char *text)
{
    bool fitted = put(p, SB_DATA, (struct sb_record){.kind = kind, .flags = SB_RAW}, type, text, strlen(text));
    flush(p);
    return fitted;
}

static inline bool publish(struct peer *p, const char *type, const char *text) { return say(p, SB_EVENT, type, text); }
static inline bool send_to_handler(struct peer *p, const char *type, const char *text)
{
    return say(p, SB_SEND, type, text);
}

/* An event of that many payload bytes. */
static inline bool publish_bytes(struct peer *p, const char *type, uint64_t size)
{
    static char zeros[1 << 18];
    bool fitted = put(p, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, type, zeros, size);
    flush(p);
    return fitted;
}

/* A request of this kind, with a pending entry of ours; its index. */
static inline uint16_t ask_of(struct peer *p, struct sb_record h, const char *type, const char *text)
{
    uint16_t index = 0;
    while (rb_load(&p->pending[index].state) != SB_PENDING_FREE)
        CHECK(++index < p->up->pending_count);
    struct sb_pending *w = &p->pending[index];
    sb_make_id(w->id, p->generation, ++p->counter, index);
    rb_store_release(&w->state, SB_PENDING_WAITING);
    memcpy(h.correlation, w->id, 16);
    CHECK(put(p, SB_DATA, h, type, text, strlen(text)));
    flush(p);
    return index;
}

/* Ask for what it calls the `attempt`-th time. */
static inline uint16_t ask_again(struct peer *p, const char *type, const char *text, uint16_t attempt)
{
    return ask_of(p, (struct sb_record){.kind = SB_REQUEST, .flags = SB_RAW, .attempt = attempt}, type, text);
}

static inline uint16_t ask(struct peer *p, const char *type, const char *text) { return ask_again(p, type, text, 1); }

/* Ask `whom` and nobody else. */
static inline uint16_t ask_alone(struct peer *p, const struct peer *whom, const char *type, const char *text)
{
    struct sb_record h = {.kind = SB_REQUEST, .flags = SB_RAW | SB_DIRECTED, .attempt = 1, .peer = (uint16_t)whom->slot,
                          .peer_generation = whom->generation};
    return ask_of(p, h, type, text);
}

/* Ask the dispatcher who receives or handles what this pattern matches, from slot `first` on. */
static inline uint16_t query(struct peer *p, const char *pattern, uint32_t first)
{
    return ask_of(p, (struct sb_record){.kind = SB_QUERY, .flags = SB_NONE, .peer = (uint16_t)first}, pattern, "");
}

/* Wait no longer for what was asked with this entry, and say so: ep_end_request. */
static inline void withdraw(struct peer *p, uint16_t index)
{
    struct sb_record h = {.kind = SB_CANCEL};
    memcpy(h.correlation, p->pending[index].id, 16);
    rb_store_release(&p->pending[index].state, SB_PENDING_FREE);
    CHECK(put(p, SB_DATA, h, "", "", 0));
    flush(p);
}

/* Put a reply, a part, an end or an error for that request into the ring, not yet visible. */
static inline bool put_reply(struct peer *p, const struct message *m, enum sb_kind kind, const void *text,
                             uint64_t size)
{
    struct sb_record h = {.kind = (uint16_t)kind, .flags = SB_RAW, .peer = m->header.peer,
                          .peer_generation = m->header.peer_generation};
    memcpy(h.correlation, m->header.correlation, 16);
    return put(p, SB_REPLIES, h, "", text, size);
}

static inline bool give(struct peer *p, const struct message *m, enum sb_kind kind, const char *text)
{
    bool fitted = put_reply(p, m, kind, text, strlen(text));
    flush(p);
    return fitted;
}

static inline bool answer(struct peer *p, const struct message *m, const char *text)
{
    return give(p, m, SB_REPLY, text);
}

/* Grant so many bytes of the reply to what was asked with this entry. */
static inline void grant(struct peer *p, uint16_t index, uint64_t bytes)
{
    struct sb_record h = {.kind = SB_CREDIT, .deadline_ns = bytes};
    memcpy(h.correlation, p->pending[index].id, 16);
    CHECK(put(p, SB_REPLIES, h, "", "", 0));
    flush(p);
}

static inline void copy_message(struct message *m, const uint8_t *record, uint64_t position)
{
    memcpy(&m->header, record, sizeof m->header);
    CHECK(sb_record_sound(&m->header));
    m->position = position;
    memcpy(m->type, record + SB_HEADER, m->header.type_length);
    m->type[m->header.type_length] = 0;
    uint64_t size = m->header.length - sb_payload_offset(&m->header);
    size = size < sizeof m->text - 1 ? size : sizeof m->text - 1;
    memcpy(m->text, record + sb_payload_offset(&m->header), size);
    m->text[size] = 0;
}

static inline uint64_t least_held(struct peer *p)
{
    uint64_t least = p->in[SB_DATA].next;
    for (uint32_t i = 0; i < SB_HELD; i++) {
        uint64_t at = rb_load(&p->up->held[i].position);
        if (at < least)
            least = at;
    }
    return least;
}

static inline void release(struct peer *p, enum sb_ring_index ring, uint64_t position)
{
    rb_release_to(&p->in[ring], position);
    rb_fence_seq();
    if (position >= rb_load_seq(&p->down->incoming[ring].need))
        raise_ready(p);
}

/* Ring the dispatcher if it waits until we are free: ep_offer_work. */
static inline void offer_work(struct peer *p)
{
    const struct sb_down_incoming *down = &p->down->incoming[SB_DATA];
    uint64_t untouched = rb_load(&down->delivered) - rb_load(&p->up->incoming[SB_DATA].taken_count);
    uint64_t wanted = rb_load(&down->wanted);
    uint64_t threads = rb_load(&p->up->receivers), prefetch = p->up->prefetch;
    uint64_t most = threads > prefetch ? threads : prefetch;
    if (untouched >= (uint32_t)wanted || untouched + rb_load(&p->up->in_hand) >= most || wanted == p->offered_for)
        return;
    p->offered_for = wanted;
    raise_ready(p);
}

/* Is it for a group, a command or a request? */
static inline bool is_work(const struct message *m)
{
    uint16_t kind = m->header.kind;
    return kind == SB_SEND || kind == SB_REQUEST || (kind == SB_EVENT && m->header.interests & ~SB_PLAIN);
}

static inline void note_done(struct peer *p, const struct message *m)
{
    if (is_work(m))
        rb_store(&p->up->work_done, rb_load(&p->up->work_done) + 1);
}

/* Take the next message, and keep hold of it where `held` is a word for it. False: there is none. */
static inline bool take_as(struct peer *p, struct message *m, bool hold, enum sb_held_state how)
{
    struct rb_head8 head;
    const uint8_t *record;
    struct rb_consumer *c = &p->in[SB_DATA];
    uint64_t position = c->next;
    enum rb_status status = rb_peek_at(c, &position, SB_HEADER, &head, &record);
    CHECK(status != RB_CORRUPT);
    if (status == RB_EMPTY)
        return false;
    copy_message(m, record, position);
    if (hold) {
        uint32_t i = 0;
        while (rb_load(&p->up->held[i].position) != SB_NOWHERE)
            CHECK(++i < SB_HELD);
        rb_store(&p->up->held[i].done, how);
        rb_store(&p->up->held[i].settled, 0);
        rb_store_release(&p->up->held[i].position, position);
        rb_store(&p->up->in_hand, rb_load(&p->up->in_hand) + 1);
    }
    c->next = position + RB_ALIGN8(head.length);
    rb_store_release(&p->up->incoming[SB_DATA].taken, c->next);
    rb_store(&p->up->incoming[SB_DATA].taken_count, rb_load(&p->up->incoming[SB_DATA].taken_count) + 1);
    rb_store(&p->up->progress_ns, p->world->now);
    if (!hold)
        note_done(p, m);
    release(p, SB_DATA, least_held(p));
    offer_work(p);
    return true;
}

/* The next urgent event. */
static inline bool take_urgent(struct peer *p, struct message *m)
{
    struct rb_head8 head;
    const uint8_t *record;
    struct rb_consumer *c = &p->in[SB_URGENT_EVENTS];
    uint64_t position = c->next;
    enum rb_status status = rb_peek_at(c, &position, SB_HEADER, &head, &record);
    CHECK(status != RB_CORRUPT);
    if (status == RB_EMPTY)
        return false;
    copy_message(m, record, position);
    c->next = position + RB_ALIGN8(head.length);
    struct sb_incoming *mine = &p->up->incoming[SB_URGENT_EVENTS];
    rb_store_release(&mine->taken, c->next);
    rb_store(&mine->taken_count, rb_load(&mine->taken_count) + 1);
    release(p, SB_URGENT_EVENTS, c->next);
    return true;
}

static inline bool take(struct peer *p, struct message *m) { return take_as(p, m, false, SB_HELD_OPEN); }
static inline bool begin(struct peer *p, struct message *m) { return take_as(p, m, true, SB_HELD_OPEN); }

static inline void finish(struct peer *p, const struct message *m)
{
    for (uint32_t i = 0; i < SB_HELD; i++)
        if (rb_load(&p->up->held[i].position) == m->position) {
            rb_store_release(&p->up->held[i].done, SB_HELD_DONE);
            rb_store_release(&p->up->held[i].position, SB_NOWHERE);
            rb_store(&p->up->in_hand, rb_load(&p->up->in_hand) - 1);
            note_done(p, m);
        }
    release(p, SB_DATA, least_held(p));
    offer_work(p);
}

static inline bool take_reply(struct peer *p, struct message *m)
{
    struct rb_head8 head;
    const uint8_t *record;
    struct rb_consumer *c = &p->in[SB_REPLIES];
    uint64_t position = c->next;
    enum rb_status status = rb_peek_at(c, &position, SB_HEADER, &head, &record);
    CHECK(status != RB_CORRUPT);
    if (status == RB_EMPTY)
        return false;
    copy_message(m, record, position);
    c->next = position + RB_ALIGN8(head.length);
    uint16_t index = sb_index_of(m->header.correlation);
    if (m->header.kind != SB_PART && index < p->up->pending_count &&
        memcmp(p->pending[index].id, m->header.correlation, 16) == 0)
        rb_store(&p->pending[index].state, SB_PENDING_FREE);
    release(p, SB_REPLIES, c->next);
    return true;
}

/* What is kept
 * ------------------------------------------------------------------------------------------------------ */

static inline bool retain(struct peer *p, const char *type, const char *text)
{
    struct sb_record h = {.kind = SB_EVENT, .flags = (uint16_t)(SB_RETAIN | (text ? SB_RAW : SB_NONE))};
    bool fitted = put(p, SB_DATA, h, type, text ? text : "", text ? strlen(text) : 0);
    flush(p);
    return fitted;
}

struct late_ear { /* a subscription with history, as its endpoint goes by it: see `gets` in callbacks.pxi */
    struct peer *peer;
    uint64_t id, number;
    bool live;
};

static inline struct late_ear subscribe_late(struct peer *p, const char *pattern, uint32_t history)
{
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .history = history};
    return (struct late_ear){.peer = p, .id = commit_interest(p, e, pattern, "")};
}

/* Is the message for this subscription, of type and pattern alike? */
static inline bool is_for(struct late_ear *l, const struct message *m)
{
    uint64_t kept;
    memcpy(&kept, m->header.correlation, sizeof kept);
    if (m->header.kind == SB_LIVE) {
        if (m->header.deadline_ns == l->id) {
            CHECK(!l->live);
            l->live = true;
            l->number = kept;
        }
        return false;
    }
    if (m->header.kind != SB_EVENT || !(m->header.interests & SB_PLAIN))
        return false;
    if (m->header.flags & SB_ALONE)
        return m->header.deadline_ns == l->id;
    return l->live && !(m->header.flags & SB_RETAIN && kept <= l->number);
}

/* The next message for it. False: there is none. */
static inline bool hear(struct late_ear *l, struct message *m)
{
    while (take(l->peer, m))
        if (is_for(l, m))
            return true;
    return false;
}
