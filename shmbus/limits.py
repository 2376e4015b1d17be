"""Numbers that bound what can be set on a bus.

Written by tools/build/layout.py from the headers; do not edit.
"""

REQUEST_RESERVE = 256  # bytes of the incoming reply ring kept for the errors of one request
HELD = 64  # messages that an endpoint may have begun and not done, kept for handing on
MAX_SLOTS = 1024
MAX_REQUESTS = 65535  # a request's index has 16 bits
RINGS = 2  # each way
