/* How large a record fits the rings of all who may get it; what is larger travels by a pool. Events, commands and
 * requests go to who has interests, replies to anybody. Worked out anew as endpoints come, subscribe and go: one that
 * sends alone may have small rings without any harm to others.
 *
 * Offers: dp_note_fits. */
#pragma once

#include "shmbus/dispatcher/native/port.h"

static inline void dp_note_fits(struct dp_forwarder *f)
{
    for (int ring = 0; ring < SB_RINGS_IN; ring++) {
        uint64_t least = 0;
        for (uint32_t slot = 0; slot < f->high_slot; slot++) {
            const struct dp_port *port = &f->ports[slot];
            uint64_t largest = rb_largest_record(port->in[ring].capacity);
            if (port->state == SB_ROW_LIVE && (ring == SB_REPLIES || port->interests_applied) &&
                (!least || largest < least))
                least = largest;
        }
        rb_store(&f->bus->fits[ring], least);
    }
}
