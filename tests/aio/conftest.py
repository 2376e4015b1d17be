"""Asynchronous tests: each runs on asyncio and, where it is installed, on uvloop, and leaves no
task, no warning and no exception behind that nobody has seen."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import shmbus.aio
from shmbus.aio.attach import Attaching
from shmbus.testing import TIMEOUT

from .stage import AioAttach

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("loop_factory")
    if "loop_factory" in metafunc.fixturenames:
        metafunc.parametrize("loop_factory", list(LOOPS.values()), ids=list(LOOPS))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def test() -> None:
        async with asyncio.timeout(TIMEOUT):
            await pyfuncitem.obj(**arguments)

    factory: Any = pyfuncitem.callspec.params["loop_factory"]
    with asyncio.Runner(debug=True, loop_factory=factory) as runner:
        runner.run(test())
    return True


@pytest.fixture(autouse=True)
def _nothing_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What asyncio logs is what nobody has seen: an exception, or a task that was destroyed."""
    yield
    gc.collect()
    records = [record for record in caplog.get_records("call") if record.name == "asyncio"]
    assert [r.getMessage() for r in records if r.levelno >= logging.ERROR] == []


@pytest.fixture
def attach(bus: shmbus.Bus) -> AioAttach:
    """`shmbus.aio.attach` to the test's bus: to be awaited, or used in `async with`."""

    def attach(name: str, **options: Any) -> Attaching:
        return shmbus.aio.attach(bus.name, name=name, **options)

    return attach
