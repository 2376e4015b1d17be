"""Test your workers the way shmbus tests itself: fixtures for pytest.

Installed with shmbus and found by pytest without being asked. A test gets a bus of its own, real
processes on it, a recorder that waits for messages instead of sleeping, and faults: `kill`,
`pause` and `resume`. When it ends, everything it started has ended, and nothing of its bus is left
in /dev/shm, or the test fails.

    def index(endpoint):                       # runs in a process of its own
        endpoint.handle("index.query", lambda message: {"hits": []})
        endpoint.run()

    def test_the_index_answers(bus, attach, worker):
        worker(index, name="indexer")
        client = attach("client")
        client.wait_for("index.query")
        assert client.request("index.query", {"text": "foo"}).payload == {"hits": []}

Waits end with a condition or with a failure that says what was waited for, after `TIMEOUT` seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import secrets
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypedDict, TypeVar, Unpack

import msgspec
import psutil
import pytest

from shmbus import errors
from shmbus.bus import Bus, serve
from shmbus.endpoint import attach as attaching
from shmbus.endpoint._kernel import Message
from shmbus.endpoint.endpoint import Endpoint
from shmbus.host import host
from shmbus.settings import Settings
from shmbus.shared import names
from shmbus.shared.names import SHM
from shmbus.views import discovery

__all__ = [
    "TIMEOUT",
    "Attach",
    "AttachOptions",
    "BusProcess",
    "Child",
    "MakeRecorder",
    "Program",
    "Recorder",
    "StartWorker",
    "Worker",
    "WorkerFailed",
    "WorkerOptions",
    "eventually",
    "in_shm",
    "kill",
    "no_leavings",
    "pause",
    "resume",
    "run_python",
    "start_python",
]

TIMEOUT = 60.0
"""Seconds that any wait here takes at most: long, because only a failure waits so long."""

T = TypeVar("T")


def eventually(condition: Callable[[], T | None], what: str = "", *, timeout: float = TIMEOUT) -> T:
    """Wait until `condition()` is true, and return what it gave. Fails the test after `timeout`
    seconds."""
    end = time.monotonic() + timeout
    pause = 0.0005
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            what = what or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"not within {timeout:g} s: {what}; it is still {result!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


# Faults -----------------------------------------------------------------------------------------


def kill(pid: int) -> None:
    """Kill a process that this one started with SIGKILL, and return when it is dead."""
    process = _descendant(pid)
    process.kill()
    eventually(lambda: _state(pid) in "ZX", f"process {pid} is dead")


def pause(pid: int) -> None:
    """Stop a process that this one started (SIGSTOP), and return when it stands still."""
    _descendant(pid).suspend()
    eventually(lambda: _state(pid) in "Tt", f"process {pid} is stopped")


def resume(pid: int) -> None:
    """Let a paused process go on."""
    _descendant(pid).resume()
    eventually(lambda: _state(pid) not in "Tt", f"process {pid} runs")


def _descendant(pid: int) -> psutil.Process:
    """So that a wrong number in a test hits nobody else."""
    process = psutil.Process(pid)
    if os.getpid() not in (parent.pid for parent in process.parents()):
        raise ValueError(f"process {pid} ({process.name()}) was not started by this test")
    return process


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


# What stays behind ------------------------------------------------------------------------------


def in_shm(bus: str) -> list[str]:
    """What this user's bus of that name has in /dev/shm: segments, semaphores, lock and door."""
    prefix = names.names_of(bus).prefix
    return sorted(file for file in os.listdir(SHM) if file.removeprefix("sem.").startswith(prefix))


@contextlib.contextmanager
def no_leavings(bus: str, *, timeout: float = 10.0) -> Iterator[None]:
    """Fail if something of this bus is still in /dev/shm, `timeout` seconds after the block's end.
    It is removed then, so that the next test starts clean."""
    yield
    with contextlib.suppress(AssertionError):
        eventually(lambda: not in_shm(bus), timeout=timeout)
    _fail_for(in_shm(bus), f"bus {bus!r} left in /dev/shm")


def _fail_for(left: Iterable[str], what: str) -> None:
    left = list(left)
    for file in left:
        with contextlib.suppress(FileNotFoundError):
            (SHM / file).unlink()
    if left:
        raise AssertionError("\n    ".join([f"{what}:", *left]))


def _mine() -> set[str]:
    """What this process itself has in /dev/shm: its endpoints, and the buses that it serves."""
    served = {bus.name for bus in discovery.buses() if bus.pid == os.getpid()}
    return {
        path.name
        for path, entry in names.entries()
        if entry.uid == os.geteuid()
        and (entry.bus in served if entry.owner is None else entry.owner.pid == os.getpid())
    }


# What `shmbus.attach` is given ------------------------------------------------------------------


