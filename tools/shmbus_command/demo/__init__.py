"""The main job on real input: source files indexed by processes that share nothing but a bus.

`sources` is what is done, `roles` who does it (one process each, complete small programs),
`play` puts them on a bus, kills one half-way and checks what comes out.
"""
