# What an endpoint writes into its own segments before, or beside, its traffic.


def up_size(uint64_t out_bytes, uint64_t reply_bytes, uint64_t requests):
    """Bytes of an endpoint's own segment."""
    return ep_up_size(out_bytes, reply_bytes, requests)


def prepare_up(mapping, *, uint32_t pid, uint32_t uid, uint64_t start_time, uint64_t pid_namespace,
               uint64_t time_namespace, uint64_t nonce, bint stays, bytes name, uint64_t in_bytes,
               uint64_t out_bytes, uint64_t reply_bytes, uint64_t requests, uint64_t prefetch,
               uint64_t pool_limit, uint64_t loans):
    """Write all that an endpoint's own segment must hold before another process may open it."""
    cdef sb_identity identity
    if <uint64_t>len(mapping) < ep_up_size(out_bytes, reply_bytes, requests) or len(name) >= SB_NAME:
        raise ValueError("the segment is too small, or the name too long")
    identity.pid, identity.uid, identity.start_time = pid, uid, start_time
    identity.pid_namespace, identity.time_namespace = pid_namespace, time_namespace
    cdef uintptr_t address = mapping.address
    cdef sb_up *up = <sb_up *>address
    ep_up_prepare(up, &identity, nonce, name, in_bytes, out_bytes, reply_bytes, requests, prefetch)
    up.stays, up.pool_limit, up.loans = stays, pool_limit, loans


def append_interest(log, entry):
    """Add an `interest_log.Entry` to the log in the mapping `log`: False where it is full."""
    cdef ep_interest_log at
    cdef sb_interest fixed
    cdef bytes pattern = entry.pattern
    cdef bytes group = entry.group
    cdef bytes description = entry.description
    cdef uintptr_t address = log.address
    at.segment = <sb_interests *>address
    at.size = len(log)
    fixed.op, fixed.role, fixed.bit, fixed.flags, fixed.id = entry.op, entry.role, entry.bit, entry.flags, entry.id
    fixed.pattern_length, fixed.group_length = len(pattern), len(group)
    fixed.description_length = len(description)
    fixed.history, fixed.depth, fixed.key, fixed.mailbox = (
        entry.history, entry.depth, entry.key, entry.mailbox)
    return ep_append_interest(&at, &fixed, pattern, group, description)