class WorkerOptions(TypedDict, total=False):
    """Arguments of `shmbus.attach` for an endpoint in another process, beside `name`. Without
    `timeout` it is `TIMEOUT`."""

    timeout: float | None
    settings: Settings | None
    reconnect: bool


class AttachOptions(WorkerOptions, total=False):
    """Arguments of `shmbus.attach`, beside `name`. Without `timeout` it is `TIMEOUT`."""

    types: Mapping[str, Any] | None


# Processes of a test ----------------------------------------------------------------------------

_CHILD = "import sys; from shmbus.testing import _child_main; _child_main(sys.argv[1])"


class WorkerFailed(Exception):
    """The function of a worker raised, or its process ended before it returned."""


class _Function(msgspec.Struct):
    """What another process finds a function by."""

    module: str
    file: str
    name: str


class _Task(msgspec.Struct, kw_only=True):
    """What a child process is told on its command line."""

    bus: str
    path: list[str]
    settings: Settings | None = None  # of the bus
    function: _Function | None = None  # None: serve the bus
    arguments: list[Any] = []
    name: str | None = None  # of the function's endpoint, and how it attaches
    options: WorkerOptions = {}


class _Word(msgspec.Struct, kw_only=True):
    """What it says, one per line."""

    at: str  # ready, returned or raised
    value: Any = None
    trace: str = ""


class Child:
    """A process that a test started. It ends with the test, or with the `with` block it is used
    in."""

    def __init__(self, what: str, command: list[str], *, read_output: bool = False) -> None:
        """`read_output`: read its standard output, and not what `_child_main` writes."""
        self.what = what
        reader, writer = os.pipe()
        try:
            if read_output:
                self._process = subprocess.Popen(command, stdout=writer)
            else:
                env = os.environ | {"SHMBUS_TESTING_FD": str(writer)}
                self._process = subprocess.Popen(command, pass_fds=[writer], env=env)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._reader = reader
        self._said = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it with SIGKILL, and return when it is dead and gone."""
        self._process.kill()
        self._process.wait(TIMEOUT)

    def pause(self) -> None:
        """Stop it (SIGSTOP), and return when it stands still."""
        pause(self.pid)

    def resume(self) -> None:
        """Let it go on."""
        resume(self.pid)

    def stop(self, timeout: float = TIMEOUT) -> int:
        """Ask it to end (SIGTERM), and return its exit code."""
        if self.alive:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)
        return self.wait(timeout)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end, and return its exit code; negative: the signal that ended it."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} has not ended within {timeout:g} s") from None

    def _line(self, timeout: float) -> bytes | None:
        """The next line that it writes; None where it ends first."""
        end = time.monotonic() + timeout
        while b"\n" not in self._said:
            if self._reader < 0:
                return None
            if not select.select([self._reader], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(f"{self} said nothing for {timeout:g} s")
            more = os.read(self._reader, 1 << 16)
            if not more:
                return None
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _collect(self) -> None:
        """Keep what it has written so far."""
        while self._reader >= 0 and select.select([self._reader], [], [], 0)[0]:
            more = os.read(self._reader, 1 << 16)
            if not more:
                break
            self._said += more

    def _hear(self, timeout: float) -> _Word | None:
        """The next thing that `_child_main` says; None where it ends first."""
        line = self._line(timeout)
        return None if line is None else msgspec.json.decode(line, type=_Word)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        try:
            self.stop()
        except AssertionError:
            self.kill()
            raise
        finally:
            self._collect()
            os.close(self._reader)
            self._reader = -1

    def __repr__(self) -> str:
        return f"<{self.what}, process {self.pid}>"


class Worker(Child):
    """A function in a process of its own, attached to the test's bus; made by the fixture
    `worker`."""

    _last: _Word | None = None

    def result(self, timeout: float = TIMEOUT) -> Any:
        """What the function returned: plain values. Raises `WorkerFailed` with its traceback where
        it raised, or where the process ended without it."""
        if self._last is None:
            self._last = self._hear(timeout)
        if self._last is None:
            raise WorkerFailed(f"{self} ended with exit code {self.wait()}")
        if self._last.at == "raised":
            raise WorkerFailed(f"{self} raised\n{self._last.trace}")
        return self._last.value

    def _await_ready(self) -> None:
        word = self._hear(TIMEOUT)
        if word is None or word.at != "ready":
            self._last = word
            self.result()


def run_python(
    code: str,
    *arguments: object,
    before: Iterable[str] = (),
    quiet: bool = True,
    timeout: float = 120.0,
) -> str:
    """Run Python code in a process of its own until it ends, and return what it printed. Fails the
    test where it does not end by itself with exit code 0, or, if it is to be `quiet`, prints
    anything on standard error. `arguments` are its `sys.argv[1:]`; `before` is put before the
    command, as in `before=["unshare", "-m"]`."""
    command = [*before, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"
    assert not quiet or done.stderr == "", done.stderr
    return done.stdout


class Program(Child):
    """Python code in a process of its own, which prints lines for the test to read; made by
    `start_python`. With 64 KiB unread, its printing waits until the test reads."""

    def line(self, timeout: float = TIMEOUT) -> str:
        """The next line that it prints, without the line break. Fails the test where it ends
        first."""
        line = self._line(timeout)
        if line is None:
            raise AssertionError(f"{self} ended with exit code {self.wait()} and no further line")
        return line.decode()

    @property
    def printed(self) -> str:
        """What it has printed so far and `line` has not returned yet. Does not wait."""
        self._collect()
        return self._said.decode()


def start_python(code: str, *arguments: object) -> Program:
    """Start Python code in a process of its own, and return at once. `with start_python(code) as
    program:` ends it with the block, by SIGTERM. `arguments` are its `sys.argv[1:]`; its standard
    output is read with `line` and `printed`, its standard error is the test's."""
    command = [sys.executable, "-u", "-c", textwrap.dedent(code), *map(str, arguments)]
    return Program("program", command, read_output=True)


