"""A queue that cannot be used."""

from __future__ import annotations

from .groups import SetupError, UsageError


class QueueClosed(UsageError, ValueError, OSError):
    """This process closed the queue. Both what multiprocessing's queues raise."""

    queue: str

    def _explain(self) -> str:
        return (
            f"queue {self.queue!r} is closed in this process. Close it after its last use, or make "
            "another"
        )


class QueueGone(SetupError):
    """A queue that was passed to this process is not there any more."""

    queue: str

    def _explain(self) -> str:
        return (
            f"queue {self.queue!r} is gone: all that used it have ended, the process that passed "
            "it too. Keep that process until its children have begun"
        )
