/* What an endpoint may write, byte by byte, into its rings and its words, as a program of small steps: whatever
 * it is, the dispatcher stays well, so do the others, and the endpoint can be cleared away.
 *
 * A step is two bytes {what, n} and what it needs: 0: n times 8 bytes at the end of the data ring. 1: likewise of
 * the reply ring. 2: one byte into a word of UP, at a place given by two. 3: the dispatcher looks. 4: everything
 * received is taken. 5: time passes. */
#include "fuzz.h"

struct input {
    const uint8_t *at, *end;
};

static uint8_t byte_of(struct input *in) { return in->at < in->end ? *in->at++ : 0; }

static void append(struct peer *g, enum sb_ring_index ring, struct input *in, uint64_t words)
{
    const struct sb_ring_descriptor *place = &g->up->outgoing_ring[ring];
    rb_word *head = &g->up->outgoing[ring].head;
    uint8_t *data = (uint8_t *)g->up + place->offset;
    uint64_t start = rb_load(head);
    for (uint64_t i = 0; i < words * 8; i++)
        data[(start + i) & (place->capacity - 1)] = byte_of(in);
    rb_store_release(head, start + words * 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input in = {bytes, bytes + size};
    struct world *w = open_world((struct plan){.block_timeout_ns = SECOND, .slots = 8});
    struct size small = {.data_out = 1024, .data_in = 1024, .replies_out = 1024, .replies_in = 1024, .requests = 2};
    struct peer *g = join_sized(w, "guilty", small), *a = join(w, "a"), *b = join(w, "b");
    subscribe(a, "x");
    subscribe_group(a, "job", "g", 1);
    handle(a, "ask");
    subscribe(g, "x");
    subscribe_group(g, "job", "g", 1);
    handle(g, "serve");
    forget_names(w);
    for (uint16_t i = 0; i < 2; i++) { /* so that requests and replies can be good ones */
        sb_make_id(g->pending[i].id, 7, i, i);
        rb_store_release(&g->pending[i].state, SB_PENDING_WAITING);
        ask(b, "serve", "1");
    }
    uint32_t sent = 0;
    while (in.at < in.end) {
        uint8_t what = byte_of(&in), n = byte_of(&in);
        switch (what % 6) {
        case 0: append(g, SB_DATA, &in, n % 65); break;
        case 1: append(g, SB_REPLIES, &in, n % 65); break;
        case 2: {
            uint64_t from = offsetof(struct sb_up, state), at = (uint64_t)byte_of(&in) << 8 | byte_of(&in);
            ((uint8_t *)g->up)[from + at % (sizeof(struct sb_up) - from)] = n;
            break;
        }
        case 3: sent += publish(b, "x", "fine"); break;
        case 4:
            for (int r = 0; r < SB_RINGS; r++) {
                rb_store(&g->up->incoming[r].taken, rb_load(&g->down->incoming[r].head));
                rb_store(&g->up->incoming[r].tail, rb_load(&g->down->incoming[r].head));
            }
            break;
        default: advance(w, n * 10 * MILLISECOND); break;
        }
        raise_ready(g);
        settle(w);
    }
    die(g, SB_REASON_KILLED);
    advance(w, 5 * SECOND);
    CHECK(g->reclaimed && !a->quarantined && !b->quarantined);
    struct message m;
    uint32_t got = 0;
    while (take(a, &m))
        got += m.header.peer == b->slot && strcmp(m.text, "fine") == 0;
    EQUAL(got, sent); /* nothing of the others is lost, and none comes twice */
    while (take_reply(b, &m))
        CHECK(m.header.peer == g->slot || m.header.peer == SB_FROM_BUS);
    ask(b, "ask", "well?");
    settle(w);
    CHECK(take(a, &m) && answer(a, &m, "well"));
    settle(w);
    GETS_REPLY(b, "well");
    close_world(w);
    return 0;
}