class BusProcess:
    """The dispatcher of the test's bus in a process of its own; made by the fixture
    `bus_process`."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.alive

    def start(self) -> None:
        """Serve, and return when endpoints can attach. What a killed one left is adopted."""
        assert not self.alive, f"bus {self.name!r} is served already"
        self._end()
        task = _Task(bus=self.name, path=sys.path, settings=self.settings)
        child = self._child = Child(f"dispatcher of bus {self.name!r}", _command(task))
        word = child._hear(TIMEOUT)
        if word is None or word.at != "ready":
            trace = word.trace if word else f"it ended with exit code {child.wait()}"
            raise WorkerFailed(f"{child} does not serve\n{trace}")

    def kill(self) -> None:
        """Kill it with SIGKILL, and return when it is dead and gone. The bus waits for the next
        one."""
        self._running.kill()

    def restart(self) -> None:
        """Kill it, and start the next, which adopts the bus."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """End the bus in good order."""
        self._running.stop()

    def pause(self) -> None:
        """Stop its process (SIGSTOP)."""
        self._running.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._running.resume()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child._end()

    @property
    def _running(self) -> Child:
        assert self._child is not None, f"bus {self.name!r} was never started"
        return self._child


def _command(task: _Task) -> list[str]:
    return [sys.executable, "-c", _CHILD, msgspec.json.encode(task).decode()]


def _child_main(encoded: str) -> None:
    """The whole life of a child process."""
    task = msgspec.json.decode(encoded, type=_Task)
    sys.path[:] = task.path
    writer = int(os.environ.pop("SHMBUS_TESTING_FD"))
    os.set_inheritable(writer, False)

    def say(word: _Word) -> None:
        os.write(writer, msgspec.json.encode(word) + b"\n")

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        if task.function is None:
            host(task.bus, settings=task.settings, ready=lambda bus: say(_Word(at="ready")))
            return
        function = _load(task.function)
        with attaching.attach(task.bus, name=task.name, **task.options) as endpoint:
            say(_Word(at="ready"))
            value = function(endpoint, *task.arguments)
        say(_Word(at="returned", value=value))
    except Exception as why:
        # Also where nobody asks for its result: pytest shows it with a test that fails.
        traceback.print_exc()
        say(_Word(at="raised", trace=traceback.format_exc()))
        raise SystemExit(1) from why


def _load(function: _Function) -> Callable[..., Any]:
    try:
        module = importlib.import_module(function.module)
        if getattr(module, "__file__", None) != function.file:
            raise ImportError
    except ImportError:  # pytest imports test files that stand on no path, too
        spec = importlib.util.spec_from_file_location(function.module, function.file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{function.file} is no Python file") from None
        module = importlib.util.module_from_spec(spec)
        sys.modules[function.module] = module
        spec.loader.exec_module(module)
    found: Any = module
    for part in function.name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _where(function: Callable[..., Any]) -> _Function:
    name = function.__qualname__
    if "<" in name:
        raise ValueError(
            f"{name} cannot be found by another process: define it at the top of its module"
        )
    return _Function(function.__module__, inspect.getfile(function), name)


# What has arrived -------------------------------------------------------------------------------


class Recorder:
    """Keeps what an endpoint of its own receives; made by the fixture `recorder`."""

    def __init__(
        self, endpoint: Endpoint, patterns: Iterable[str], handles: Iterable[str] = ()
    ) -> None:
        self.endpoint = endpoint
        self._messages: list[Message] = []
        self._changed = threading.Condition()
        for pattern in patterns:
            endpoint.subscribe(pattern, self._keep)
        for pattern in handles:
            endpoint.handle(pattern, self._keep)
        endpoint.start()

    def _keep(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    @property
    def messages(self) -> list[Message]:
        """What has come so far, in order."""
        with self._changed:
            return list(self._messages)

    @property
    def payloads(self) -> list[Any]:
        """Their payloads."""
        return [message.payload for message in self.messages]

    @property
    def types(self) -> list[str]:
        """Their types."""
        return [message.type for message in self.messages]

    def wait(
        self,
        n: int = 1,
        where: Callable[[Message], bool] | None = None,
        *,
        timeout: float = TIMEOUT,
    ) -> list[Message]:
        """Wait for `n` messages since the last `clear` (of those for which `where` is true), and
        return all that have come. Fails the test after `timeout` seconds."""

        def found() -> list[Message]:
            return [m for m in self._messages if where is None or where(m)]

        with self._changed:
            if not self._changed.wait_for(lambda: len(found()) >= n, timeout):
                raise AssertionError(
                    f"{len(found())} of {n} messages within {timeout:g} s; "
                    f"{len(self._messages)} came in all: {[m.type for m in self._messages][:20]}"
                )
            return found()

    def clear(self) -> None:
        """Forget what has come so far."""
        with self._changed:
            self._messages.clear()

    def __len__(self) -> int:
        return len(self.messages)


# The fixtures -----------------------------------------------------------------------------------


class Attach(Protocol):
    """The type of the fixture `attach`."""

    def __call__(self, name: str | None = None, **options: Unpack[AttachOptions]) -> Endpoint: ...


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
        "markers", "bus(**settings): the shmbus.Settings of this test's bus, e.g. ring_bytes=4096"
    )


@pytest.fixture(autouse=True)
def _shmbus_leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.config.getini("shmbus_leak_check"):
        yield
        return
    before = _mine()
    yield
    _fail_for(_mine() - before, "this test left in /dev/shm")


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
def bus(bus_name: str, bus_settings: Settings) -> Iterator[Bus]:
    """A bus of the test's own, served in this process."""
    with serve(bus_name, settings=bus_settings) as bus:
        yield bus


