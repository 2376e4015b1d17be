"""``shmbus bench``: a bus between processes on this machine, measured.

`command` is the command line. `measuring` is the near end, which makes the `figures`; `roles` are
the other processes, which `processes` starts and ends. `comparing` holds figures against those of
an earlier run, `plot` draws them.
"""
