"""Numbers that bound what users choose.

Written by tools/build/layout.py from the headers; do not edit.
"""

MAX_TYPE = 255  # bytes of a type or a pattern
MAX_NAME = 48  # characters; the bus's name must fit into a socket's path, of 108 bytes
MAX_SITE = 32  # characters of the name of a site
REQUEST_RESERVE = 256  # bytes of the incoming reply ring, for the errors of one request
GROUPS = 32  # bits of `interests`: plain subscriptions and 31 groups
HELD = 64  # messages that an endpoint may have begun and not done, kept for handing on
RINGS = 2  # from an endpoint
RINGS_IN = 3  # to an endpoint
URGENT_BYTES = 8192  # of the incoming ring for what is urgent
MAX_SLOTS = 1024
MAILBOXES = 192  # at a time; mailbox i has the slot SB_FIRST_MAILBOX + i wherever slots are named
OWN_MAILBOXES = 32  # of one endpoint, at a time
OWN_MATCHINGS = 64  # patterns of SB_ROLE_MATCH of one endpoint, at a time
MAX_DEPTH = 65536  # messages, or types, that a mailbox may hold
MAX_REQUESTS = 65535  # a request's index has 16 bits
KEYED_GROUPS = 16  # groups with a key, at a time
MEMBERS = 64  # of one of these, with those that have left it and are not done
SHARES = 512  # blocks that a receiver may hold at a time, whatever its setting `loans`
GRANTED = 128  # patterns of a grant, which are looked through for a type that is new
