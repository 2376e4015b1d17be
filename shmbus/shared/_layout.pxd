"""What is in shared memory, for Cython. Written by tools/build/layout.py from the headers; do not edit."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from ringbuf._native cimport rb_word

cdef extern from "ringbuf/native/prefix.h" nogil:
    struct rb_prefix:
        rb_word magic
        uint64_t layout
        uint64_t size
        uint64_t generation
        rb_word superseded_by
        uint32_t kind
        uint32_t reserved[5]

cdef extern from "shmbus/shared/native/door.h" nogil:
    enum: # sb_door_code; a named one could not be an index
        SB_DOOR_ADMITTED
        SB_DOOR_NAME_TAKEN
        SB_DOOR_BUS_FULL
        SB_DOOR_OTHER_LAYOUT
        SB_DOOR_REFUSED
        SB_DOOR_NO_SPACE
        SB_DOOR_FORBIDDEN
    struct sb_knock:
        uint64_t layout
        uint64_t nonce
        uint64_t start_time
    struct sb_answer:
        uint32_t code
        uint32_t slot
        uint64_t generation
        uint32_t pid
        uint32_t reserved
        uint64_t number
        char text[480]

cdef extern from "shmbus/shared/native/record.h" nogil:
    enum: # sb_kind; a named one could not be an index
        SB_EVENT
        SB_SEND
        SB_REQUEST
        SB_REPLY
        SB_ERROR
        SB_PART
        SB_END
        SB_CANCEL
        SB_CREDIT
        SB_TAP
        SB_NACK
        SB_QUERY
        SB_LIVE
    enum: # sb_record_flag; a named one could not be an index
        SB_RAW
        SB_NONE
        SB_REDELIVERED
        SB_REMOTE
        SB_NEED_GROUPS
        SB_FINAL
        SB_STREAM
        SB_DIRECTED
        SB_RETAIN
        SB_RETAINED
        SB_URGENT
        SB_ALONE
        SB_POOLED
        SB_FRAMED
        SB_RELAYED
    enum: # sb_fault_code; a named one could not be an index
        SB_FAULT_NO_ROUTE
        SB_FAULT_ENDPOINT_DIED
        SB_FAULT_REPLY_LOST
        SB_FAULT_TOO_LARGE
        SB_FAULT_COLLISION
        SB_FAULT_HANDLER_FULL
        SB_FAULT_HANDLER_TIMEOUT
        SB_FAULT_FORBIDDEN
    enum: # sb_outcome; a named one could not be an index
        SB_OUTCOME_DELIVERED
        SB_OUTCOME_NOBODY
        SB_OUTCOME_LOST
        SB_OUTCOME_DROPPED
        SB_OUTCOME_FORBIDDEN
    enum:
        SB_PAYLOAD_FLAGS
        SB_PLAIN
        SB_MAX_TYPE
        SB_MAX_NAME
        SB_MAX_SITE
        SB_FROM_BUS
        SB_MAX_REASON
        SB_HEADER
        SB_BEGUN
        SB_FAULT_RECORD
        SB_REQUEST_RESERVE
        SB_POOLED_PART
    struct sb_record:
        uint32_t length
        uint16_t kind
        uint16_t path
        uint16_t flags
        uint16_t epoch
        uint32_t interests
        uint16_t peer
        uint16_t attempt
        uint32_t peer_generation
        uint64_t sent_ns
        uint64_t deadline_ns
        uint8_t correlation[16]
        uint16_t type_length
        uint16_t extension_length
        uint32_t lost
    struct sb_fault:
        uint32_t code
        uint32_t pid
        uint64_t limit
        char name[48]
    struct sb_found:
        uint64_t version
        uint32_t receivers
        uint32_t handlers
    struct sb_origin:
        char source[48]
        char site[32]
        uint64_t sent_ns
        uint64_t error_ns
        uint64_t sent_there_ns
        uint32_t lost
        uint32_t reserved[5]
    struct sb_block:
        uint64_t offset
        uint64_t length
        uint64_t use
        uint32_t pool_generation
        uint16_t pool_slot
        uint16_t index
    struct sb_grant:
        uint64_t bytes
    struct sb_tap:
        uint64_t forwarded_ns
        uint32_t target_generation
        uint16_t target
        uint8_t kind
        uint8_t outcome

cdef extern from "shmbus/shared/native/layout.h" nogil:
    enum: # sb_segment_kind; a named one could not be an index
        SB_SEGMENT_BUS
        SB_SEGMENT_READY
        SB_SEGMENT_UP
        SB_SEGMENT_DOWN
        SB_SEGMENT_INTERESTS
        SB_SEGMENT_BACKLOG
        SB_SEGMENT_MAILBOX
        SB_SEGMENT_RETAINED
        SB_SEGMENT_POOL
    enum: # sb_ring_index; a named one could not be an index
        SB_DATA
        SB_REPLIES
        SB_URGENT_EVENTS
    enum: # sb_rank; a named one could not be an index
        SB_RANK_HERE
        SB_RANK_LINK
        SB_RANK_KEEPER
    enum: # sb_bus_state; a named one could not be an index
        SB_BUS_STARTING
        SB_BUS_SERVING
        SB_BUS_CLOSING
        SB_BUS_ENDED
        SB_BUS_HANDOVER
    enum: # sb_journal_kind; a named one could not be an index
        SB_JOURNAL_NONE
        SB_JOURNAL_RUN
        SB_JOURNAL_LOST
        SB_JOURNAL_ERROR
        SB_JOURNAL_LIVE
    enum: # sb_row_state; a named one could not be an index
        SB_ROW_FREE
        SB_ROW_LIVE
        SB_ROW_LEAVING
        SB_ROW_DYING
        SB_ROW_GONE
    enum: # sb_reason; a named one could not be an index
        SB_REASON_ALIVE
        SB_REASON_DETACHED
        SB_REASON_KILLED
        SB_REASON_EXITED
        SB_REASON_EXEC
        SB_REASON_EVICTED
        SB_REASON_QUARANTINED
        SB_REASON_DIED
    enum: # sb_loss; a named one could not be an index
        SB_LOSS_DROPPED
        SB_LOSS_SLOW
        SB_LOSS_TOO_LARGE
        SB_LOSS_ENDED
        SB_LOSS_ABANDONED
    enum: # sb_fitness; a named one could not be an index
        SB_FIT
        SB_STALLED
        SB_SLOW
        SB_STOPPED
    enum: # sb_up_state; a named one could not be an index
        SB_UP_ATTACHING
        SB_UP_ATTACHED
        SB_UP_CLOSING
        SB_UP_CLOSED
    enum: # sb_event_want; a named one could not be an index
        SB_EVENT_DATA
        SB_EVENT_REPLIES
        SB_EVENT_SPACE
        SB_EVENT_STATE
        SB_EVENT_END
    enum: # sb_held_state; a named one could not be an index
        SB_HELD_OPEN
        SB_HELD_DONE
        SB_HELD_FINAL
    enum: # sb_pending_state; a named one could not be an index
        SB_PENDING_FREE
        SB_PENDING_WAITING
    enum: # sb_down_state; a named one could not be an index
        SB_DOWN_LIVE
        SB_DOWN_DRAINED
        SB_DOWN_EVICTED
        SB_DOWN_RECLAIMED
        SB_DOWN_ENDED
    enum: # sb_refusal; a named one could not be an index
        SB_REFUSED_KEY
        SB_REFUSED_GROUP
        SB_REFUSED_FULL
        SB_REFUSED_FORBIDDEN
    enum: # sb_right; a named one could not be an index
        SB_RIGHT_PUBLISH
        SB_RIGHT_SUBSCRIBE
        SB_RIGHT_HANDLE
        SB_RIGHT_REQUEST
    enum: # sb_no_mailbox; a named one could not be an index
        SB_MAILBOX_NO_MEMORY
        SB_MAILBOX_TOO_MANY
    enum: # sb_interest_op; a named one could not be an index
        SB_INTEREST_ADD
        SB_INTEREST_REMOVE
        SB_INTEREST_NOTE
    enum: # sb_interest_role; a named one could not be an index
        SB_ROLE_SUBSCRIBE
        SB_ROLE_HANDLE
        SB_ROLE_OBSERVE
        SB_ROLE_MATCH
    enum: # sb_interest_flag; a named one could not be an index
        SB_DROP_NEWEST
        SB_REDELIVER
        SB_DROP_OLDEST
        SB_LATEST
    enum:
        SB_LAYOUT_VERSION
        SB_NAME
        SB_SOURCE
        SB_GROUPS
        SB_HELD
        SB_KEPT
        SB_LIMITS
        SB_RINGS
        SB_RINGS_IN
        SB_URGENT_BYTES
        SB_MAX_SLOTS
        SB_BACKLOGS
        SB_WAITING
        SB_CHUNKS
        SB_MAILBOXES
        SB_FIRST_MAILBOX
        SB_OWN_MAILBOXES
        SB_OWN_MATCHINGS
        SB_MAX_DEPTH
        SB_MAX_REQUESTS
        SB_LATENCY_BUCKETS
        SB_DEATHS
        SB_LAST_LOSSES
        SB_KEYED_GROUPS
        SB_MEMBERS
        SB_BLOCKS
        SB_SHARES
        SB_GRANTED
        SB_REASONS
        SB_LOSSES
        SB_EVENT_MAIL
        SB_POOL_DATA
        SB_RIGHT_COUNT
        SB_CELL_BYTES
        SB_MAIL_WORDS
        SB_MAIL_BYTES
    const uint64_t SB_EVENT_ANY
    const uint64_t SB_DONE_BY_ERROR
    const uint64_t SB_DONE_BY_CANCEL
    const uint64_t SB_NO_NEED
    const uint64_t SB_NOWHERE
    struct sb_ring_descriptor:
        uint64_t offset
        uint64_t capacity
        uint32_t kind
        uint16_t peer
        uint16_t path
        uint64_t peer_generation
    struct sb_identity:
        uint32_t pid
        uint32_t uid
        uint64_t start_time
        uint64_t pid_namespace
        uint64_t time_namespace
    struct sb_journal:
        rb_word kind
        rb_word source
        rb_word source_generation
        rb_word from_ "from"
        rb_word to
        rb_word target
        rb_word target_generation
        rb_word head
        rb_word bits
        rb_word detail
        rb_word reserved[6]
    struct sb_row:
        rb_word seq
        rb_word state
        rb_word generation
        rb_word reason
        rb_word health
        rb_word since_ns
        rb_word since_wall_ns
        rb_word down_ns
        sb_identity identity
        uint64_t nonce
        char name[64]
        rb_word down_emitted
        rb_word reserved[10]
    struct sb_death:
        rb_word seq
        rb_word nth
        rb_word generation
        rb_word pid
        rb_word reason
        rb_word wall_ns
        rb_word in_hand
        rb_word untouched
        rb_word pending
        char name[64]
    struct sb_last_loss:
        rb_word seq
        rb_word whom
        rb_word why
        rb_word pid
        rb_word count
        rb_word at_ns
        rb_word size
        rb_word limit
        char name[64]
        char source[88]
        char type[256]
    struct sb_member:
        rb_word whom
        rb_word joined
        rb_word left
        rb_word mark
    struct sb_keyed:
        rb_word key
        rb_word epoch
        rb_word settled
        char name[64]
        char pattern[256]
        sb_member member[64]
    struct sb_bus:
        rb_prefix prefix
        rb_word identity_seq
        sb_identity identity
        uint64_t serial
        uint64_t started_ns
        uint64_t slots
        uint64_t in_bytes
        uint64_t out_bytes
        uint64_t reply_bytes
        uint64_t max_requests
        uint64_t block_timeout_ns
        uint64_t stall_after_ns
        uint64_t prefetch
        uint64_t backlog_bytes
        uint64_t mailbox_bytes
        uint64_t max_deliveries
        uint64_t batch_per_pass
        uint64_t history
        uint64_t retain_bytes
        uint64_t pool_bytes
        uint64_t pool_total_bytes
        uint64_t loans
        uint64_t rows_offset
        char name[64]
        char package[32]
        rb_word state
        rb_word last_generation
        rb_word backlogs_made
        rb_word mailboxes_made
        rb_word attached
        rb_word wills
        rb_word routes_version
        rb_word bell
        rb_word heartbeat_ns
        rb_word control_ns
        sb_journal journal
        rb_word backlog[64]
        rb_word mailbox[192]
        rb_word retained_last
        rb_word retained_chunks
        rb_word retained
        rb_word retained_bytes
        rb_word evicted
        rb_word pools_granted
        rb_word pools_short
        rb_word pools_left
        rb_word fits[3]
        rb_word routed
        rb_word unrouted
        rb_word no_route
        rb_word forbidden
        rb_word dead_letters
        rb_word orphans
        rb_word lost
        rb_word lost_by[5]
        rb_word redelivered
        rb_word violations
        rb_word types_known
        rb_word patterns
        rb_word events_lost
        rb_word backlogs_failed
        rb_word mailboxes_failed
        rb_word cancels
        rb_word cancels_lost
        rb_word credits_lost
        rb_word passes
        rb_word latency_count
        rb_word latency_sum_ns
        rb_word latency_max_ns
        rb_word latency[256]
        rb_word deaths[8]
        sb_death last_deaths[16]
        sb_last_loss last_losses[16]
        sb_keyed keyed[16]
    struct sb_ready:
        rb_prefix prefix
    struct sb_outgoing:
        rb_word head
        rb_word need
        rb_word interests_version
        rb_word interests_serial
        rb_word high
    struct sb_incoming:
        rb_word tail
        rb_word taken
        rb_word taken_count
    struct sb_held_entry:
        rb_word position
        rb_word done
        rb_word returned
        rb_word settled
    struct sb_let_go:
        rb_word at
        rb_word returned
        uint8_t record[432]
    struct sb_share:
        rb_word share
        rb_word pool
        rb_word block
        rb_word bytes
    struct sb_use:
        rb_word use
        rb_word bytes
    struct sb_pool:
        rb_prefix prefix
        uint64_t slot
        uint64_t generation
        uint64_t bytes
        rb_word shares_used
        sb_share shares[512]
        sb_use blocks[512]
    struct sb_limited:
        rb_word limit_ns
        rb_word whom
        rb_word kind
        rb_word type_length
        uint8_t id[16]
        char source[88]
        char type[256]
    struct sb_had:
        rb_word interest
        rb_word whom
        rb_word received
        rb_word taken
        rb_word lost_before
        rb_word lost
    struct sb_pending:
        uint8_t id[16]
        uint64_t deadline_ns
        rb_word state
    struct sb_up:
        rb_prefix prefix
        sb_identity identity
        uint64_t nonce
        uint64_t stays
        uint64_t prefetch
        uint64_t pool_limit
        uint64_t loans
        char name[64]
        sb_ring_descriptor outgoing_ring[2]
        sb_ring_descriptor incoming_ring[3]
        uint64_t pending_count
        uint64_t pending_offset
        rb_word state
        rb_word first_limit_ns
        rb_word pool_asked
        rb_word shares_ended
        sb_outgoing outgoing[2]
        sb_incoming incoming[3]
        rb_word bell
        rb_word event
        rb_word event_wants
        rb_word in_hand
        rb_word in_hand_since_ns
        rb_word work_done
        rb_word receivers
        rb_word progress_ns
        rb_word sent_events
        rb_word sent_sends
        rb_word sent_requests
        rb_word sent_replies
        rb_word received_events
        rb_word received_sends
        rb_word received_requests
        rb_word received_replies
        rb_word sent_parts
        rb_word received_parts
        rb_word streaming
        rb_word orphans
        rb_word expired
        rb_word withdrawn
        rb_word handler_errors
        rb_word decode_errors
        rb_word timeouts
        rb_word nacked
        rb_word let_go
        rb_word let_go_unkept
        rb_word let_go_from
        rb_word watcher
        rb_word pool_bytes
        rb_word pool_reserved
        rb_word pool_in_use
        rb_word pool_need
        rb_word pool_waits
        rb_word copied
        sb_had had[32]
        sb_held_entry held[64]
        sb_let_go kept[16]
        rb_word limits[48]
        sb_limited limited[48]
    struct sb_down_incoming:
        rb_word head
        rb_word need
        rb_word delivered
        rb_word high
        rb_word reclaim
        rb_word reclaim_bits
        rb_word wanted
    struct sb_down_outgoing:
        rb_word tail
        rb_word last
    struct sb_target:
        uint8_t id[16]
        rb_word whom
        rb_word done
    struct sb_todo_target:
        rb_word whom
        rb_word bits
    struct sb_todo:
        rb_word from_ "from"
        rb_word to
        rb_word count
    struct sb_down:
        rb_prefix prefix
        uint64_t slot
        uint64_t generation
        sb_ring_descriptor incoming_ring[3]
        uint64_t target_count
        uint64_t target_offset
        uint64_t todo_count
        uint64_t todo_offset
        uint64_t rights_offset
        rb_word state
        rb_word interests_seen
        rb_word refused
        rb_word refused_why
        rb_word event_known
        sb_down_outgoing outgoing[2]
        sb_down_incoming incoming[3]
        rb_word lost
        rb_word lost_by[5]
        rb_word mailbox_lost
        rb_word lost_untold
        rb_word undeliverable
        rb_word unrouted
        rb_word redelivered
        rb_word forwarded
        rb_word overruns
        rb_word retained_number
        rb_word retained_to
        rb_word history_read
        rb_word waiting[16]
        rb_word limits_told[48]
        rb_word mailbox[32]
        rb_word pool_granted
        rb_word returned[512]
        sb_todo todo
    struct sb_rights:
        uint64_t bytes
        rb_word refused
        rb_word told
        rb_word seq
        rb_word right
        char type[256]
    struct sb_backlog:
        sb_down down
        uint64_t former
        uint64_t whom
        uint64_t interest
        uint64_t number
        char group[64]
        char type[256]
    struct sb_cell:
        rb_word number
        rb_word next
    struct sb_value:
        sb_cell cell
        uint64_t whom
        uint64_t end
    struct sb_mailbox:
        sb_down down
        uint64_t owner
        uint64_t interest
        uint64_t index
        uint64_t latest
        uint64_t depth
        uint64_t entries_offset
        uint64_t cell_count
        uint64_t cells_offset
        uint64_t filled_to
        rb_word used
        char pattern[256]
    struct sb_mail:
        rb_word number
        rb_word at
    struct sb_mail_cell:
        rb_word next
        rb_word words[63]
    struct sb_interest:
        uint32_t length
        uint8_t op
        uint8_t role
        uint8_t bit
        uint8_t flags
        uint64_t id
        uint16_t pattern_length
        uint16_t group_length
        uint32_t description_length
        uint32_t history
        uint32_t depth
        uint32_t key
        uint32_t mailbox
    struct sb_interests:
        rb_prefix prefix
        rb_word bytes
        uint64_t reserved[7]
