/* Written by tools/build/layout.py from the headers; do not edit.
 *
 * The fingerprint of a queue, assertions that this compiler gives every field the offset
 * and size that the fingerprint assumes. */
#pragma once

/* Version << 32 | fingerprint: two builds whose words agree read shared memory alike. */
#define SQ_LAYOUT 0x000000016e0689ecull

#define SQ_FIELD(type, field, at, size) \
    _Static_assert(offsetof(struct type, field) == (at) && \
                       sizeof(((struct type *)0)->field) == (size), #type "." #field)

_Static_assert(sizeof(struct rb_prefix) == 64, "rb_prefix");
SQ_FIELD(rb_prefix, magic, 0, 8);
SQ_FIELD(rb_prefix, layout, 8, 8);
SQ_FIELD(rb_prefix, size, 16, 8);
SQ_FIELD(rb_prefix, generation, 24, 8);
SQ_FIELD(rb_prefix, superseded_by, 32, 8);
SQ_FIELD(rb_prefix, kind, 40, 4);
SQ_FIELD(rb_prefix, reserved, 44, 20);

_Static_assert(sizeof(struct rb_head8) == 8, "rb_head8");
SQ_FIELD(rb_head8, length, 0, 4);
SQ_FIELD(rb_head8, kind, 4, 2);
SQ_FIELD(rb_head8, user, 6, 2);

_Static_assert(sizeof(struct sq_bell) == 64, "sq_bell");
SQ_FIELD(sq_bell, naps, 0, 8);
SQ_FIELD(sq_bell, rung, 8, 8);
SQ_FIELD(sq_bell, number, 16, 8);

_Static_assert(sizeof(struct sq_role) == 192, "sq_role");
SQ_FIELD(sq_role, lock, 0, 48);
SQ_FIELD(sq_role, holder, 48, 8);
SQ_FIELD(sq_role, hurt, 56, 8);
SQ_FIELD(sq_role, ring, 64, 8);
SQ_FIELD(sq_role, count, 72, 8);
SQ_FIELD(sq_role, next_position, 80, 8);
SQ_FIELD(sq_role, next_count, 88, 8);
SQ_FIELD(sq_role, bell, 128, 64);

_Static_assert(sizeof(struct sq_book) == 192, "sq_book");
SQ_FIELD(sq_book, lock, 0, 48);
SQ_FIELD(sq_book, lost, 64, 8);
SQ_FIELD(sq_book, done, 72, 8);
SQ_FIELD(sq_book, step, 80, 8);
SQ_FIELD(sq_book, row, 88, 8);
SQ_FIELD(sq_book, taker, 96, 8);
SQ_FIELD(sq_book, position, 104, 8);
SQ_FIELD(sq_book, next, 112, 16);
SQ_FIELD(sq_book, bell, 128, 64);

_Static_assert(sizeof(struct sq_row) == 128, "sq_row");
SQ_FIELD(sq_row, state, 0, 8);
SQ_FIELD(sq_row, pid, 8, 8);
SQ_FIELD(sq_row, start_time, 16, 8);
SQ_FIELD(sq_row, tid, 24, 8);
SQ_FIELD(sq_row, namespace, 32, 8);
SQ_FIELD(sq_row, hand_from, 64, 8);
SQ_FIELD(sq_row, hand_to, 72, 8);
SQ_FIELD(sq_row, hand_count, 80, 8);
SQ_FIELD(sq_row, hand_at, 88, 8);
SQ_FIELD(sq_row, taken, 96, 8);
SQ_FIELD(sq_row, taken_before, 104, 8);
SQ_FIELD(sq_row, done, 112, 8);

_Static_assert(sizeof(struct sq_queue) == 66240, "sq_queue");
SQ_FIELD(sq_queue, prefix, 0, 64);
SQ_FIELD(sq_queue, maxsize, 64, 8);
SQ_FIELD(sq_queue, redeliver, 72, 8);
SQ_FIELD(sq_queue, orphans, 80, 8);
SQ_FIELD(sq_queue, rows_used, 88, 8);
SQ_FIELD(sq_queue, gone, 96, 8);
SQ_FIELD(sq_queue, producers, 128, 192);
SQ_FIELD(sq_queue, consumers, 320, 192);
SQ_FIELD(sq_queue, book, 512, 192);
SQ_FIELD(sq_queue, rows, 704, 65536);

_Static_assert(sizeof(struct sq_ring_segment) == 256, "sq_ring_segment");
SQ_FIELD(sq_ring_segment, prefix, 0, 64);
SQ_FIELD(sq_ring_segment, capacity, 64, 8);
SQ_FIELD(sq_ring_segment, base, 72, 8);
SQ_FIELD(sq_ring_segment, usable, 80, 8);
SQ_FIELD(sq_ring_segment, usual, 88, 8);
SQ_FIELD(sq_ring_segment, head, 128, 8);
SQ_FIELD(sq_ring_segment, tail, 192, 8);
_Static_assert(offsetof(struct sq_ring_segment, data) == 256, "sq_ring_segment.data");

_Static_assert(sizeof(struct sq_hand_segment) == 64, "sq_hand_segment");
SQ_FIELD(sq_hand_segment, prefix, 0, 64);
_Static_assert(offsetof(struct sq_hand_segment, data) == 64, "sq_hand_segment.data");
