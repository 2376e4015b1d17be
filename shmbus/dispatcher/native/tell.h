/* Telling who asked whether anybody is there (matching.h): an event for that interest alone, whenever the first
 * receiver has come or the last has gone, and once by each dispatcher that reads the interest, since nobody knows what
 * the one before had told.
 *
 * Told of is what is so at the end of a pass, so what changes and changes back meanwhile is not seen. What does not fit
 * is told later, whatever is so by then: nothing waits in line for it, and none of it is lost. Each tells
 * BUS.routes_version, which only rises, so its receiver knows the newest, and nothing of what is told twice.
 *
 * Offers: dp_tell_matchings, dp_tell_again. */
#pragma once

#include "shmbus/dispatcher/native/query.h"
#include "shmbus/dispatcher/native/space.h"

/* False: there is no space now. */
static inline bool dp_tell(struct dp_forwarder *f, struct dp_port *port, const struct dp_matching *m)
{
    uint8_t bytes[128 + SB_MAX_TYPE];
    struct dp_pack pack = {.bytes = bytes, .capacity = sizeof bytes};
    dp_pack_map(&pack, 3);
    dp_pack_text(&pack, "pattern", m->pattern, m->length);
    dp_pack_number(&pack, "receivers", m->receivers);
    dp_pack_number(&pack, "version", rb_load(&f->bus->routes_version));
    uint16_t type_length = (uint16_t)strlen(SB_MATCHED);
    struct sb_record h = {.length = SB_HEADER + type_length + pack.length, .kind = SB_EVENT, .flags = SB_ALONE,
                          .interests = SB_PLAIN, .peer = SB_FROM_BUS, .attempt = 1, .sent_ns = f->now,
                          .deadline_ns = m->id, .type_length = type_length,
                          .lost = (uint32_t)rb_load(&port->down->lost)};
    const struct dp_part parts[2] = {{SB_MATCHED, type_length}, {pack.bytes, pack.length}};
    enum rb_status status;
    while ((status = dp_write(port, SB_DATA, &h, parts, 2)) == RB_FULL)
        if (!dp_need_space(port, port, SB_DATA, rb_end_after(&port->in[SB_DATA], h.length)))
            return false;
    if (status == RB_CORRUPT) {
        dp_quarantine(f, port);
        return false;
    }
    RB_FAIL("matching.written");
    dp_publish(f, port, SB_DATA, 1);
    RB_FAIL("matching.told");
    return true;
}

/* At the end of a pass. */
static inline void dp_tell_matchings(struct dp_forwarder *f)
{
    if (__builtin_expect(!f->routes.matchings.changed, 1))
        return;
    f->routes.matchings.changed = false;
    dp_show_routes(f);
    for (struct dp_matching *m = f->routes.matchings.first; m; m = m->next) {
        enum dp_told now = m->receivers ? DP_TOLD_SOMEBODY : DP_TOLD_NOBODY;
        struct dp_port *port = &f->ports[m->slot];
        if (m->told == now || port->corrupt || !dp_open_for_messages(port))
            continue;
        if (dp_tell(f, port, m))
            m->told = now;
        else
            port->untold = true;
    }
}

/* One that is visited may have space by now. */
static inline void dp_tell_again(struct dp_forwarder *f, struct dp_port *port)
{
    f->routes.matchings.changed |= port->untold;
    port->untold = false;
}
