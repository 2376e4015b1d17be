/* A ring over whose every shared byte a hostile peer has written: both sides may find it corrupt, but must stay
 * inside it, end, and hand out nothing that is no record.
 *
 * Built with -fsanitize=fuzzer it is a libFuzzer target; otherwise it makes its own inputs: ring_fuzz RUNS SEED
 */
#include "ringbuf/native/standalone.h"

#include <stdio.h>
#include <stdlib.h>

#define CAPACITY 1024u

static void use(struct rb_standalone *ring)
{
    struct rb_consumer c;
    struct rb_producer p;
    struct rb_head8 head;
    const uint8_t *record;
    uint8_t *at;
    unsigned taken = 0;
    (void)rb_consumer_open(&c, &ring->head, &ring->tail, ring->data, CAPACITY); /* goes on all the same */
    uint64_t position = c.next;
    while (rb_peek_at(&c, &position, sizeof head, &head, &record) == RB_OK) {
        if (head.length < sizeof head || record < ring->data || record + head.length > ring->data + CAPACITY)
            abort();
        volatile uint8_t sum = 0;
        for (uint32_t b = 0; b < head.length; b++)
            sum = (uint8_t)(sum + record[b]);
        position += RB_ALIGN8(head.length);
        if (++taken > CAPACITY / 8)
            abort();
    }
    (void)rb_producer_open(&p, &ring->head, &ring->tail, &ring->high, ring->data, CAPACITY);
    for (uint32_t length = 8, i = 0; i < 64; i++, length = 8 + (length + 53) % 249)
        if (rb_claim(&p, length, 0, &at) == RB_OK) {
            memset(at, 0xab, length);
            rb_commit(&p, length);
            if (i % 3 == 0)
                rb_publish(&p);
        }
    rb_publish(&p);
    (void)rb_depth(&ring->head, &ring->tail);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t total = sizeof(struct rb_standalone) + CAPACITY;
    struct rb_standalone *ring = aligned_alloc(RB_LINE, total); /* exact: a step outside is seen */
    memset(ring, 0, total);
    uint64_t words[2] = {0, 0};
    if (size >= sizeof words) {
        memcpy(words, data, sizeof words);
        data += sizeof words;
        size -= sizeof words;
    }
    rb_store(&ring->head, words[0]);
    rb_store(&ring->tail, words[1]);
    if (size)
        memcpy(ring->data, data, size < CAPACITY ? size : CAPACITY);
    use(ring);
    free(ring);
    return 0;
}

#ifndef RB_LIBFUZZER
static uint64_t state;

static uint64_t number(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

/* Random bytes would seldom get beyond the first check: mostly valid records, near positions, then a few faults. */
static void one(void)
{
    uint64_t input[2 + CAPACITY / 8];
    uint64_t start = number() % 4 ? number() % 64 * 8 : number() << 33 | number();
    input[0] = start + (number() % 4 ? number() % (CAPACITY / 8 + 2) * 8 : number());
    input[1] = start;
    uint8_t *bytes = (uint8_t *)(input + 2);
    for (uint32_t at = 0; at < CAPACITY;) {
        uint32_t length = 8 + (uint32_t)(number() % 249);
        struct rb_head8 head = {length, 1, 0};
        if (at + RB_ALIGN8(length) > CAPACITY)
            head = (struct rb_head8){CAPACITY - at, RB_PADDING, 0};
        memcpy(bytes + at, &head, sizeof head);
        at += (uint32_t)RB_ALIGN8(head.length);
    }
    for (uint64_t faults = number() % 4; faults; faults--)
        input[number() % (2 + CAPACITY / 8)] ^= number() % 2 ? 1ull << number() % 64 : number() << 31 ^ number();
    LLVMFuzzerTestOneInput((const uint8_t *)input, sizeof input);
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    state = strtoull(arguments[2], NULL, 10);
    for (unsigned long runs = strtoul(arguments[1], NULL, 10); runs; runs--)
        one();
    return 0;
}
#endif
