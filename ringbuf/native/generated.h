/* Written by tools/build/layout.py from the headers; do not edit.
 *
 * The fingerprint of a ring that stands alone, assertions that this compiler gives every field the offset
 * and size that the fingerprint assumes. */
#pragma once

/* Version << 32 | fingerprint: two builds whose words agree read shared memory alike. */
#define RB_LAYOUT 0x00000001ac44a10eull

#define RB_FIELD(type, field, at, size) \
    _Static_assert(offsetof(struct type, field) == (at) && \
                       sizeof(((struct type *)0)->field) == (size), #type "." #field)

_Static_assert(sizeof(struct rb_prefix) == 64, "rb_prefix");
RB_FIELD(rb_prefix, magic, 0, 8);
RB_FIELD(rb_prefix, layout, 8, 8);
RB_FIELD(rb_prefix, size, 16, 8);
RB_FIELD(rb_prefix, generation, 24, 8);
RB_FIELD(rb_prefix, superseded_by, 32, 8);
RB_FIELD(rb_prefix, kind, 40, 4);
RB_FIELD(rb_prefix, reserved, 44, 20);

_Static_assert(sizeof(struct rb_head8) == 8, "rb_head8");
RB_FIELD(rb_head8, length, 0, 4);
RB_FIELD(rb_head8, kind, 4, 2);
RB_FIELD(rb_head8, user, 6, 2);

_Static_assert(sizeof(struct rb_standalone) == 384, "rb_standalone");
RB_FIELD(rb_standalone, prefix, 0, 64);
RB_FIELD(rb_standalone, capacity, 64, 8);
RB_FIELD(rb_standalone, doorbells, 72, 8);
RB_FIELD(rb_standalone, head, 128, 8);
RB_FIELD(rb_standalone, high, 192, 8);
RB_FIELD(rb_standalone, need, 200, 8);
RB_FIELD(rb_standalone, producer_epoch, 208, 8);
RB_FIELD(rb_standalone, tail, 256, 8);
RB_FIELD(rb_standalone, consumer_epoch, 320, 8);
_Static_assert(offsetof(struct rb_standalone, data) == 384, "rb_standalone.data");
