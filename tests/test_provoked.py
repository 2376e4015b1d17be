"""Every error there is, provoked from outside and seen through the public API: with its facts, and
with what to do. An error without its case here fails the first test."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import context
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import psutil
import pytest

import shmbus
import shmbus.aio
from ringbuf import Segment, layout_text
from shmbus import errors
from shmbus.links.config import LinkConfig
from shmbus.links.link import link
from shmbus.shared import layout, names
from shmbus.testing import (
    Attach,
    BusProcess,
    MakeRecorder,
    Recorder,
    StartWorker,
    Worker,
    eventually,
    run_python,
)
from tests.kept import Kept

Error = TypeVar("Error", bound=errors.BusError)

NAMED = ("bus", "name", "endpoint", "type", "pattern", "group", "limit", "size", "setting", "pid")
"""The facts that a message names whenever it has them."""


def concrete(error: type[errors.BusError]) -> set[type[errors.BusError]]:
    """Those of the tree that are raised: with an explanation of their own."""
    found = {error} if "_explain" in vars(error) and error is not errors.BusError else set()
    return found.union(*map(concrete, error.__subclasses__()))


class such:
    """Equal to whatever fits: for facts that are not known before."""

    def __init__(self, fits: Callable[[Any], object] = lambda value: value) -> None:
        self.fits = fits

    def __eq__(self, other: object) -> bool:
        return bool(self.fits(other))

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def provoked(
    error: type[Error], todo: str, /, **facts: object
) -> Iterator[pytest.ExceptionInfo[Error]]:
    """What happens within raises this error, with exactly these facts and the remedy `todo`."""
    with pytest.raises(error) as caught:
        yield caught
    assert type(caught.value) is error
    assert caught.value.data == facts
    text = str(caught.value)
    assert todo in text.partition(". ")[2]
    for fact, value in caught.value.data.items():
        if fact in NAMED and value is not None:
            assert str(value) in text


def test_every_error_has_its_case_here() -> None:
    cases = re.findall(r"with provoked\(\s*errors\.(\w+)", Path(__file__).read_text())
    assert set(cases) == {error.__name__ for error in concrete(errors.BusError)}


# Faults -----------------------------------------------------------------------------------------


def elsewhere(code: str, *arguments: str, before: tuple[str, ...] = ()) -> None:
    """Run code in a process that has attached to nothing yet, and raise here what it raises."""
    lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
    code = (
        "import os, pickle, sys\nimport shmbus\ntry:\n"
        f"{lines}except shmbus.BusError as error:\n    print(pickle.dumps(error).hex())"
    )
    raise pickle.loads(bytes.fromhex(run_python(code, *arguments, before=before, quiet=False)))


def told_by(worker: Worker) -> None:
    """Raise here what a worker has caught there."""
    raise pickle.loads(bytes.fromhex(worker.result()))


def scribble(segment: str, at: int, value: int) -> None:
    """Write a word where its one writer has not written it."""
    Segment.attach(segment, writable=True).memory.store(at, value)


def up_of(endpoint: shmbus.Endpoint) -> str:
    """The segment that an endpoint of this process writes, and nobody else."""
    of = names.names_of(endpoint.bus.name)
    (mine,) = (
        file
        for file in os.listdir("/dev/shm")
        if file.startswith(f"{of.prefix}up:")
        and layout.text(layout.view(Segment.attach(file).memory, layout.UP)[0]["name"])
        == endpoint.name
    )
    return mine


HEAD = layout.offset(layout.UP, "outgoing") + layout.offset(layout.OUTGOING, "head")


def repeat_first_message(endpoint: shmbus.Endpoint) -> None:
    """Send the first message of an endpoint once more, as it is, correlation id and all."""
    memory = Segment.attach(up_of(endpoint), writable=True).memory
    up = layout.view(memory, layout.UP)[0]
    place, head = up["outgoing_ring"][0], int(up["outgoing"][0]["head"])
    size, offset = int(place["capacity"]), int(place["offset"])
    ring = np.frombuffer(memoryview(memory), np.uint8, size, offset)
    ring[head : 2 * head] = ring[:head].copy()
    memory.store(HEAD, 2 * head)


# Names, types, patterns, settings ---------------------------------------------------------------


def test_names_that_cannot_be(bus: shmbus.Bus, attach: Attach) -> None:
    use = "Use 1 to 48 of A-Z"
    with provoked(errors.InvalidName, use, name="a b", what="bus", reason=such(), variable=""):
        shmbus.serve("a b")
    with provoked(errors.InvalidName, use, name="a:b", what="endpoint", reason=such(), variable=""):
        attach("a:b")
    with provoked(errors.InvalidName, use, name="", what="group", reason=such(), variable=""):
        attach("e").subscribe("x", group="")


def test_a_type_that_cannot_be(bus: shmbus.Bus, attach: Attach) -> None:
    with provoked(
        errors.InvalidType, "Use tokens", type="buffer..changed", reason="it has an empty token"
    ):
        attach("e").publish("buffer..changed")


def test_a_pattern_that_cannot_be(bus: shmbus.Bus, attach: Attach) -> None:
    with provoked(
        errors.InvalidPattern,
        "Use a message type",
        pattern="buffer.>.changed",
        reason="'>' stands only at the end",
    ):
        attach("e").subscribe("buffer.>.changed")


def test_a_setting_that_cannot_be(bus_name: str) -> None:
    with provoked(
        errors.InvalidSetting,
        "Set 65536 or 131072 bytes",
        setting="in_bytes",
        value=100_000,
        reason="not a power of two",
        remedy="Set 65536 or 131072 bytes",
    ):
        shmbus.serve(bus_name, settings=shmbus.Settings(in_bytes=100_000))


# Serving and attaching --------------------------------------------------------------------------


def test_a_bus_that_does_not_run(bus_name: str) -> None:
    running = such(lambda value: isinstance(value, tuple))
    with provoked(
        errors.NoSuchBus,
        f"Start it: python -m shmbus {bus_name}",
        bus=bus_name,
        running=running,
        variable="",
    ):
        shmbus.observe(bus_name)


def test_a_dispatcher_that_stands_still(bus_process: BusProcess) -> None:
    bus_process.pause()
    with provoked(
        errors.AttachTimeout,
        "Let it go on: kill -CONT",
        bus=bus_process.name,
        seconds=such(lambda seconds: seconds >= 0.05),
        pid=bus_process.pid,
        silent=such(lambda seconds: seconds > 0),
        removed=False,
        stopped=True,
        variable="",
    ):
        shmbus.attach(bus_process.name, timeout=0.05)
    bus_process.resume()


def test_a_name_that_is_taken(bus: shmbus.Bus, attach: Attach) -> None:
    attach("indexer")
    with provoked(
        errors.NameTaken, "Choose another name", bus=bus.name, name="indexer", pid=os.getpid()
    ):
        attach("indexer")


@pytest.mark.parametrize("bus_grants", [{"other": None}])
def test_what_a_host_does_not_grant(bus: shmbus.Bus) -> None:
    remedy = 'Name it in serve(grants=...), or give "*" for all others'
    with provoked(
        errors.Forbidden,
        remedy,
        reason="its host has no grant for that name",
        remedy=remedy,
        bus=bus.name,
        endpoint="plug",
        right=None,
        type="",
        granted=(),
        index=None,
    ):
        elsewhere("shmbus.attach(sys.argv[1], name='plug')", bus.name)


@pytest.mark.bus(max_endpoints=1)
def test_a_bus_that_is_full(bus: shmbus.Bus, attach: Attach) -> None:
    attach("first")
    with provoked(
        errors.BusFull, "Settings(max_endpoints=", bus=bus.name, limit=1, setting="max_endpoints"
    ):
        attach("second")


def test_a_bus_of_another_version(bus_process: BusProcess, attach: Attach) -> None:
    attach("e")
    other = layout.LAYOUT ^ 1
    segment = names.names_of(bus_process.name).bus_segment
    at = layout.offset(layout.PREFIX, "layout")
    scribble(segment, at, other)
    with provoked(
        errors.LayoutMismatch,
        "Install the same version",
        bus=bus_process.name,
        mine=layout_text(layout.LAYOUT),
        theirs=layout_text(other),
        pids=(os.getpid(),),
    ):
        shmbus.observe(bus_process.name)
    scribble(segment, at, layout.LAYOUT)


def test_a_dispatcher_that_may_open_no_more_files(bus_process: BusProcess) -> None:
    dispatcher = psutil.Process(bus_process.pid)
    limits = dispatcher.rlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{bus_process.pid}/fd")))
    dispatcher.rlimit(resource.RLIMIT_NOFILE, (highest + 8, limits[1]))
    with provoked(
        errors.Refused,
        "Raise ulimit -n",
        bus=bus_process.name,
        reason=such(lambda reason: f"may open {highest + 8} files" in reason),
        remedy="Raise ulimit -n",
        pid=bus_process.pid,
    ):
        shmbus.attach(bus_process.name, timeout=60)


def test_a_bus_that_is_served_already(bus: shmbus.Bus) -> None:
    with provoked(errors.BusExists, "Attach to it", bus=bus.name, pid=os.getpid()):
        shmbus.serve(bus.name)


def attach_with_larger_rings(endpoint: shmbus.Endpoint, bus: str, size: int) -> str | None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        shmbus.attach(bus, settings=shmbus.Settings(out_bytes=size))
    except errors.BusError as error:
        return pickle.dumps(error).hex()
    return None


def test_shared_memory_that_cannot_be_had(bus: shmbus.Bus, worker: StartWorker) -> None:
    with provoked(
        errors.SegmentError,
        "raise the limit on file sizes (ulimit -f)",
        name=such(lambda name: name.startswith(f"{names.names_of(bus.name).prefix}up:")),
        reason="not enough shared memory",
        remedy=such(lambda remedy: "smaller in_bytes" in remedy),
        size=such(lambda size: size > 1 << 20),
        free=such(),
    ):
        told_by(worker(attach_with_larger_rings, bus.name, 1 << 20))


def test_a_descriptor_that_cannot_be_had(bus: shmbus.Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", refuse)
    with provoked(
        errors.NoResource,
        "Raise the limit on open files (ulimit -n)",
        bus=bus.name,
        what="socket to knock with",
        reason="Too many open files",
        remedy="Raise the limit on open files (ulimit -n)",
    ):
        bus.attach("e")
    monkeypatch.undo()


@pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"]).returncode != 0,
    reason="only root can mount a small /dev/shm",
)
def test_shared_memory_of_a_container_that_is_too_small(bus_name: str) -> None:
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    with provoked(
        errors.SegmentError,
        "--shm-size",
        name=names.names_of(bus_name).bus_segment,
        reason="not enough shared memory",
        remedy=such(lambda remedy: "smaller in_bytes" in remedy),
        size=such(lambda size: size > 65536),
        free=such(lambda free: 0 < free <= 65536),
    ):
        elsewhere(
            "shmbus.serve(sys.argv[1])", bus_name, before=("unshare", "-m", "sh", "-c", mount, "sh")
        )


# A seccomp filter that refuses madvise(..., MADV_WIPEONFORK), as an old kernel does.
OLD_KERNEL = """
import ctypes, platform, struct
madvise = {"x86_64": 28, "aarch64": 233}[platform.machine()]
steps = [
    (0x20, 0, 0, 0),                 # the number of the system call
    (0x15, 0, 3, madvise),
    (0x20, 0, 0, 32),                # its third argument
    (0x15, 0, 1, 18),                # MADV_WIPEONFORK
    (0x06, 0, 0, 0x00050000 | 22),   # EINVAL
    (0x06, 0, 0, 0x7FFF0000),        # allowed
]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
filter = struct.pack("HP", len(steps), ctypes.addressof(program))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0, "no new privileges"
if prctl(22, 2, ctypes.c_char_p(filter), 0, 0) != 0:
    sys.exit("no seccomp here")
