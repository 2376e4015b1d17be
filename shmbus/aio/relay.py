"""What links build on: `Relay`, which is what an endpoint of theirs can do beyond users' ones.

`attach_as` attaches it. Nothing of `shmbus.aio` but this, and what its modules name without an
underscore, is used in `shmbus.links`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shmbus.endpoint.subscribing import Subscription as Synchronous

from .line import NO_LINE
from .posting import EVENT
from .subscribing import Callback, Subscription
from .threads import in_thread

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Job

    from .endpoint import Endpoint


class Relay:
    """That of one endpoint, in its loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._looped, self._posting = endpoint._looped, endpoint._posting
        self.name = endpoint.name
        turns = self._turns = endpoint._turns
        self.jobs = turns.jobs
        """Messages of the bus that are worked on."""
        self.take_by, self.again = turns.take_by, turns.again
        """Have a function take, in each turn, what no callback gets; have a turn soon."""
        self.watch, self.watch_elsewhere = turns.begin, turns.watch_elsewhere
        """The loop watches the event, as it does at first, or another thread does."""
        self.work, self.arm = turns.work, turns.arm
        """What that thread calls in the loop's place; see `Turns`."""
        self.linger, self.slept = self._looped.linger, self._looped.slept
        """And before it sleeps and after it has; see the kernel."""
        self.take_run = self._looped.take_run
        """The payloads of an event that was taken, and of those behind it that are alike, and when
        each was sent."""
        self.post_run = self._looped.post_run
        """Publish events of another bus, from that number on: `NO_LINE`, or the line in which the
        one at `run_at` is to wait. What it raises is of that one, too."""
        self.together = self._posting.together
        """Send messages by one store; see `Posting.together`."""
        requests = endpoint._requests
        self.ask, self.begin, self.give_up = requests.ask, requests.begin, requests.give_up
        """Make a request; make one without a task, and withdraw it; see `Requests`."""

    # Events ----------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether there are more messages, and others are to have a turn before them."""
        return self._looped.paused

    @property
    def run_at(self) -> int:
        """Up to which event the last call of `post_run` has come."""
        return self._looped.run_at

    def announce(self, type: str, event: object) -> None:
        """Publish an event, or drop it where there is no space now. Raises like `publish`."""
        self._looped.post(EVENT, 0, type, event, NO_LINE)

    async def publish_in_line(self, line: int, flags: int, type: str, payload: object) -> None:
        """Publish an event that has found no space, once there is some."""
        await self._posting.in_line(line, EVENT, flags, type, payload, None)

    # Handlers --------------------------------------------------------------------------------

    async def handle(
        self,
        pattern: str,
        function: Callback,
        *,
        redeliver: bool = False,
        begin: Callable[[Job], object] | None = None,
    ) -> Subscription:
        """Like `Endpoint.handle`, until the subscription is closed, and without holding the loop
        up. `function`: a plain one may be given, too; it returns a coroutine, or an asynchronous
        generator, as each message wants. `begin`: called in a turn, for each message; it may leave
        the job to `Jobs.begin`, or do it without a task (`Jobs.begin_without_task`)."""
        endpoint = self._endpoint
        endpoint._here()
        gate = endpoint._gates.of_jobs(None, begin)
        inner = await in_thread(
            endpoint.name,
            "handling",
            lambda: endpoint._inner._subscribing.handle(
                pattern, function, payload_type=None, redeliver=redeliver, limit=None, gate=gate
            ),
            undo=Synchronous.close,
        )
        return Subscription(inner, endpoint._apart)

    # Others ----------------------------------------------------------------------------------

    def note(self, key: str, text: bytes | None) -> None:
        """Have observers read this of it, in place of what was noted under that key before; None:
        nothing any more."""
        self._endpoint._here()
        self._endpoint._inner._note(key, text)

    @property
    def unserved(self) -> bool:
        """Whether nobody serves the bus now, or the endpoint has left it."""
        return self._endpoint._inner._connection.trouble() != 0

    async def leave(self) -> None:
        """Close the endpoint, without waiting for tasks at work: they are cancelled."""
        await self._endpoint._ending.close(0.0)
