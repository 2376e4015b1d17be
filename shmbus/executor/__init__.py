"""Functions called in other processes: an executor's tasks are requests on a bus, which its workers
handle.

Public: import from here. Within the package, modules import from the module that defines a name.
"""

from .joining import work
from .worker import report

__all__ = ["report", "work"]
