"""The bus for programs on asyncio: the names and meanings of `shmbus`, to be awaited.

    async with shmbus.aio.attach("symphony", name="ui") as ep:
        await ep.publish("cursor.moved", {"line": 3})
        reply = await ep.request("buffer.read", {"line": 3})

An endpoint belongs to the event loop in which it was attached, asyncio's own or uvloop.
"""

from shmbus.endpoint._kernel import LoopStream as Stream

from .attach import attach
from .endpoint import Endpoint
from .lending import Loan
from .subscribing import Subscription

__all__ = ["Endpoint", "Loan", "Stream", "Subscription", "attach"]
