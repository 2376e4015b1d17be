"""``shmbus up``: a bus and its processes, from a file.

`command` is the command line. `file` reads the file, `checking` shows what it says, `running` is
what happens then: `printed` takes what the processes print, `notify` tells systemd, `orphans` reaps
as a container's first process does. `status` shows how they are; `controls` has the commands for
what runs, ``shmbus restart``, ``logs`` and ``reload``.
"""
