/* The two ends of a request in C, on an endpoint that Python has attached: what the kernel takes by itself, as
 * the measure for what Python adds. Compiled when the benchmark runs, against the headers as installed. */
#include "shmbus/endpoint/native/wait.h"

#define PATIENCE 30000000000u /* ns: a request that takes so long does not come back */

/* Send requests one after the other for `nanoseconds`, one at least; `took` gets the time of each, at most `most` of
 * them. Returns how many, or -1 when one did not come back. */
__attribute__((visibility("default"))) int64_t bare_requests(struct ep_endpoint *e, const char *type,
                                                             const void *payload, uint64_t size,
                                                             uint64_t nanoseconds, uint64_t *took, uint64_t most)
{
    uint64_t start = rb_now(), end = start + nanoseconds, count = 0;
    for (; count < most && (!count || start < end); start = rb_now()) {
        uint8_t id[16];
        bool armed = false;
        ep_lock(e);
        uint32_t index = ep_begin_request(e, start + PATIENCE, false, id);
        if (index == EP_NO_REQUEST) {
            ep_unlock(e);
            return -1;
        }
        struct ep_message m = {.kind = SB_REQUEST, .flags = SB_RAW, .deadline_ns = start + PATIENCE,
                               .correlation = id, .type = type, .type_length = (uint32_t)strlen(type),
                               .payload = payload, .size = size};
        enum rb_status status = ep_push(e, &m, start, NULL, &armed);
        ep_unlock(e);
        struct ep_waiter w = {.want = EP_WANT_REPLY, .index = index, .minds = EP_FOR_GOOD | EP_FOR_NOW,
                              .checks_dispatcher = true};
        if (status == RB_OK)
            while (ep_wait(e, &w, start + PATIENCE) == RB_INTERRUPTED) {
            }
        ep_lock(e);
        struct ep_request *r = &e->requests[index];
        bool good = status == RB_OK && r->state == EP_REQUEST_DONE && r->header.kind == SB_REPLY &&
                    r->size == size && memcmp(r->payload, payload, size) == 0;
        ep_end_request(e, index);
        ep_unlock(e);
        if (!good)
            return -1;
        took[count++] = rb_now() - start;
    }
    return (int64_t)count;
}

/* Answer every request with its own payload until a signal comes: 0; -1 when anything else ends it. */
__attribute__((visibility("default"))) int bare_replies(struct ep_endpoint *e)
{
    for (;;) {
        struct ep_waiter w = {.want = EP_WANT_DATA, .minds = EP_FOR_GOOD | EP_FOR_NOW};
        enum rb_wake wake = ep_wait(e, &w, rb_now() + 1000000000u);
        if (wake == RB_INTERRUPTED)
            return 0;
        if (w.trouble)
            return -1;
        struct sb_record header;
        const uint8_t *record;
        ep_lock(e);
        while (ep_peek(e, &header, &record) == RB_OK) {
            uint64_t offset = sb_payload_offset(&header);
            struct ep_message m = {.kind = SB_REPLY, .flags = header.flags & SB_RAW, .peer = header.peer,
                                   .peer_generation = header.peer_generation, .correlation = header.correlation,
                                   .payload = record + offset, .size = header.length - offset};
            bool armed = false;
            enum rb_status status = header.kind == SB_REQUEST ? ep_push(e, &m, rb_now(), NULL, &armed) : RB_OK;
            ep_take(e, &header, SB_HELD_DONE);
            if (status != RB_OK) {
                ep_unlock(e);
                return -1;
            }
        }
        ep_unlock(e);
    }
}