@pytest.fixture
def bus_process(bus_name: str, bus_settings: Settings) -> Iterator[BusProcess]:
    """A bus of the test's own, served in a process of its own that can be killed and started
    again."""
    process = BusProcess(bus_name, bus_settings)
    try:
        process.start()
        yield process
    finally:
        process._end()
        if in_shm(bus_name):  # a killed dispatcher leaves the bus to the next one, which cleans up
            serve(bus_name, settings=bus_settings).close()


@pytest.fixture
def _served(request: pytest.FixtureRequest) -> None:
    """The bus comes before what attaches to it, and goes after it, however a test lists them."""
    for fixture in ("bus", "bus_process"):
        if fixture in request.fixturenames:
            request.getfixturevalue(fixture)


@pytest.fixture
def attach(bus_name: str, _served: None) -> Iterator[Attach]:
    """`attach(name, **options)`: an endpoint of this process on the test's bus, with the arguments
    of `shmbus.attach`; closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def attach(name: str | None = None, **options: Unpack[AttachOptions]) -> Endpoint:
            options.setdefault("timeout", TIMEOUT)
            endpoint = attaching.attach(bus_name, name=name, **options)
            stack.callback(_close, endpoint)
            return endpoint

        yield attach


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
def worker(bus_name: str, _served: None) -> Iterator[StartWorker]:
    """`worker(function, *arguments, name=None, **options)`: calls `function(endpoint, *arguments)`
    in a process of its own, with an endpoint on the test's bus (`name`, `timeout`, `settings` and
    `reconnect`: see `shmbus.attach`); returns when that is attached. The function stands at the top
    of its module; arguments and result are plain values. What it raises is printed on standard
    error. It gets SIGTERM when the test ends, as a SystemExit in its main thread.

    `worker(path, *arguments)`: runs a program, `python PATH ARGUMENTS`; returns at once."""
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
                program = Worker(f"program {Path(function).name!r}", command)
                return stack.enter_context(program)
            for option in options.keys() - WorkerOptions.__optional_keys__:
                known = ", ".join(["name", *WorkerOptions.__annotations__])
                raise TypeError(f"worker() has no option {option!r}; it has {known}")
            options.setdefault("timeout", TIMEOUT)
            task = _Task(
                bus=bus_name,
                path=sys.path,
                function=_where(function),
                arguments=list(arguments),
                name=name,
                options=options,
            )
            process = Worker(f"worker {name or function.__name__!r}", _command(task))
            stack.enter_context(process)
            process._await_ready()
            return process

        yield worker


def _close(endpoint: Endpoint) -> None:
    with contextlib.suppress(errors.BusError):  # its bus may be gone already
        endpoint.close()
