"""The fixtures, and what pytest is told of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import pytest

from shmbus import errors
from shmbus.bus import Bus, serve
from shmbus.endpoint import attach as attaching
from shmbus.endpoint.endpoint import Endpoint
from shmbus.settings import Settings
from shmbus.shared.grants import Grant
from shmbus.views.observe import observe

from .child import Task, function_of
from .leavings import fail_for, in_shm, no_leavings, of_this_process
from .options import AioAttachOptions, AttachOptions, WorkerOptions
from .processes import BusProcess, Worker
from .recorder import Recorder
from .waiting import TIMEOUT

if TYPE_CHECKING:
    from shmbus.aio.attach import Attaching


class Attach(Protocol):
    """The type of the fixture `attach`."""

    def __call__(self, name: str | None = None, **options: Unpack[AttachOptions]) -> Endpoint: ...


class AioAttach(Protocol):
    """The type of the fixture `aio_attach`."""

    def __call__(
        self, name: str | None = None, **options: Unpack[AioAttachOptions]
    ) -> Attaching: ...


class MakeRecorder(Protocol):
    """The type of the fixture `recorder`."""

    def __call__(
        self,
        *patterns: str,
        handles: Iterable[str] = (),
        name: str | None = None,
        **options: Unpack[AttachOptions],
    ) -> Recorder: ...


class StartWorker(Protocol):
    """The type of the fixture `worker`."""

    def __call__(
        self,
        function: Callable[..., Any] | str | Path,
        *arguments: Any,
        name: str | None = None,
        **options: Unpack[WorkerOptions],
    ) -> Worker: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "shmbus_leak_check",
        "fail every test after which this process has more in /dev/shm than before",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "bus(**settings): the shmbus.Settings of this test's bus, e.g. in_bytes=4096"
    )


@pytest.fixture(autouse=True)
def _shmbus_leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.config.getini("shmbus_leak_check"):
        yield
        return
    before = of_this_process()
    yield
    fail_for(of_this_process() - before, "this test left in /dev/shm")


@pytest.fixture
def bus_name() -> Iterator[str]:
    """A bus name that nobody else has, of which nothing may be left when the test has ended."""
    name = f"test-{os.getpid()}-{secrets.token_hex(4)}"
    with no_leavings(name):
        yield name


@pytest.fixture
def bus_settings(request: pytest.FixtureRequest) -> Settings:
    """The settings of the test's bus: by the marker `bus(...)`, or the default ones. Override it to
    have others for a whole module."""
    marker = request.node.get_closest_marker("bus")
    return Settings(**marker.kwargs) if marker else Settings()


@pytest.fixture
def bus_grants() -> dict[str, Grant | None] | None:
    """What endpoints of other processes than the bus's may do, by name, as `shmbus.serve` takes it;
    None: everything. Override it where that is what you test."""
    return None


@pytest.fixture
def bus(
    bus_name: str, bus_settings: Settings, bus_grants: dict[str, Grant | None] | None
) -> Iterator[Bus]:
    """A bus of the test's own, served in this process."""
    with serve(bus_name, settings=bus_settings, grants=bus_grants) as bus:
        yield bus


@pytest.fixture
def bus_process(
    bus_name: str, bus_settings: Settings, bus_grants: dict[str, Grant | None] | None
) -> Iterator[BusProcess]:
    """A bus of the test's own, served in a process of its own that can be killed and started
    again."""
    process = BusProcess(bus_name, bus_settings, bus_grants)
    try:
        process.start()
        yield process
    finally:
        process._end()
        if in_shm(bus_name):  # a killed dispatcher leaves the bus to the next one, which cleans up
            serve(bus_name, settings=bus_settings).close()


@pytest.fixture
def _served(request: pytest.FixtureRequest) -> bool:
    """The bus comes before what attaches to it, and goes after it, however a test lists them.
    False: the test is to serve it."""
    named = [one for one in ("bus", "bus_process") if one in request.fixturenames]
    for fixture in named:
        request.getfixturevalue(fixture)
    return bool(named)


