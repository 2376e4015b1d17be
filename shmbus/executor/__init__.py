"""Functions called in other processes: an executor's tasks are requests on a bus, which its workers
handle.

Within the package, modules import from the module that defines a name.
"""
