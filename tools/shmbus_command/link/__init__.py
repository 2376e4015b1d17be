"""``shmbus link`` and ``shmbus ping``: a bus joined to those of other machines.

`command` is the command line, `options` makes a config of it, `checking` shows what that says.
`running` is the process that the user sees: it starts the link in a `child`, again where that ends,
and has a keeper for what waits meanwhile. `status` shows how a link that runs is, `pinging`
measures the way to a site: both ask over the bus.
"""