def _require_bus(name: str, served: bool, options: WorkerOptions) -> None:
    """Fail at once where nobody serves the test's bus, unless the test says how long to wait."""
    if served or "timeout" in options:
        return
    try:
        with observe(name) as view:
            if view.info().alive:
                return
    except errors.NoSuchBus:
        pass
    raise AssertionError(
        f"nobody serves bus {name!r}: name `bus` or `bus_process` among the fixtures of the test, "
        "serve `bus_name` before, or give a timeout= for which to wait until somebody does"
    )


@pytest.fixture
def attach(bus_name: str, _served: bool) -> Iterator[Attach]:
    """`attach(name, **options)`: an endpoint of this process on the test's bus, with the arguments
    of `shmbus.attach`; closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def attach(name: str | None = None, **options: Unpack[AttachOptions]) -> Endpoint:
            _require_bus(bus_name, _served, options)
            options.setdefault("timeout", TIMEOUT)
            endpoint = attaching.attach(bus_name, name=name, **options)
            stack.callback(_close, endpoint)
            return endpoint

        yield attach


@pytest.fixture
def aio_attach(bus_name: str, _served: bool) -> AioAttach:
    """`aio_attach(name, **options)`: an endpoint of the test's event loop on the test's bus, with
    the arguments of `shmbus.aio.attach`, to be used in `async with`."""
    from shmbus.aio import attach as attach_to_loop  # asyncio is for those who use it

    def aio_attach(name: str | None = None, **options: Unpack[AioAttachOptions]) -> Attaching:
        _require_bus(bus_name, _served, options)
        options.setdefault("timeout", TIMEOUT)
        return attach_to_loop(bus_name, name=name, **options)

    return aio_attach


@pytest.fixture
def recorder(attach: Attach) -> MakeRecorder:
    """`recorder(*patterns, handles=(), name=None, **options)`: an endpoint that keeps the events,
    and the commands and requests, that match; `name` and the options are those of `attach`."""

    def recorder(
        *patterns: str,
        handles: Iterable[str] = (),
        name: str | None = None,
        **options: Unpack[AttachOptions],
    ) -> Recorder:
        return Recorder(attach(name, **options), patterns, handles)

    return recorder


@pytest.fixture
def worker(bus_name: str, _served: bool) -> Iterator[StartWorker]:
    """`worker(function, *arguments, name=None, **options)`: calls `function(endpoint, *arguments)`
    in a process of its own, with an endpoint on the test's bus (`name`, `timeout`, `settings` and
    `reconnect`: see `shmbus.attach`); returns when that is attached. An `async def` runs in an
    event loop, with an endpoint of `shmbus.aio`. The function stands at the top of its module;
    arguments and result are plain values. What it raises is printed on standard error. It gets
    SIGTERM when the test ends, as a SystemExit in its main thread.

    `worker(path, *arguments)`: runs a program, `python PATH ARGUMENTS`; returns at once. Its
    SHMBUS_BUS is the test's bus, so `shmbus.attach()` and the command `shmbus` take that."""
    with contextlib.ExitStack() as stack:  # ends every one, also where ending another fails

        def worker(
            function: Callable[..., Any] | str | Path,
            *arguments: Any,
            name: str | None = None,
            **options: Unpack[WorkerOptions],
        ) -> Worker:
            if not callable(function):
                if name is not None or options:
                    raise TypeError("a program attaches by itself: give it arguments, no options")
                command = [sys.executable, str(function), *map(str, arguments)]
                what = f"program {Path(function).name!r}"
                program = Worker(what, command, bus=bus_name)
                return stack.enter_context(program)
            for option in options.keys() - WorkerOptions.__optional_keys__:
                known = ", ".join(["name", *WorkerOptions.__annotations__])
                raise TypeError(f"worker() has no option {option!r}; it has {known}")
            _require_bus(bus_name, _served, options)
            options.setdefault("timeout", TIMEOUT)
            task = Task(
                bus=bus_name,
                path=sys.path,
                function=function_of(function),
                arguments=list(arguments),
                name=name,
                options=options,
            )
            process = Worker(f"worker {name or function.__name__!r}", task.command(), bus=bus_name)
            stack.enter_context(process)
            process._await_ready()
            return process

        yield worker


def _close(endpoint: Endpoint) -> None:
    with contextlib.suppress(errors.BusError):  # its bus may be gone already
        endpoint.close()
