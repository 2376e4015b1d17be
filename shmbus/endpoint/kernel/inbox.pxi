# Taking messages from the incoming data ring.


@cython.final
@cython.no_gc_clear              # see EndpointCore
cdef class Inbox:
    """Takes the next message, holds it where it is to be handed on at a death, and counts it as in hand."""

    cdef Connection _connection
    cdef Threads _threads
    cdef CallbackTable _callbacks
    cdef uint64_t _lives         # SB_LIVE that were taken
    cdef object _explain_unmapped   # of Upcalls
    cdef Message _spare          # made for a look that found nothing, and still empty

    def __cinit__(self, Connection connection not None, Threads threads not None, CallbackTable callbacks not None,
                  explain_unmapped):
        self._connection = connection
        self._explain_unmapped = explain_unmapped
        self._threads = threads
        self._callbacks = callbacks

    cdef inline bint _skips(self, const sb_record *header) noexcept:
        """Under the lock. Whether to skip it: its kind is of a later version, its deadline is over, or it was
        withdrawn."""
        cdef ep_endpoint *e = self._connection.e
        if header.kind == SB_LIVE:
            self._note_live(header)
            return True
        if header.kind != SB_EVENT and header.kind != SB_SEND and header.kind != SB_REQUEST:
            return True
        if header.kind != SB_REQUEST:
            return False
        if header.deadline_ns and header.deadline_ns < rb_now():
            rb_add(&e.up.expired, 1)
            return True
        ep_drain_new_replies(e)
        if ep_withdrawn(e, header):
            rb_add(&e.up.withdrawn, 1)
            return True
        return False

    cdef ep_share *_enter(self, const sb_record *header, const uint8_t *record, uint32_t box, bint held) noexcept:
        """Under the lock. The share of a payload that lies in a pool."""
        cdef ep_endpoint *e = self._connection.e
        cdef ep_share *share = e.mail_share
        if box == SB_OWN_MAILBOXES:
            return ep_enter_peeked(e, header, record, held)
        e.mail_share = NULL
        return share

    cdef void _pass_over(self, const sb_record *header) noexcept:
        """Under the lock, which it gives back. It is taken, and nobody wants it; `interests` 0: it was lost
        meanwhile, or was a request that is over."""
        cdef ep_endpoint *e = self._connection.e
        if header.kind == SB_REQUEST and not header.interests:
            self._count_over(header)
        ep_take(e, header, SB_HELD_DONE)
        if header.flags & SB_POOLED:
            ep_pass_share(e)
        ep_unlock(e)

    cdef inline void _count_over(self, const sb_record *header) noexcept:
        """Under the lock. A request that was revoked: its deadline is over, or else it was withdrawn."""
        cdef ep_endpoint *e = self._connection.e
        rb_add(&e.up.expired if 0 < header.deadline_ns < rb_now() else &e.up.withdrawn, 1)

    cdef void _note_live(self, const sb_record *header) noexcept:
        """Under the lock. A subscription has all that was kept; this runs no Python code."""
        self._lives += 1
        late = self._callbacks.late.get(header.deadline_ns)
        if late is not None:
            (<Late>late).number = kept_number(header)
            (<Late>late).since = self._lives

    cdef Message take(self, EndpointCore endpoint, unsigned long thread):
        """The next message, or None if there is none."""
        cdef ep_endpoint *e = self._connection.e
        cdef sb_record header
        cdef const uint8_t *record
        cdef Py_ssize_t offset
        cdef PyObject *raw
        cdef Share share
        cdef Viewed viewed
        cdef Origin origin
        cdef Py_ssize_t size
        cdef bint lacking
        cdef bint gone
        cdef int unmapped
        cdef uint64_t hold
        cdef uint64_t position
        cdef uint32_t lost
        cdef uint64_t cancels
        cdef uint64_t lives
        cdef sb_tap tap
        cdef char kept_by[SB_NAME + 1]
        cdef sb_grant grant
        cdef uint32_t box
        self._threads.reserve()
        cdef Hand *hand = self._threads.hand(thread)
        cdef Callbacks callbacks
        cdef Message m
        cdef str name
        kept_by[0] = 0
        memset(&tap, 0, sizeof(sb_tap))
        grant.bytes = 0
        if hand != NULL and hand.held != NULL:
            self._threads.put_down(thread)
            hand = NULL
        m, self._spare = self._spare, None
        if m is None:            # first: what is taken must not be lost where there is no memory
            m = Message.__new__(Message)
        while True:
            ep_lock(e)
            if e.mailbox_count and ep_mail_unmapped(e) != SB_OWN_MAILBOXES:
                ep_unlock(e)
                self._connection.map_mailboxes()
                continue
            box = ep_next_mail(e, &header, False)
            if box == SB_OWN_MAILBOXES and ep_peek(e, &header, &record) != RB_OK:
                box = ep_next_mail(e, &header, True)
                if box == SB_OWN_MAILBOXES:
                    ep_unlock(e)
                    self._spare = m
                    return None
            if box != SB_OWN_MAILBOXES:
                record = e.mail
            elif header.flags & SB_POOLED and not header.interests:
                self._pass_over(&header)
                continue
            elif header.kind == SB_TAP and header.extension_length >= sizeof(sb_tap):
                memcpy(&tap, record + SB_HEADER + header.type_length, sizeof(sb_tap))
            elif self._skips(&header):
                self._pass_over(&header)
                continue
            name = self._callbacks.type_of(<const char *>record + SB_HEADER, header.type_length)
            if name is None:
                ep_unlock(e)
                raise MemoryError
            hold = SB_HELD_DONE
            if header.kind == SB_SEND:
                hold = SB_HELD_FINAL
            elif header.kind == SB_EVENT and header.interests & ~<uint32_t>SB_PLAIN:
                hold = SB_HELD_OPEN
            if self._callbacks.redelivers and hold == SB_HELD_FINAL:
                callbacks = self._callbacks.known(name)
                if callbacks is None:
                    ep_unlock(e)
                    self._callbacks.find(name)
                    self._threads.reserve()  # that ran Python code: other threads may have taken messages
                    hand = self._threads.hand(thread)
                    continue
                if callbacks.redeliver:
                    hold = SB_HELD_OPEN
            if header.flags & SB_STREAM and header.extension_length >= sizeof(sb_grant):
                memcpy(&grant, record + SB_HEADER + header.type_length, sizeof(sb_grant))
            raw = NULL
            share = None
            viewed = None
            origin = None
            lacking = False
            if header.flags & SB_RELAYED:
                origin = free_origin()
                lacking = origin is None
            if lacking:
                pass
            elif header.flags & SB_POOLED:
                share = free_share()
                if share is not None:
                    share.at = self._enter(&header, record, box, hold != SB_HELD_DONE)
                    if share.at != NULL and box == SB_OWN_MAILBOXES and ep_drop_revoked(share.at, record):
                        share.at = NULL
                        header.interests = 0
                        self._pass_over(&header)
                        continue
            else:
                offset = <Py_ssize_t>sb_payload_offset(&header)
                size = <Py_ssize_t>header.length - offset
                if origin is not None:
                    size = take_origin(origin, record + offset, size)
                if header.flags & SB_FRAMED:
                    viewed = aligned_copy(record + offset, size)
                else:
                    raw = sb_new_bytes(<const char *>record + offset, size)
            if raw == NULL and viewed is None and (share is None or share.at == NULL):
                gone = share is not None and ep_out_of_shares(e)
                unmapped, e.unmapped = e.unmapped, 0
                ep_unlock(e)
                if gone:
                    return None
                if unmapped:
                    raise self._explain_unmapped(
                        unmapped, name, self._connection.peers.of(header.peer, header.peer_generation))
                raise MemoryError
            if header.flags & SB_RETAINED and header.extension_length <= SB_NAME:
                memcpy(kept_by, record + SB_HEADER + header.type_length, header.extension_length)
                kept_by[header.extension_length] = 0
            if hand == NULL:
                hand = self._threads.begin(thread)  # first: in between the dispatcher must not think us free
            ep_mark_progress(e)
            if box != SB_OWN_MAILBOXES:
                position = SB_NOWHERE
                lost = header.lost
                ep_take_mail(e, box)
                rb_add(&e.up.received_events, 1)
            else:
                position = ep_take(e, &header, hold)
                lost = ep_lost_before(e, &header)
                e.mail_first = True
            self._threads.took(hand, hold != SB_HELD_DONE or header.kind == SB_REQUEST)
            cancels = e.cancels_seen
            lives = self._lives
            ep_pass_on_data(e)
            ep_unlock(e)
            break
        m._connection = self._connection
        m._endpoint = endpoint
        if raw != NULL:
            m._raw = <bytes><object>raw
            Py_XDECREF(raw)
        else:
            m._raw, m._share, m._viewed = b"", share, viewed
            if share is not None:
                share.settle(True)
                if origin is not None:
                    take_shared_origin(origin, share)
        m._header = header
        m._position = position if hold != SB_HELD_DONE else SB_NOWHERE
        if hold != SB_HELD_DONE:
            hand = self._threads.hand(thread)
            if hand != NULL:
                hand.held = <PyObject *>m
                Py_INCREF(hand.held)
        if header.flags & SB_ALONE and header.kind == SB_EVENT:
            m._alone = header.deadline_ns
            m._header.deadline_ns = 0
        m.type = name
        m.source = self._connection.peers.of(header.peer, header.peer_generation)
        if kept_by[0]:           # who may be gone
            m.source = (<bytes>kept_by).decode("ascii", "replace")
        m.lost = lost
        if origin is not None:
            m.came_from(origin)
        m._cancels = cancels
        m._lives = lives
        m._granted = grant.bytes
        m._payload = UNDECODED
        m._tap = tap
        if header.kind == SB_TAP and tap.target != SB_FROM_BUS:
            m._target = self._connection.peers.of(tap.target, tap.target_generation)
        return m
