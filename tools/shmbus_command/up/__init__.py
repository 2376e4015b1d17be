"""``shmbus up``: a bus and its processes, from a file.

`command` is the command line. `file` reads the file, `printed` takes what the processes print,
`status` shows how they are, `notify` tells systemd, `orphans` reaps as a container's first process
does. `controls` has the commands for what runs: ``shmbus restart``, ``logs`` and ``reload``.
"""
