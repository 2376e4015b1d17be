/* Written by tools/build/layout.py from the headers; do not edit.
 *
 * The fingerprint of a bus, assertions that this compiler gives every field the offset
 * and size that the fingerprint, Python and Cython assume, and enumerations' words. */
#pragma once

/* Version << 32 | fingerprint: two builds whose words agree read shared memory alike. */
#define SB_LAYOUT 0x00000001bede4b3eull

#define SB_FIELD(type, field, at, size) \
    _Static_assert(offsetof(struct type, field) == (at) && \
                       sizeof(((struct type *)0)->field) == (size), #type "." #field)

_Static_assert(sizeof(struct rb_prefix) == 64, "rb_prefix");
SB_FIELD(rb_prefix, magic, 0, 8);
SB_FIELD(rb_prefix, layout, 8, 8);
SB_FIELD(rb_prefix, size, 16, 8);
SB_FIELD(rb_prefix, generation, 24, 8);
SB_FIELD(rb_prefix, superseded_by, 32, 8);
SB_FIELD(rb_prefix, kind, 40, 4);
SB_FIELD(rb_prefix, reserved, 44, 20);

_Static_assert(sizeof(struct sb_knock) == 24, "sb_knock");
SB_FIELD(sb_knock, layout, 0, 8);
SB_FIELD(sb_knock, nonce, 8, 8);
SB_FIELD(sb_knock, start_time, 16, 8);

_Static_assert(sizeof(struct sb_answer) == 512, "sb_answer");
SB_FIELD(sb_answer, code, 0, 4);
SB_FIELD(sb_answer, slot, 4, 4);
SB_FIELD(sb_answer, generation, 8, 8);
SB_FIELD(sb_answer, pid, 16, 4);
SB_FIELD(sb_answer, reserved, 20, 4);
SB_FIELD(sb_answer, number, 24, 8);
SB_FIELD(sb_answer, text, 32, 480);

_Static_assert(sizeof(struct sb_record) == 64, "sb_record");
SB_FIELD(sb_record, length, 0, 4);
SB_FIELD(sb_record, kind, 4, 2);
SB_FIELD(sb_record, path, 6, 2);
SB_FIELD(sb_record, flags, 8, 2);
SB_FIELD(sb_record, epoch, 10, 2);
SB_FIELD(sb_record, interests, 12, 4);
SB_FIELD(sb_record, peer, 16, 2);
SB_FIELD(sb_record, attempt, 18, 2);
SB_FIELD(sb_record, peer_generation, 20, 4);
SB_FIELD(sb_record, sent_ns, 24, 8);
SB_FIELD(sb_record, deadline_ns, 32, 8);
SB_FIELD(sb_record, correlation, 40, 16);
SB_FIELD(sb_record, type_length, 56, 2);
SB_FIELD(sb_record, extension_length, 58, 2);
SB_FIELD(sb_record, lost, 60, 4);

_Static_assert(sizeof(struct sb_fault) == 64, "sb_fault");
SB_FIELD(sb_fault, code, 0, 4);
SB_FIELD(sb_fault, pid, 4, 4);
SB_FIELD(sb_fault, limit, 8, 8);
SB_FIELD(sb_fault, name, 16, 48);

_Static_assert(sizeof(struct sb_found) == 16, "sb_found");
SB_FIELD(sb_found, version, 0, 8);
SB_FIELD(sb_found, receivers, 8, 4);
SB_FIELD(sb_found, handlers, 12, 4);

_Static_assert(sizeof(struct sb_origin) == 128, "sb_origin");
SB_FIELD(sb_origin, source, 0, 48);
SB_FIELD(sb_origin, site, 48, 32);
SB_FIELD(sb_origin, sent_ns, 80, 8);
SB_FIELD(sb_origin, error_ns, 88, 8);
SB_FIELD(sb_origin, sent_there_ns, 96, 8);
SB_FIELD(sb_origin, lost, 104, 4);
SB_FIELD(sb_origin, reserved, 108, 20);

_Static_assert(sizeof(struct sb_block) == 32, "sb_block");
SB_FIELD(sb_block, offset, 0, 8);
SB_FIELD(sb_block, length, 8, 8);
SB_FIELD(sb_block, use, 16, 8);
SB_FIELD(sb_block, pool_generation, 24, 4);
SB_FIELD(sb_block, pool_slot, 28, 2);
SB_FIELD(sb_block, index, 30, 2);

_Static_assert(sizeof(struct sb_grant) == 8, "sb_grant");
SB_FIELD(sb_grant, bytes, 0, 8);

_Static_assert(sizeof(struct sb_tap) == 16, "sb_tap");
SB_FIELD(sb_tap, forwarded_ns, 0, 8);
SB_FIELD(sb_tap, target_generation, 8, 4);
SB_FIELD(sb_tap, target, 12, 2);
SB_FIELD(sb_tap, kind, 14, 1);
SB_FIELD(sb_tap, outcome, 15, 1);

_Static_assert(sizeof(struct sb_ring_descriptor) == 32, "sb_ring_descriptor");
SB_FIELD(sb_ring_descriptor, offset, 0, 8);
SB_FIELD(sb_ring_descriptor, capacity, 8, 8);
SB_FIELD(sb_ring_descriptor, kind, 16, 4);
SB_FIELD(sb_ring_descriptor, peer, 20, 2);
SB_FIELD(sb_ring_descriptor, path, 22, 2);
SB_FIELD(sb_ring_descriptor, peer_generation, 24, 8);

_Static_assert(sizeof(struct sb_identity) == 32, "sb_identity");
SB_FIELD(sb_identity, pid, 0, 4);
SB_FIELD(sb_identity, uid, 4, 4);
SB_FIELD(sb_identity, start_time, 8, 8);
SB_FIELD(sb_identity, pid_namespace, 16, 8);
SB_FIELD(sb_identity, time_namespace, 24, 8);

_Static_assert(sizeof(struct sb_journal) == 128, "sb_journal");
SB_FIELD(sb_journal, kind, 0, 8);
SB_FIELD(sb_journal, source, 8, 8);
SB_FIELD(sb_journal, source_generation, 16, 8);
SB_FIELD(sb_journal, from, 24, 8);
SB_FIELD(sb_journal, to, 32, 8);
SB_FIELD(sb_journal, target, 40, 8);
SB_FIELD(sb_journal, target_generation, 48, 8);
SB_FIELD(sb_journal, head, 56, 8);
SB_FIELD(sb_journal, bits, 64, 8);
SB_FIELD(sb_journal, detail, 72, 8);
SB_FIELD(sb_journal, reserved, 80, 48);

_Static_assert(sizeof(struct sb_row) == 256, "sb_row");
SB_FIELD(sb_row, seq, 0, 8);
SB_FIELD(sb_row, state, 8, 8);
SB_FIELD(sb_row, generation, 16, 8);
SB_FIELD(sb_row, reason, 24, 8);
SB_FIELD(sb_row, health, 32, 8);
SB_FIELD(sb_row, since_ns, 40, 8);
SB_FIELD(sb_row, since_wall_ns, 48, 8);
SB_FIELD(sb_row, down_ns, 56, 8);
SB_FIELD(sb_row, identity, 64, 32);
SB_FIELD(sb_row, nonce, 96, 8);
SB_FIELD(sb_row, name, 104, 64);
SB_FIELD(sb_row, down_emitted, 168, 8);
SB_FIELD(sb_row, reserved, 176, 80);

_Static_assert(sizeof(struct sb_death) == 136, "sb_death");
SB_FIELD(sb_death, seq, 0, 8);
SB_FIELD(sb_death, nth, 8, 8);
SB_FIELD(sb_death, generation, 16, 8);
SB_FIELD(sb_death, pid, 24, 8);
SB_FIELD(sb_death, reason, 32, 8);
SB_FIELD(sb_death, wall_ns, 40, 8);
SB_FIELD(sb_death, in_hand, 48, 8);
SB_FIELD(sb_death, untouched, 56, 8);
SB_FIELD(sb_death, pending, 64, 8);
SB_FIELD(sb_death, name, 72, 64);

_Static_assert(sizeof(struct sb_last_loss) == 472, "sb_last_loss");
SB_FIELD(sb_last_loss, seq, 0, 8);
SB_FIELD(sb_last_loss, whom, 8, 8);
SB_FIELD(sb_last_loss, why, 16, 8);
SB_FIELD(sb_last_loss, pid, 24, 8);
SB_FIELD(sb_last_loss, count, 32, 8);
SB_FIELD(sb_last_loss, at_ns, 40, 8);
SB_FIELD(sb_last_loss, size, 48, 8);
SB_FIELD(sb_last_loss, limit, 56, 8);
SB_FIELD(sb_last_loss, name, 64, 64);
SB_FIELD(sb_last_loss, source, 128, 88);
SB_FIELD(sb_last_loss, type, 216, 256);

_Static_assert(sizeof(struct sb_member) == 32, "sb_member");
SB_FIELD(sb_member, whom, 0, 8);
SB_FIELD(sb_member, joined, 8, 8);
SB_FIELD(sb_member, left, 16, 8);
SB_FIELD(sb_member, mark, 24, 8);

_Static_assert(sizeof(struct sb_keyed) == 2392, "sb_keyed");
SB_FIELD(sb_keyed, key, 0, 8);
SB_FIELD(sb_keyed, epoch, 8, 8);
SB_FIELD(sb_keyed, settled, 16, 8);
SB_FIELD(sb_keyed, name, 24, 64);
SB_FIELD(sb_keyed, pattern, 88, 256);
SB_FIELD(sb_keyed, member, 344, 2048);

_Static_assert(sizeof(struct sb_bus) == 53248, "sb_bus");
SB_FIELD(sb_bus, prefix, 0, 64);
SB_FIELD(sb_bus, identity_seq, 64, 8);
SB_FIELD(sb_bus, identity, 72, 32);
SB_FIELD(sb_bus, serial, 104, 8);
SB_FIELD(sb_bus, started_ns, 112, 8);
SB_FIELD(sb_bus, slots, 120, 8);
SB_FIELD(sb_bus, in_bytes, 128, 8);
SB_FIELD(sb_bus, out_bytes, 136, 8);
SB_FIELD(sb_bus, reply_bytes, 144, 8);
SB_FIELD(sb_bus, max_requests, 152, 8);
SB_FIELD(sb_bus, block_timeout_ns, 160, 8);
SB_FIELD(sb_bus, stall_after_ns, 168, 8);
SB_FIELD(sb_bus, prefetch, 176, 8);
SB_FIELD(sb_bus, backlog_bytes, 184, 8);
SB_FIELD(sb_bus, mailbox_bytes, 192, 8);
SB_FIELD(sb_bus, max_deliveries, 200, 8);
SB_FIELD(sb_bus, batch_per_pass, 208, 8);
SB_FIELD(sb_bus, history, 216, 8);
SB_FIELD(sb_bus, retain_bytes, 224, 8);
SB_FIELD(sb_bus, pool_bytes, 232, 8);
SB_FIELD(sb_bus, pool_total_bytes, 240, 8);
SB_FIELD(sb_bus, loans, 248, 8);
SB_FIELD(sb_bus, rows_offset, 256, 8);
SB_FIELD(sb_bus, name, 264, 64);
SB_FIELD(sb_bus, package, 328, 32);
SB_FIELD(sb_bus, state, 384, 8);
SB_FIELD(sb_bus, last_generation, 392, 8);
SB_FIELD(sb_bus, backlogs_made, 400, 8);
SB_FIELD(sb_bus, mailboxes_made, 408, 8);
SB_FIELD(sb_bus, attached, 416, 8);
SB_FIELD(sb_bus, wills, 424, 8);
SB_FIELD(sb_bus, routes_version, 432, 8);
SB_FIELD(sb_bus, bell, 448, 8);
SB_FIELD(sb_bus, heartbeat_ns, 512, 8);
SB_FIELD(sb_bus, control_ns, 520, 8);
SB_FIELD(sb_bus, journal, 576, 128);
SB_FIELD(sb_bus, backlog, 704, 512);
SB_FIELD(sb_bus, mailbox, 1216, 1536);
SB_FIELD(sb_bus, retained_last, 2752, 8);
SB_FIELD(sb_bus, retained_chunks, 2760, 8);
SB_FIELD(sb_bus, retained, 2768, 8);
SB_FIELD(sb_bus, retained_bytes, 2776, 8);
SB_FIELD(sb_bus, evicted, 2784, 8);
SB_FIELD(sb_bus, pools_granted, 2792, 8);
SB_FIELD(sb_bus, pools_short, 2800, 8);
SB_FIELD(sb_bus, pools_left, 2808, 8);
SB_FIELD(sb_bus, fits, 2816, 24);
SB_FIELD(sb_bus, routed, 2880, 8);
SB_FIELD(sb_bus, unrouted, 2888, 8);
SB_FIELD(sb_bus, no_route, 2896, 8);
SB_FIELD(sb_bus, forbidden, 2904, 8);
SB_FIELD(sb_bus, dead_letters, 2912, 8);
SB_FIELD(sb_bus, orphans, 2920, 8);
SB_FIELD(sb_bus, lost, 2928, 8);
SB_FIELD(sb_bus, lost_by, 2936, 40);
SB_FIELD(sb_bus, redelivered, 2976, 8);
SB_FIELD(sb_bus, violations, 2984, 8);
SB_FIELD(sb_bus, types_known, 2992, 8);
SB_FIELD(sb_bus, patterns, 3000, 8);
SB_FIELD(sb_bus, events_lost, 3008, 8);
SB_FIELD(sb_bus, backlogs_failed, 3016, 8);
SB_FIELD(sb_bus, mailboxes_failed, 3024, 8);
SB_FIELD(sb_bus, cancels, 3032, 8);
SB_FIELD(sb_bus, cancels_lost, 3040, 8);
SB_FIELD(sb_bus, credits_lost, 3048, 8);
SB_FIELD(sb_bus, passes, 3056, 8);
SB_FIELD(sb_bus, latency_count, 3064, 8);
SB_FIELD(sb_bus, latency_sum_ns, 3072, 8);
SB_FIELD(sb_bus, latency_max_ns, 3080, 8);
SB_FIELD(sb_bus, latency, 3088, 2048);
SB_FIELD(sb_bus, deaths, 5184, 64);
SB_FIELD(sb_bus, last_deaths, 5248, 2176);
SB_FIELD(sb_bus, last_losses, 7424, 7552);
SB_FIELD(sb_bus, keyed, 14976, 38272);

_Static_assert(sizeof(struct sb_ready) == 64, "sb_ready");
SB_FIELD(sb_ready, prefix, 0, 64);
_Static_assert(offsetof(struct sb_ready, word) == 64, "sb_ready.word");

_Static_assert(sizeof(struct sb_outgoing) == 64, "sb_outgoing");
SB_FIELD(sb_outgoing, head, 0, 8);
SB_FIELD(sb_outgoing, need, 8, 8);
SB_FIELD(sb_outgoing, interests_version, 16, 8);
SB_FIELD(sb_outgoing, interests_serial, 24, 8);
SB_FIELD(sb_outgoing, high, 32, 8);

_Static_assert(sizeof(struct sb_incoming) == 64, "sb_incoming");
SB_FIELD(sb_incoming, tail, 0, 8);
SB_FIELD(sb_incoming, taken, 8, 8);
SB_FIELD(sb_incoming, taken_count, 16, 8);

_Static_assert(sizeof(struct sb_held_entry) == 32, "sb_held_entry");
SB_FIELD(sb_held_entry, position, 0, 8);
SB_FIELD(sb_held_entry, done, 8, 8);
SB_FIELD(sb_held_entry, returned, 16, 8);
SB_FIELD(sb_held_entry, settled, 24, 8);

_Static_assert(sizeof(struct sb_let_go) == 448, "sb_let_go");
SB_FIELD(sb_let_go, at, 0, 8);
SB_FIELD(sb_let_go, returned, 8, 8);
SB_FIELD(sb_let_go, record, 16, 432);

_Static_assert(sizeof(struct sb_share) == 32, "sb_share");
SB_FIELD(sb_share, share, 0, 8);
SB_FIELD(sb_share, pool, 8, 8);
SB_FIELD(sb_share, block, 16, 8);
SB_FIELD(sb_share, bytes, 24, 8);

_Static_assert(sizeof(struct sb_use) == 16, "sb_use");
SB_FIELD(sb_use, use, 0, 8);
SB_FIELD(sb_use, bytes, 8, 8);

_Static_assert(sizeof(struct sb_pool) == 24672, "sb_pool");
SB_FIELD(sb_pool, prefix, 0, 64);
SB_FIELD(sb_pool, slot, 64, 8);
SB_FIELD(sb_pool, generation, 72, 8);
SB_FIELD(sb_pool, bytes, 80, 8);
SB_FIELD(sb_pool, shares_used, 88, 8);
SB_FIELD(sb_pool, shares, 96, 16384);
SB_FIELD(sb_pool, blocks, 16480, 8192);

_Static_assert(sizeof(struct sb_limited) == 392, "sb_limited");
SB_FIELD(sb_limited, limit_ns, 0, 8);
SB_FIELD(sb_limited, whom, 8, 8);
SB_FIELD(sb_limited, kind, 16, 8);
SB_FIELD(sb_limited, type_length, 24, 8);
SB_FIELD(sb_limited, id, 32, 16);
SB_FIELD(sb_limited, source, 48, 88);
SB_FIELD(sb_limited, type, 136, 256);

_Static_assert(sizeof(struct sb_had) == 48, "sb_had");
SB_FIELD(sb_had, interest, 0, 8);
SB_FIELD(sb_had, whom, 8, 8);
SB_FIELD(sb_had, received, 16, 8);
SB_FIELD(sb_had, taken, 24, 8);
SB_FIELD(sb_had, lost_before, 32, 8);
SB_FIELD(sb_had, lost, 40, 8);

_Static_assert(sizeof(struct sb_pending) == 32, "sb_pending");
SB_FIELD(sb_pending, id, 0, 16);
SB_FIELD(sb_pending, deadline_ns, 16, 8);
SB_FIELD(sb_pending, state, 24, 8);

_Static_assert(sizeof(struct sb_up) == 31104, "sb_up");
SB_FIELD(sb_up, prefix, 0, 64);
SB_FIELD(sb_up, identity, 64, 32);
SB_FIELD(sb_up, nonce, 96, 8);
SB_FIELD(sb_up, stays, 104, 8);
SB_FIELD(sb_up, prefetch, 112, 8);
SB_FIELD(sb_up, pool_limit, 120, 8);
SB_FIELD(sb_up, loans, 128, 8);
SB_FIELD(sb_up, name, 136, 64);
SB_FIELD(sb_up, outgoing_ring, 200, 64);
SB_FIELD(sb_up, incoming_ring, 264, 96);
SB_FIELD(sb_up, pending_count, 360, 8);
SB_FIELD(sb_up, pending_offset, 368, 8);
SB_FIELD(sb_up, state, 384, 8);
SB_FIELD(sb_up, first_limit_ns, 392, 8);
SB_FIELD(sb_up, pool_asked, 400, 8);
SB_FIELD(sb_up, shares_ended, 408, 8);
SB_FIELD(sb_up, outgoing, 448, 128);
SB_FIELD(sb_up, incoming, 576, 192);
SB_FIELD(sb_up, bell, 768, 8);
SB_FIELD(sb_up, event, 776, 8);
SB_FIELD(sb_up, event_wants, 784, 8);
SB_FIELD(sb_up, in_hand, 832, 8);
SB_FIELD(sb_up, in_hand_since_ns, 840, 8);
SB_FIELD(sb_up, work_done, 848, 8);
SB_FIELD(sb_up, receivers, 856, 8);
SB_FIELD(sb_up, progress_ns, 864, 8);
SB_FIELD(sb_up, sent_events, 872, 8);
SB_FIELD(sb_up, sent_sends, 880, 8);
SB_FIELD(sb_up, sent_requests, 888, 8);
SB_FIELD(sb_up, sent_replies, 896, 8);
SB_FIELD(sb_up, received_events, 904, 8);
SB_FIELD(sb_up, received_sends, 912, 8);
SB_FIELD(sb_up, received_requests, 920, 8);
SB_FIELD(sb_up, received_replies, 928, 8);
SB_FIELD(sb_up, sent_parts, 936, 8);
SB_FIELD(sb_up, received_parts, 944, 8);
SB_FIELD(sb_up, streaming, 952, 8);
SB_FIELD(sb_up, orphans, 960, 8);
SB_FIELD(sb_up, expired, 968, 8);
SB_FIELD(sb_up, withdrawn, 976, 8);
SB_FIELD(sb_up, handler_errors, 984, 8);
SB_FIELD(sb_up, decode_errors, 992, 8);
SB_FIELD(sb_up, timeouts, 1000, 8);
SB_FIELD(sb_up, nacked, 1008, 8);
SB_FIELD(sb_up, let_go, 1016, 8);
SB_FIELD(sb_up, let_go_unkept, 1024, 8);
SB_FIELD(sb_up, let_go_from, 1032, 8);
SB_FIELD(sb_up, watcher, 1040, 8);
SB_FIELD(sb_up, pool_bytes, 1088, 8);
SB_FIELD(sb_up, pool_reserved, 1096, 8);
SB_FIELD(sb_up, pool_in_use, 1104, 8);
SB_FIELD(sb_up, pool_need, 1112, 8);
SB_FIELD(sb_up, pool_waits, 1120, 8);
SB_FIELD(sb_up, copied, 1128, 8);
SB_FIELD(sb_up, had, 1152, 1536);
SB_FIELD(sb_up, held, 2688, 2048);
SB_FIELD(sb_up, kept, 4736, 7168);
SB_FIELD(sb_up, limits, 11904, 384);
SB_FIELD(sb_up, limited, 12288, 18816);

_Static_assert(sizeof(struct sb_down_incoming) == 64, "sb_down_incoming");
SB_FIELD(sb_down_incoming, head, 0, 8);
SB_FIELD(sb_down_incoming, need, 8, 8);
SB_FIELD(sb_down_incoming, delivered, 16, 8);
SB_FIELD(sb_down_incoming, high, 24, 8);
SB_FIELD(sb_down_incoming, reclaim, 32, 8);
SB_FIELD(sb_down_incoming, reclaim_bits, 40, 8);
SB_FIELD(sb_down_incoming, wanted, 48, 8);

_Static_assert(sizeof(struct sb_down_outgoing) == 64, "sb_down_outgoing");
SB_FIELD(sb_down_outgoing, tail, 0, 8);
SB_FIELD(sb_down_outgoing, last, 8, 8);

_Static_assert(sizeof(struct sb_target) == 32, "sb_target");
SB_FIELD(sb_target, id, 0, 16);
SB_FIELD(sb_target, whom, 16, 8);
SB_FIELD(sb_target, done, 24, 8);

_Static_assert(sizeof(struct sb_todo_target) == 16, "sb_todo_target");
SB_FIELD(sb_todo_target, whom, 0, 8);
SB_FIELD(sb_todo_target, bits, 8, 8);

_Static_assert(sizeof(struct sb_todo) == 24, "sb_todo");
SB_FIELD(sb_todo, from, 0, 8);
SB_FIELD(sb_todo, to, 8, 8);
SB_FIELD(sb_todo, count, 16, 8);

_Static_assert(sizeof(struct sb_down) == 5696, "sb_down");
SB_FIELD(sb_down, prefix, 0, 64);
SB_FIELD(sb_down, slot, 64, 8);
SB_FIELD(sb_down, generation, 72, 8);
SB_FIELD(sb_down, incoming_ring, 80, 96);
SB_FIELD(sb_down, target_count, 176, 8);
SB_FIELD(sb_down, target_offset, 184, 8);
SB_FIELD(sb_down, todo_count, 192, 8);
SB_FIELD(sb_down, todo_offset, 200, 8);
SB_FIELD(sb_down, rights_offset, 208, 8);
SB_FIELD(sb_down, state, 256, 8);
SB_FIELD(sb_down, interests_seen, 264, 8);
SB_FIELD(sb_down, refused, 272, 8);
SB_FIELD(sb_down, refused_why, 280, 8);
SB_FIELD(sb_down, event_known, 288, 8);
SB_FIELD(sb_down, outgoing, 320, 128);
SB_FIELD(sb_down, incoming, 448, 192);
SB_FIELD(sb_down, lost, 640, 8);
SB_FIELD(sb_down, lost_by, 648, 40);
SB_FIELD(sb_down, mailbox_lost, 688, 8);
SB_FIELD(sb_down, lost_untold, 696, 8);
SB_FIELD(sb_down, undeliverable, 704, 8);
SB_FIELD(sb_down, unrouted, 712, 8);
SB_FIELD(sb_down, redelivered, 720, 8);
SB_FIELD(sb_down, forwarded, 728, 8);
SB_FIELD(sb_down, overruns, 736, 8);
SB_FIELD(sb_down, retained_number, 744, 8);
SB_FIELD(sb_down, retained_to, 752, 8);
SB_FIELD(sb_down, history_read, 760, 8);
SB_FIELD(sb_down, waiting, 768, 128);
SB_FIELD(sb_down, limits_told, 896, 384);
SB_FIELD(sb_down, mailbox, 1280, 256);
SB_FIELD(sb_down, pool_granted, 1536, 8);
SB_FIELD(sb_down, returned, 1544, 4096);
SB_FIELD(sb_down, todo, 5640, 24);

_Static_assert(sizeof(struct sb_rights) == 296, "sb_rights");
SB_FIELD(sb_rights, bytes, 0, 8);
SB_FIELD(sb_rights, refused, 8, 8);
SB_FIELD(sb_rights, told, 16, 8);
SB_FIELD(sb_rights, seq, 24, 8);
SB_FIELD(sb_rights, right, 32, 8);
SB_FIELD(sb_rights, type, 40, 256);

_Static_assert(sizeof(struct sb_backlog) == 6080, "sb_backlog");
SB_FIELD(sb_backlog, down, 0, 5696);
SB_FIELD(sb_backlog, former, 5696, 8);
SB_FIELD(sb_backlog, whom, 5704, 8);
SB_FIELD(sb_backlog, interest, 5712, 8);
SB_FIELD(sb_backlog, number, 5720, 8);
SB_FIELD(sb_backlog, group, 5728, 64);
SB_FIELD(sb_backlog, type, 5792, 256);

_Static_assert(sizeof(struct sb_cell) == 16, "sb_cell");
SB_FIELD(sb_cell, number, 0, 8);
SB_FIELD(sb_cell, next, 8, 8);

_Static_assert(sizeof(struct sb_value) == 32, "sb_value");
SB_FIELD(sb_value, cell, 0, 16);
SB_FIELD(sb_value, whom, 16, 8);
SB_FIELD(sb_value, end, 24, 8);

_Static_assert(sizeof(struct sb_mailbox) == 6080, "sb_mailbox");
SB_FIELD(sb_mailbox, down, 0, 5696);
SB_FIELD(sb_mailbox, owner, 5696, 8);
SB_FIELD(sb_mailbox, interest, 5704, 8);
SB_FIELD(sb_mailbox, index, 5712, 8);
SB_FIELD(sb_mailbox, latest, 5720, 8);
SB_FIELD(sb_mailbox, depth, 5728, 8);
SB_FIELD(sb_mailbox, entries_offset, 5736, 8);
SB_FIELD(sb_mailbox, cell_count, 5744, 8);
SB_FIELD(sb_mailbox, cells_offset, 5752, 8);
SB_FIELD(sb_mailbox, filled_to, 5760, 8);
SB_FIELD(sb_mailbox, used, 5768, 8);
SB_FIELD(sb_mailbox, pattern, 5776, 256);

_Static_assert(sizeof(struct sb_mail) == 16, "sb_mail");
SB_FIELD(sb_mail, number, 0, 8);
SB_FIELD(sb_mail, at, 8, 8);

_Static_assert(sizeof(struct sb_mail_cell) == 512, "sb_mail_cell");
SB_FIELD(sb_mail_cell, next, 0, 8);
SB_FIELD(sb_mail_cell, words, 8, 504);

_Static_assert(sizeof(struct sb_interest) == 40, "sb_interest");
SB_FIELD(sb_interest, length, 0, 4);
SB_FIELD(sb_interest, op, 4, 1);
SB_FIELD(sb_interest, role, 5, 1);
SB_FIELD(sb_interest, bit, 6, 1);
SB_FIELD(sb_interest, flags, 7, 1);
SB_FIELD(sb_interest, id, 8, 8);
SB_FIELD(sb_interest, pattern_length, 16, 2);
SB_FIELD(sb_interest, group_length, 18, 2);
SB_FIELD(sb_interest, description_length, 20, 4);
SB_FIELD(sb_interest, history, 24, 4);
SB_FIELD(sb_interest, depth, 28, 4);
SB_FIELD(sb_interest, key, 32, 4);
SB_FIELD(sb_interest, mailbox, 36, 4);

_Static_assert(sizeof(struct sb_interests) == 128, "sb_interests");
SB_FIELD(sb_interests, prefix, 0, 64);
SB_FIELD(sb_interests, bytes, 64, 8);
SB_FIELD(sb_interests, reserved, 72, 56);

static inline const char *sb_kind_word(enum sb_kind kind)
{
    switch (kind) {
    case SB_EVENT: return "event";
    case SB_SEND: return "send";
    case SB_REQUEST: return "request";
    case SB_REPLY: return "reply";
    case SB_ERROR: return "error";
    case SB_PART: return "part";
    case SB_END: return "end";
    case SB_CANCEL: return "cancel";
    case SB_CREDIT: return "credit";
    case SB_TAP: return "tap";
    case SB_NACK: return "nack";
    case SB_QUERY: return "query";
    case SB_LIVE: return "live";
    }
    return "unknown";
}

static inline const char *sb_reason_word(enum sb_reason reason)
{
    switch (reason) {
    case SB_REASON_ALIVE: return "alive";
    case SB_REASON_DETACHED: return "detached";
    case SB_REASON_KILLED: return "killed";
    case SB_REASON_EXITED: return "exited";
    case SB_REASON_EXEC: return "exec";
    case SB_REASON_EVICTED: return "evicted";
    case SB_REASON_QUARANTINED: return "quarantined";
    case SB_REASON_DIED: return "died";
    }
    return "unknown";
}

static inline const char *sb_loss_word(enum sb_loss loss)
{
    switch (loss) {
    case SB_LOSS_DROPPED: return "dropped";
    case SB_LOSS_SLOW: return "slow";
    case SB_LOSS_TOO_LARGE: return "too_large";
    case SB_LOSS_ENDED: return "ended";
    case SB_LOSS_ABANDONED: return "abandoned";
    }
    return "unknown";
}

static inline const char *sb_right_word(enum sb_right right)
{
    switch (right) {
    case SB_RIGHT_PUBLISH: return "publish";
    case SB_RIGHT_SUBSCRIBE: return "subscribe";
    case SB_RIGHT_HANDLE: return "handle";
    case SB_RIGHT_REQUEST: return "request";
    }
    return "unknown";
}
