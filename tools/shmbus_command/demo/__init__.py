"""``shmbus demo``: source files indexed by processes over a bus.

`command` is the command line. `sources` is the work, `roles` the processes that do it (each a
complete small program), `play` starts them, kills one half-way and checks the result.
"""
