"""Processes of a bus, started in order, started again where they die, and stopped.

Public: import from here. Within the package, modules import from the module that defines a name.
"""

from .control import Control
from .grants import Grants
from .process import Backoff, Process, check_processes
from .status import Line, ProcessEvent, ProcessStatus
from .supervisor import Supervisor, supervise

__all__ = [
    "Backoff",
    "Control",
    "Grants",
    "Line",
    "Process",
    "ProcessEvent",
    "ProcessStatus",
    "Supervisor",
    "check_processes",
    "supervise",
]