shmbus.attach(sys.argv[1])
"""


@pytest.mark.skipif(
    os.uname().machine not in ("x86_64", "aarch64"), reason="the filter is written for these two"
)
def test_a_system_that_is_too_old(bus: shmbus.Bus) -> None:
    with provoked(
        errors.NotSupported,
        "Use Linux 4.14 or newer",
        feature="attaching",
        reason=such(lambda reason: "MADV_WIPEONFORK" in reason),
        remedy="Use Linux 4.14 or newer",
    ):
        elsewhere(OLD_KERNEL, bus.name)
    assert bus.endpoints() == []


# Sending ----------------------------------------------------------------------------------------


@pytest.mark.bus(in_bytes=8192, out_bytes=8192, block_timeout=60)
def test_a_ring_that_stays_full(bus: shmbus.Bus, attach: Attach) -> None:
    sender, deaf = attach("sender"), attach("deaf")  # closed in the other order
    deaf.subscribe("x")
    with provoked(
        errors.QueueFull,
        "Settings(out_bytes=",
        type="x",
        endpoint="sender",
        depth=such(lambda depth: 0 < depth <= 8192),
        capacity=8192,
        seconds=0.05,
        setting="out_bytes",
        index=such(lambda index: index > 0),
        dispatcher=None,
        silent=0.0,
        stopped=False,
        holders=(),
        largest=0,
        payloads=0,
        pools=(),
    ):
        sender.publish_many([("x", bytes(1000))] * 1000, timeout=0.05)


def test_too_many_requests_at_a_time(bus: shmbus.Bus, attach: Attach) -> None:
    client = attach("client", settings=shmbus.Settings(max_requests=2))
    attach("server").handle("x", print)
    for _ in range(2):
        client.request_async("x", timeout=60)
    with provoked(
        errors.RequestsFull,
        "Settings(max_requests=",
        type="x",
        endpoint="client",
        limit=2,
        seconds=0.05,
        setting="max_requests",
    ):
        client.request("x", timeout=0.05)


@pytest.mark.bus(in_bytes=8192, out_bytes=8192, pool_bytes=4096)
def test_a_message_that_is_too_large(bus: shmbus.Bus, attach: Attach) -> None:
    sender, batch = attach("sender"), [("x", b""), ("x", b""), ("x", bytes(5000))]
    with provoked(
        errors.MessageTooLarge,
        "Settings(pool_bytes=8192)",
        type="x",
        size=5000,
        limit=4096,
        endpoint="sender",
        setting="pool_bytes",
        total=False,
        index=2,
    ):
        sender.publish_many(batch)


@pytest.mark.bus(pool_bytes=1_000_000)
def test_a_pool_that_stays_full(bus: shmbus.Bus, attach: Attach) -> None:
    sender, holder = attach("sender"), attach("holder", settings=shmbus.Settings(pool_bytes=4096))
    holder.subscribe("x")
    sender.publish("x", np.zeros(400_000, np.uint8))
    held = holder.receive(60)
    assert held is not None
    array = held.payload
    with (
        sender.loan("x", 400_000),
        provoked(
            errors.QueueFull,
            "Settings(pool_bytes=",
            type="x",
            endpoint="sender",
            depth=such(lambda depth: 800_000 < depth <= 1_000_000),
            capacity=1_000_000,
            seconds=0.05,
            setting="pool_bytes",
            index=None,
            dispatcher=None,
            silent=0.0,
            stopped=False,
            holders=such(
                lambda holders: {name for name, _ in holders} == {"holder", "its own loans"}
            ),
            largest=such(lambda largest: 0 < largest < 400_000),
            payloads=0,
            pools=(),
        ),
    ):
        sender.publish("x", bytes(400_000), timeout=0.05)
    assert not array.any()


def test_a_payload_that_cannot_be_encoded(bus: shmbus.Bus, attach: Attach) -> None:
    with provoked(
        errors.EncodeError,
        "Send bytes, plain values or msgspec Structs; for other types attach with encode=",
        type="x",
        reason=such(lambda reason: "object" in reason),
        size=None,
        index=1,
    ):
        attach("e").publish_many([("x", 1), ("x", object())])


def test_a_payload_that_is_not_what_its_receiver_expects(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x", payload_type=int)
    endpoint.publish("x", "text")
    message = endpoint.receive(60)
    assert message is not None
    with provoked(
        errors.DecodeError,
        "Make sender and receiver agree",
        type="x",
        reason=such(lambda reason: "`int`" in reason),
        size=5,
    ):
        message.payload  # noqa: B018
    assert endpoint.bus.endpoints()[0].decode_errors == 1


def test_a_payload_that_is_read_after_its_release(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x")
    endpoint.publish("x", b"text")
    message = endpoint.receive(60)
    assert message is not None
    message.release()
    with provoked(
        errors.PayloadReleased, "Read message.payload before message.release()", type="x", size=4
    ):
        message.payload  # noqa: B018


def test_a_payload_type_that_nothing_decodes_to(bus: shmbus.Bus, attach: Attach) -> None:
    with provoked(
        errors.InvalidPayloadType,
        "Use a msgspec Struct",
        payload_type="Recorder.wait",
        reason=such(),
    ):
        attach("e").subscribe("x", payload_type=Recorder.wait)


# Queues -----------------------------------------------------------------------------------------


def test_a_queue_that_is_closed_here() -> None:
    queue: shmbus.Queue[int] = shmbus.Queue()
    queue.close()
    with provoked(errors.QueueClosed, "Close it after its last use", queue=queue.name):
        queue.put(1)


def test_a_queue_that_is_gone_before_its_child_takes_it_up() -> None:
    queue: shmbus.Queue[int] = shmbus.Queue()
    context.set_spawning_popen(cast(Any, queue))  # as while a child is made
    try:
        passed = pickle.dumps(queue)
    finally:
        context.set_spawning_popen(None)
    queue._leave(at_exit=True)  # as at the end of this process
    with provoked(errors.QueueGone, "Keep that process until", queue=queue.name):
        pickle.loads(passed)


# Requests ---------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_request_that_nobody_handles(bus: shmbus.Bus, attach: Attach) -> None:
    with provoked(errors.NoRoute, "ep.wait_for('x')", type="x"):
        attach("e").request("x", timeout=60)


def test_a_request_without_its_reply_in_time(bus_process: BusProcess, attach: Attach) -> None:
    client = attach("client")
    bus_process.pause()
    with provoked(
        errors.RequestTimeout,
        "Let it go on: kill -CONT",
        type="x",
        seconds=0.05,
        endpoint=None,
        pid=None,
        begun=False,
        hint="no handler was chosen yet",
        dispatcher=bus_process.pid,
        silent=such(lambda seconds: seconds > 0),
        stopped=True,
        inherited=None,
        sent=True,
        parts=0,
    ):
        client.request("x", timeout=0.05)
    bus_process.resume()


def hold_requests(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("x", Kept())
    endpoint.run()


def test_a_handler_that_is_killed_over_a_request(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    client, server = attach("client"), worker(hold_requests, name="server")
    client.wait_for("x", timeout=60)
    future = client.request_async("x", timeout=60)
    eventually(lambda: bus.find("x")[0].in_hand)
    os.kill(server.pid, signal.SIGKILL)  # and not reaped: how it ended is there to be read
    with provoked(
        errors.EndpointDied,
        "Send it again if that is harmless",
        type="x",
        endpoint="server",
        pid=server.pid,
        reason="killed",
        begun=True,
    ):
        future.result(60)


def test_no_thread_for_a_callback(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = attach("client")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with provoked(
        errors.NoThread,
        "Raise the limit of threads",
        endpoint="client",
        bus=None,
        task=such(lambda task: "death" in task),
        reason=such(),
    ):
        client.on_death("somebody", print)
    monkeypatch.undo()


def test_a_handler_that_raises(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    server.handle("x", lambda message: [][1])
    server.start()
    with provoked(
        errors.RemoteError,
        "Fix it there",
        type="x",
        endpoint="server",
        error="IndexError",
        message="list index out of range",
        traceback=such(lambda traceback: "server.handle" in traceback),
    ):
        client.request("x", timeout=60)


class Calculator:
    def add(self, a: int, b: int) -> int:
        return str(a + b)  # type: ignore[return-value]  # on purpose


def test_a_service_called_with_other_types(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    server.offer(Calculator(), "calc")
    server.start()
    calculator: Any = client.client(Calculator, "calc", timeout=60)
    with provoked(
        errors.InvalidArguments,
        "Make the caller and its class agree",
        type="calc.add",
        endpoint="server",
        error="shmbus.shared.failures.Mismatch",
        message="argument b: Expected int, got str",
        traceback="",
    ):
        calculator.add(1, "2")
    with provoked(
        errors.InvalidResult,
        "Make the service and the caller's class agree",
        type="calc.add",
        endpoint="server",
        reason="result: Expected int, got str",
        size=2,
    ):
        calculator.add(1, 2)


def test_a_class_that_cannot_be_offered(bus: shmbus.Bus, attach: Attach) -> None:
    class Open:
        def add(self, *numbers: int) -> int:
            return sum(numbers)

    with provoked(
        errors.InvalidService,
        "Name them",
        service="calc",
        method="add",
        reason="*numbers stands for any arguments, whose names and types nobody knows",
        remedy="Name them, or take one argument that is a list or a dict",
    ):
        attach("server").offer(Open(), "calc")


def test_a_handler_that_takes_too_long(bus: shmbus.Bus, attach: Attach) -> None:
    client, server, go_on = attach("client"), attach("server"), threading.Event()
    server.handle("x", lambda message: go_on.wait(60), limit=0.05)
    server.start()
    with provoked(
        errors.HandlerTimeout,
        "shorten it, or let it take longer",
        type="x",
        endpoint="server",
        pid=os.getpid(),
        seconds=such(lambda seconds: seconds >= 0.05),
    ):
        client.request("x", timeout=60)
    go_on.set()


def test_one_of_several_that_is_not_waited_for_any_more(bus: shmbus.Bus, attach: Attach) -> None:
    quick, slow = attach("quick"), attach("slow")
    quick.handle("x", lambda message: None)
    slow.handle("x", lambda message: None)
    quick.start()
    found = attach("client").gather("x", at_least=1, timeout=60)["slow"]
    with provoked(
        errors.Withdrawn, "leave out at_least=", type="x", endpoint="slow", replies=1, enough=True
    ):
        raise found  # type: ignore[misc]


def test_fewer_replies_than_are_wanted(bus: shmbus.Bus, attach: Attach) -> None:
    with provoked(
        errors.TooFewReplies,
        "want fewer (at_least=)",
        type="x",
        endpoint="client",
        wanted=2,
        replies=0,
        results={},
    ):
        attach("client").gather("x", at_least=2, timeout=60)


def test_a_reply_that_does_not_fit_its_requester(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client", settings=shmbus.Settings(reply_bytes=8192)), attach("server")
    server.handle("x", lambda message: bytes(5000))
    server.start()
    segment = names.names_of(bus.name).bus_segment
    with Segment.attach(segment, writable=True) as shared:  # as the server has yet to see it
        shared.memory.store(layout.offset(layout.BUS, "fits") + 8, 1 << 20)
    with provoked(
        errors.ReplyLost,
        "Enlarge this endpoint's Settings(reply_bytes=",
        type="x",
        endpoint="server",
        reason=such(lambda reason: "did not fit" in reason and "bytes" in reason),
    ):
        client.request("x", timeout=60)


def test_a_correlation_id_that_is_in_use(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    client, server = attach("client"), attach("server")
    messages: list[shmbus.Message] = []

    @server.handle("x")
    def keep(message: shmbus.Message) -> None:
        message.defer()
        messages.append(message)

    server.start()
    future = client.request_async("x", timeout=60)
    eventually(lambda: messages)
    repeat_first_message(client)
    with provoked(
        errors.CorrelationCollision,
        "Let request() make the ids",
        type="x",
        correlation_id=messages[0].correlation_id,
    ):
        future.result(60)
    assert len(messages) == 1


# The life of an endpoint and of its bus ---------------------------------------------------------


def test_a_dispatcher_that_is_killed(bus_process: BusProcess, attach: Attach) -> None:
    endpoint = attach("e")
    bus_process.kill()
    with provoked(
        errors.BusDown,
        f"Start it again (python -m shmbus {bus_process.name}); with reconnect=True calls wait for",
        bus=bus_process.name,
        reason="its dispatcher died",
        pid=bus_process.pid,
        remedy="",
        reconnect="True",
    ):
        endpoint.request("x", timeout=60)


def test_an_endpoint_that_was_closed_here(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.close()
    with provoked(errors.EndpointClosed, "Attach anew", endpoint="e"):
        endpoint.publish("x")


def test_a_view_that_was_closed_here(bus: shmbus.Bus) -> None:
    view = shmbus.observe(bus.name)
    view.close()
    for look in (view.info, view.endpoints, view.health, lambda: view.route("x")):
        with provoked(errors.ViewClosed, "Look anew: shmbus.observe()", bus=bus.name):
            look()


def test_an_endpoint_that_is_not_there(bus: shmbus.Bus, attach: Attach) -> None:
    attach("e")
    with provoked(
        errors.NoSuchEndpoint, "bus.endpoints() lists", bus=bus.name, endpoint="f", there=("e",)
    ):
        bus.evict("f")


def test_a_process_that_cannot_be_supervised(bus: shmbus.Bus) -> None:
    with provoked(
        errors.InvalidProcess,
        "Give one of both",
        process="index",
        reason="it has no command and no target",
        remedy="Give one of both",
    ):
        shmbus.supervise([shmbus.Process(name="index")], bus=bus)


def test_a_process_that_a_supervisor_does_not_have(bus: shmbus.Bus) -> None:
    with shmbus.supervise([], bus=bus) as supervisor:
        with provoked(
            errors.NoSuchProcess, "Name one of those", bus=bus.name, process="index", there=()
        ):
            supervisor.restart("index")


def test_a_supervisor_that_was_closed_here(bus: shmbus.Bus) -> None:
    with shmbus.supervise([], bus=bus) as supervisor:
        pass
    with provoked(errors.SupervisorClosed, "shmbus.supervise()", bus=bus.name):
        supervisor.start("index")


def test_a_link_that_can_listen_nowhere(bus: shmbus.Bus) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = [f"tcp/127.0.0.1:{taken.getsockname()[1]}"]
        with provoked(
            errors.LinkFailed,
            "See listen",
            bus=bus.name,
            site="berlin",
            reason=such(lambda reason: "Address already in use" in reason),
            remedy=such(),
        ):
            link(bus.name, LinkConfig(site="berlin", listen=listen))


def test_a_site_whose_name_another_link_has(bus: shmbus.Bus) -> None:
    with (
        link(bus.name, LinkConfig(site="berlin", listen=["tcp/127.0.0.1:0"])) as first,
        shmbus.serve(f"{bus.name}-2") as other,
    ):
        there = first.status()
        config = LinkConfig(site="berlin", connect=there.listening, detection=0.1)
        with provoked(
            errors.SiteTaken,
            "Give this bus another site",
            space="default",
            site="berlin",
            run=there.run,
            seconds=0.1,
        ):
            link(other.name, config)


def test_a_site_that_is_not_up(bus: shmbus.Bus) -> None:
    with link(bus.name, LinkConfig(site="berlin", listen=["tcp/127.0.0.1:0"])) as joined:
        with provoked(errors.NoSuchSite, "start its link", space="default", site="paris", there=()):
            joined.ping("paris")


def test_a_link_that_was_closed_here(bus: shmbus.Bus) -> None:
    with link(bus.name, LinkConfig(site="berlin", listen=["tcp/127.0.0.1:0"])) as joined:
        pass
    with provoked(errors.LinkClosed, "shmbus.link()", site="berlin", reason=""):
        joined.status()


def test_a_task_whose_worker_is_killed_and_one_that_takes_too_long() -> None:
    with shmbus.Executor(1) as executor:
        pid = executor.submit(os.getpid).result(60)
        with provoked(
            errors.WorkerDied,
            "Submit it again if that is harmless",
            type=f"pool.{executor.name}.task",
            endpoint=f"pool.{executor.name}.{pid}",
            pid=pid,
            reason="killed",
            begun=True,
            task="raise_signal #2",
            signal="SIGKILL",
            code=None,
        ):
            executor.submit(signal.raise_signal, signal.SIGKILL).result(60)
        pid = executor.submit(os.getpid).result(60)
        with provoked(
            errors.TaskTimeout,
            "give it more time: timeout=",
            task="sleep #4",
            seconds=such(lambda seconds: 0.01 <= seconds < 30),
            endpoint=f"pool.{executor.name}.{pid}",
            pid=pid,
        ):
            executor.submit_with(time.sleep, 60, timeout=0.01).result(60)


def test_workers_whose_initializer_raises() -> None:
    with shmbus.Executor(1, initializer=math.sqrt, initargs=(-1,)) as executor:
        with provoked(
            errors.PoolBroken,
            "make a new executor",
            pool=executor.name,
            reason="their initializer raised ValueError: math domain error",
            traceback=such(lambda text: text.endswith("ValueError: math domain error\n")),
        ):
            executor.submit(abs, -1).result(60)


def test_an_endpoint_that_was_put_off_the_bus(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    bus.evict("e")
    with provoked(errors.Evicted, "Attach anew", endpoint="e", reason="evicted"):
        endpoint.receive(60)


def test_an_endpoint_that_writes_garbage_is_put_off_the_bus(
    bus: shmbus.Bus, attach: Attach
) -> None:
    corrupt, other = attach("corrupt"), attach("other")
    scribble(up_of(corrupt), HEAD, 1)
    with provoked(errors.Evicted, "Attach anew", endpoint="corrupt", reason="quarantined"):
        corrupt.receive(60)
    other.subscribe("x")
    other.publish("x")
    assert other.receive(60) is not None


def test_an_endpoint_that_finds_garbage(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    (row,) = bus.endpoints()
    incoming = layout.offset(layout.DOWN, "incoming")
    head = incoming + layout.offset(layout.DOWN_INCOMING, "head")
    scribble(names.names_of(bus.name).down(row.slot, row.generation), head, 1)
    with provoked(
        errors.RingCorrupt,
        "Find what writes past its buffers",
        endpoint="e",
        ring="incoming data",
        position=0,
        reason=such(),
    ):
        endpoint.receive(60)


def use_in_child(endpoint: shmbus.Endpoint) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            endpoint.publish("x")
        except errors.BusError as error:
            os.write(writer, pickle.dumps(error))
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as file:
        return file.read().hex()


def test_an_endpoint_in_a_forked_child(bus: shmbus.Bus, worker: StartWorker) -> None:
    parent = worker(use_in_child, name="parent")
    with provoked(errors.ForkedEndpoint, "Attach in the child", endpoint="parent", pid=parent.pid):
        told_by(parent)


def test_an_endpoint_of_another_event_loop(bus: shmbus.Bus) -> None:
    async def here() -> None:
        async with shmbus.aio.attach(bus.name, name="e") as endpoint:
            with provoked(
                errors.WrongLoop, "asyncio.run_coroutine_threadsafe", endpoint="e", closed=False
            ):
                await asyncio.to_thread(asyncio.run, endpoint.publish("x"))

    asyncio.run(here())


# Using an endpoint ------------------------------------------------------------------------------


def test_a_pattern_handled_twice(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.handle("x.*", print)
    with provoked(
        errors.HandlerConflict, "Remove one of both handlers", endpoint="e", pattern="x.*"
    ):
        endpoint.handle("x.*", print)


def test_too_many_groups(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    for i in range(31):
        endpoint.subscribe("x", print, group=f"g{i}")
    with provoked(
        errors.TooManyGroups, "Attach a second endpoint", endpoint="e", group="g31", limit=31
    ):
        endpoint.subscribe("x", print, group="g31")


def test_members_with_different_keys(bus: shmbus.Bus, attach: Attach) -> None:
    attach("one").subscribe("x.*", print, group="g", key="x.{id}")
    with provoked(
        errors.GroupConflict,
        "Give all members the same pattern and key",
        endpoint="e",
        group="g",
        key=None,
        theirs="x.{*}",
        limit=None,
    ):
        attach("e").subscribe("x.*", print, group="g")


def test_too_many_groups_with_a_key(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    for i in range(16):
        endpoint.subscribe("x.*", print, group=f"g{i}", key="x.{id}")
    with provoked(
        errors.GroupConflict,
        "Let members of some of them share a group",
        endpoint="e",
        group="g16",
        key="x.{*}",
        theirs=None,
        limit=16,
    ):
        endpoint.subscribe("x.*", print, group="g16", key="x.{id}")


def test_too_many_mailboxes(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    for i in range(32):
        endpoint.subscribe(f"x{i}", overflow="latest", depth=1)
    with provoked(
        errors.TooManyMailboxes,
        "attach a second endpoint",
        endpoint="e",
        pattern="y",
        limit=32,
        what="endpoint",
    ):
        endpoint.subscribe("y", overflow="drop_oldest")


def test_messages_asked_for_in_two_ways(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.start()
    with provoked(
        errors.ReceiveConflict,
        "Give every subscription a callback",
        endpoint="e",
        reason=such(lambda reason: "run()" in reason),
        remedy=such(),
    ):
        endpoint.receive(0)


def test_an_answer_to_an_event(bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder) -> None:
    events = recorder("x")
    attach("e").publish("x")
    (event,) = events.wait()
    with provoked(errors.NotARequest, "Let its sender use request()", type="x", kind="event"):
        event.reply(1)


def test_what_nobody_shares_given_back(bus: shmbus.Bus, attach: Attach) -> None:
    receiver = attach("r")
    receiver.subscribe("x")
    attach("e").publish("x")
    event = receiver.receive(60)
    assert event is not None
    with provoked(
        errors.CannotNack,
        "Subscribe with group=",
        endpoint="r",
        type="x",
        reason="it came for no group, so that every subscriber has it already",
        remedy="Subscribe with group= to share events",
    ):
        event.nack()


def test_a_second_answer(bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder) -> None:
    requests = recorder(handles=["x"])
    reply = attach("e").request("x", timeout=60)
    (request,) = requests.wait()
    with provoked(
        errors.AlreadyReplied, "Reply once", type="x", correlation_id=reply.correlation_id
    ):
        request.reply(1)


def test_receivers_that_do_not_come(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x.>")
    with provoked(
        errors.WaitTimeout,
        "Start those that subscribe to it",
        pattern="x.y",
        receivers=2,
        found=1,
        seconds=0.01,
    ):
        endpoint.wait_for("x.y", receivers=2, timeout=0.01)


def test_commands_that_could_not_be_finished(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint, sender = attach("e"), attach("sender")
    endpoint.handle("x", lambda message: None)
    for _ in range(3):
        sender.send("x")
    eventually(lambda: bus.find("x")[0].untouched == 3)
    with provoked(
        errors.DrainTimeout, "Drain with a longer timeout", endpoint="e", left=2, seconds=0.0
    ):
        endpoint.drain(timeout=0.0)
