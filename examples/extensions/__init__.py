"""A host with extensions: each is found by its entry point, and runs in a process of its own, which
the host starts, restarts and stops, and which may do what the host lets it.

    cd examples && python -m extensions

`found` finds them and says what each may do; `host` runs them; `samples/` is a package with some,
of which one works and the others misbehave; `installed` makes such a package known to a process
without installing it.
"""
