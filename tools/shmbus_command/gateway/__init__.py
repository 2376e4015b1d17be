"""``shmbus gateway``: a bus for programs in any language, as lines of JSON.

`command` is the command line. `lines` says what a line from a client may be, `framing` finds the
lines in bytes. A `session` is one client with its endpoint: it does what the lines say; `asking`
has its requests, `inbox` shows the messages that come and knows which of them are in its hand, with
`giving` for replies in parts; `output` writes lines, `wording` its errors. Clients come by a Unix
socket (`listening`) or by the standard streams (`pumps`); `absence` sees when one has gone.
"""
