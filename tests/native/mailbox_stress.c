/* A dispatcher's thread that writes over a mailbox and an endpoint's that takes from it, for the sanitizers to watch.
 * What is taken must be whole, in the order of its type, and never twice; the last of each type must be taken.
 *
 *   mailbox_stress MESSAGES SEED   (an odd seed: latest; an even one: drop_oldest) */
#include "ringbuf/native/order.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory of this process in the place of segments. */
#define DP_SEGMENTS_ELSEWHERE
static inline void *dp_make_segment(const char *name, uint64_t size)
{
    (void)name;
    void *at = aligned_alloc(64, (size + 63) & ~63ull);
    if (at)
        memset(at, 0, size);
    return at;
}
static inline void *dp_open_segment(const char *name, uint64_t *size) { (void)name, (void)size; return NULL; }
static inline void dp_close_segment(void *at, uint64_t size) { (void)at, (void)size; }
static inline void dp_remove_segment(const char *name) { (void)name; }

#include "shmbus/dispatcher/native/segment.h"
static inline const void *dp_map_head(const char *name, uint64_t bytes, struct dp_extent *extent)
{
    (void)name, (void)bytes, (void)extent;
    return NULL;
}
static inline void dp_unmap_head(const void *at, uint64_t bytes) { (void)at, (void)bytes; }
static inline uint32_t dp_read_segment(const char *name, uint64_t from, void *to, uint64_t n)
{
    (void)name, (void)from, (void)to, (void)n;
    return 0;
}

#include "shmbus/dispatcher/native/mailbox.h"
#include "shmbus/endpoint/native/mailbox.h"

#define TYPES 4u
#define DEPTH 4u

#define CHECK(what)                                                        \
    do {                                                                   \
        if (!(what)) {                                                     \
            fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static struct dp_forwarder *f;
static struct dp_port *box;
static struct ep_endpoint e;
static uint64_t messages, seed;
static rb_word over;

/* Message n has as many words as that says, each n. */
static uint64_t words_of(uint64_t n) { return 1 + (n * 2654435761u >> 7) % 200; }

static void *write_all(void *unused)
{
    static uint64_t payload[201];
    for (uint64_t n = 1; n <= messages; n++) {
        uint8_t type[2] = {'t', (uint8_t)('a' + (n * 7 >> 2) % TYPES)};
        uint64_t words = words_of(n);
        for (uint64_t i = 0; i < words; i++)
            payload[i] = n;
        struct sb_record h = {.length = (uint32_t)(SB_HEADER + 2 + 8 * words), .kind = SB_EVENT, .type_length = 2};
        CHECK(dp_post(f, box, n, &h, type, payload, 8 * words, NULL));
        box->in[SB_DATA].next = n;
        rb_publish(&box->in[SB_DATA]);
        if (n % 16 == 0)
            sched_yield();
    }
    rb_store_seq(&over, 1);
    return unused;
}

int main(int argc, char **argv)
{
    messages = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    static struct sb_bus bus;
    static struct sb_up up;
    static struct sb_down down;
    uint64_t last[TYPES] = {0}, received = 0, newest = 0;
    f = calloc(1, sizeof *f);
    CHECK(f && (f->ports = calloc(DP_PORTS, sizeof *f->ports)));
    f->bus = &bus;
    struct dp_port *owner = &f->ports[0];
    *owner = (struct dp_port){.generation = 1, .state = SB_ROW_LIVE, .up = &up, .down = &down};
    owner->in[SB_DATA].capacity = 4096; /* so that cells run out */
    struct sb_interest wish = {.id = 7, .depth = DEPTH, .flags = seed & 1 ? SB_LATEST : SB_DROP_OLDEST};
    CHECK((box = dp_make_mailbox(f, owner, &wish, "")));
    e = (struct ep_endpoint){.bus = &bus, .up = &up, .down = &down};
    CHECK(ep_begin_mailbox(&e, 0, 7, EP_MAIL_TAKEN));
    CHECK(ep_open_mailbox(&e, 0, dp_whom_of(box), box->mailbox->memory, box->mailbox->memory->down.prefix.size));

    pthread_t writer;
    CHECK(pthread_create(&writer, NULL, write_all, NULL) == 0);
    for (bool end = false; !end;) {
        end = rb_load_seq(&over);
        struct sb_record h;
        while (ep_peek_mail(&e, &h) == 0) {
            ep_take_mail(&e, 0);
            uint64_t n, words = (h.length - SB_HEADER - 2) / 8, *known = &last[e.mail[SB_HEADER + 1] - 'a'];
            memcpy(&n, e.mail + SB_HEADER + 2, 8);
            CHECK(n >= 1 && n <= messages && words == words_of(n) && h.deadline_ns == 7);
            for (uint64_t i = 0; i < words; i++)
                CHECK(memcmp(e.mail + SB_HEADER + 2 + 8 * i, &n, 8) == 0);
            CHECK(n > *known && (seed & 1 || n > newest));
            *known = newest = n;
            received++;
        }
    }
    pthread_join(writer, NULL);
    for (uint64_t n = messages; n > messages - DEPTH; n--)
        CHECK(seed & 1 ? last[(n * 7 >> 2) % TYPES] >= n : newest == messages);
    CHECK(received + rb_load(&up.had[0].lost) == messages && received == rb_load(&up.had[0].received));
    CHECK(received < messages || messages < 1000);
    ep_close_mailboxes(&e);
    free(box->mailbox->memory);
    dp_free_mailbox(box->mailbox);
    free(f->ports);
    free(f);
    return 0;
}
