"""Large payloads in an event loop."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import shmbus
from shmbus import errors
from tests.endpoint.looks import info, no_descriptor_left

from .stage import AioAttach

FRAME = np.arange(1 << 17, dtype=np.int64)


@pytest.mark.smoke
async def test_an_array_is_looked_at_and_let_go_of(bus: shmbus.Bus, attach: AioAttach) -> None:
    async with attach("camera") as camera, attach("viewer") as viewer:
        frames = aiter(await viewer.subscribe("frame"))
        await camera.publish("frame", FRAME)
        message = await anext(frames)
        frame = message.payload
        assert np.array_equal(frame, FRAME)
        assert not frame.flags.writeable
        with pytest.raises(BufferError):
            message.release()
        del frame
        message.release()
        with pytest.raises(errors.PayloadReleased):
            message.payload  # noqa: B018
        while any(pool.holders for pool in bus.pools()):
            await asyncio.sleep(0.001)


async def test_a_reply_and_parts_outlive_their_endpoint(attach: AioAttach) -> None:
    async with attach("server") as server:
        server.handle("double", lambda message: message.payload * 2)
        server.handle("rows", lambda message: (message.payload + n for n in range(3)))
        server.start()
        async with attach("one") as one:
            double = (await one.request("double", FRAME)).payload
            async with one.stream("rows", FRAME) as stream:
                rows = [part.payload async for part in stream]
        assert np.array_equal(double, FRAME * 2)
        assert [int(row[0]) for row in rows] == [0, 1, 2]


async def test_a_callback_gets_later_what_found_no_descriptor(
    bus: shmbus.Bus, attach: AioAttach, caplog: pytest.LogCaptureFixture
) -> None:
    async with attach("camera") as camera, attach("viewer") as viewer:
        got = asyncio.get_running_loop().create_future()
        await viewer.subscribe("frame", lambda message: got.set_result(message.payload))
        viewer.start()
        await camera.publish("nobody", FRAME)  # that makes its pool
        while info(bus, "camera").unforwarded:
            await asyncio.sleep(0.001)
        with no_descriptor_left():
            await camera.publish("frame", FRAME)
            while "ulimit -n" not in caplog.text:
                await asyncio.sleep(0.001)
            assert not got.done()
        async with asyncio.timeout(60):
            assert np.array_equal(await got, FRAME)
        assert len(caplog.records) == 1
