"""A handler that defers each request and keeps it, so that it stays in hand, unanswered."""

from __future__ import annotations

from shmbus import Message


class Kept(list[Message]):
    """The requests that it was called with."""

    def __call__(self, message: Message) -> None:
        message.defer()
        self.append(message)
