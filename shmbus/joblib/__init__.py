"""joblib's backend "shmbus". Importing this makes it known to joblib:

import joblib
import shmbus.joblib

with joblib.parallel_config(backend="shmbus"):
    ...
"""

from joblib import register_parallel_backend

from .backend import Backend
from .kept import shutdown

__all__ = ["Backend", "shutdown"]

register_parallel_backend("shmbus", Backend)
