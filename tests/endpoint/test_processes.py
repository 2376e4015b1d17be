"""Forks, other ways to make processes, Ctrl-C, and the interpreter's end."""

import multiprocessing
import os
import signal
from typing import Any

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import Attach, MakeRecorder, eventually, run_python, start_python
from tests.kept import Kept

HEAD = """
import os, signal, sys, threading, time
import shmbus
NAME = sys.argv[1]
"""


@pytest.mark.smoke
def test_a_forked_child_refuses_and_may_attach_anew(bus: shmbus.Bus, bus_name: str) -> None:
    printed = run_python(
        HEAD
        + """
ep = shmbus.attach(NAME, name="parent")
ep.subscribe("x")
import warnings
warnings.simplefilter('ignore')  # from 3.12 on, of forking beside threads
child = os.fork()
if child == 0:
    calls = [lambda: ep.publish("x"), lambda: ep.receive(0), lambda: ep.request("x")]
    for call in [*calls, lambda: ep.subscribe("y")]:
        try:
            call()
        except shmbus.errors.ForkedEndpoint as error:
            assert error.pid == os.getppid()
        else:
            os._exit(1)
    own = shmbus.attach(NAME, name="child")
    own.publish("x", "from the child")
    own.close()
    ep.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
message = ep.receive(30)
assert message.source == "child"
ep.publish("x", "from the parent")
assert ep.receive(30).payload == "from the parent"
ep.close()
print("fine")
""",
        bus_name,
    )
    assert printed == "fine\n"


CALLS = """
class Calculator:
    def add(self, a: int) -> int:
        return a

calls = {
    "batch": lambda: ep.batch(),
    "bus": lambda: ep.bus.endpoints(),
    "drain": lambda: ep.drain(0),
    "gather": lambda: ep.gather("x"),
    "handle": lambda: ep.handle("handled", print),
    "matched": lambda: ep.matched("x"),
    "native_address": lambda: ep.native_address,
    "offer": lambda: ep.offer(Calculator(), "calc"),
    "client": lambda: ep.client(Calculator, "calc"),
    "on_match": lambda: ep.on_match("x", print),
    "on_death": lambda: ep.on_death("anybody", print),
    "loan": lambda: ep.loan("x", 1),
    "loan_array": lambda: ep.loan_array("x", 1, "u1"),
    "publish": lambda: ep.publish("x"),
    "publish_many": lambda: ep.publish_many([("x", 1)]),
    "fileno": lambda: ep.fileno(),
    "receive": lambda: ep.receive(0),
    "receive_many": lambda: ep.receive_many(0),
    "request": lambda: ep.request("x"),
    "request_async": lambda: ep.request_async("x"),
    "request_many": lambda: list(ep.request_many([("x", None)])),
    "run": lambda: ep.run(),
    "send": lambda: ep.send("x"),
    "start": lambda: ep.start(),
    "stream": lambda: ep.stream("x"),
    "a stream": lambda: next(stream),
    "subscribe": lambda: ep.subscribe("x"),
    "tap": lambda: ep.tap(),
    "wait_for": lambda: ep.wait_for("x", timeout=0),
    "iteration": lambda: iter(ep),
    "an iteration": lambda: next(iteration),
    "Batch.publish": lambda: batch.publish("x"),
    "Batch.send": lambda: batch.send("x"),
    "Batch.flush": lambda: batch.flush(),
    "Message.reply": lambda: message.reply(1),
    "Message.fail": lambda: message.fail(ValueError()),
    "Message.defer": lambda: message.defer(),
}
harmless = {"close", "name", "reconnect"}
"""


def test_every_call_of_a_forked_child_is_refused_whatever_its_parent_was_doing(
    bus_name: str,
) -> None:
    code = """
import warnings
with shmbus.serve(NAME) as bus, bus.attach("parent") as ep:
    taken = threading.Event()
    kept = []
    def keep(message):
        message.defer()
        kept.append(message)
        taken.set()
    iteration, batch = iter(ep), ep.batch()
    ep.handle("handled", keep)
    ep.start()
    asked = ep.request_async("handled", timeout=60)
    assert taken.wait(60)
    message = kept[0]
    stream = ep.stream("handled", timeout=60)
    warnings.simplefilter("ignore")  # from 3.12 on, of forking beside threads
    public = {name for name in dir(ep) if not name.startswith("_")}
    print(sorted(public - calls.keys() - harmless), flush=True)
    if (child := os.fork()) == 0:
        for name, call in calls.items():
            try:
                call()
                print(name, "returned")
            except shmbus.errors.ForkedEndpoint:
                pass
            except BaseException as error:
                print(name, "raised", repr(error))
        ep.close()
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    message.reply("still here")
    print(asked.result(60).payload)
"""
    assert run_python(HEAD + CALLS + code, bus_name) == "[]\nstill here\n"


def test_the_interpreter_ends_cleanly_with_threads_that_wait(
    bus: shmbus.Bus, bus_name: str
) -> None:
    for _ in range(3):
        run_python(
            HEAD
            + """
ep = shmbus.attach(NAME)
ep.subscribe("x", print)
ep.handle("y", print)
ep.start(threads=3)
other = shmbus.attach(NAME)
other.subscribe("z")
threading.Thread(target=lambda: list(other), daemon=True).start()
other.request_async("y", timeout=None)
""",
            bus_name,
        )
    eventually(lambda: bus.endpoints() == [])


def test_ctrl_c_drains_and_is_raised_again(bus: shmbus.Bus, bus_name: str, attach: Attach) -> None:
    client = attach("c")
    code = """
ep = shmbus.attach(NAME, name="worker")
ep.handle("x", lambda message: (time.sleep(0.001), message.payload)[1])
try:
    ep.run()
except KeyboardInterrupt:
    print("interrupted")
"""
    with start_python(HEAD + code, bus_name) as child:
        client.wait_for("x", timeout=60)
        futures = [client.request_async("x", i, timeout=60) for i in range(100)]
        eventually(lambda: bus.endpoints()[0].forwarded == 100)  # all are accepted
        futures[0].result(60)
        os.kill(child.pid, signal.SIGINT)
        answered = []
        for future in futures:
            try:
                answered.append(future.result(60).payload)
            except errors.RemoteError:  # the one that it was at
                pass
        assert len(answered) >= 99
        assert child.wait() == 0
        assert child.printed == "interrupted\n"


def test_ctrl_c_says_what_it_finishes_and_a_second_one_ends_it_at_once(
    bus: shmbus.Bus, bus_name: str, attach: Attach, capfd: pytest.CaptureFixture[str]
) -> None:
    client = attach("c")
    code = """
ep = shmbus.attach(NAME, name="worker")
ep.handle("x", lambda message: threading.Event().wait())
from shmbus.endpoint import ending
ending.CLOSING = 3600.0  # the test never waits for so long
with ep:
    ep.run(threads=2)
"""
    said = ""

    def says(text: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return text in said

    with start_python(HEAD + code, bus_name) as child:
        client.wait_for("x", timeout=60)
        for _ in range(3):
            client.send("x")
        eventually(lambda: bus.find("x")[0].in_hand == 2)
        os.kill(child.pid, signal.SIGINT)
        eventually(lambda: says("for 30 s at most; Ctrl-C again ends it at once"))
        assert "endpoint 'worker' is interrupted" in said
        os.kill(child.pid, signal.SIGINT)
        assert child.wait() != 0
        assert says("endpoint 'worker' ends at once, with ")
        assert says("KeyboardInterrupt")


@pytest.mark.parametrize("wait", ["receive(None)", "request('q', timeout=None)", "run()"])
def test_ctrl_c_ends_a_wait(
    bus: shmbus.Bus,
    bus_name: str,
    attach: Attach,
    wait: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = attach("server")
    server.handle("q", Kept())
    server.start()
    code = f"""
ep = shmbus.attach(NAME, name="waiting")
ep.subscribe("x", print)
print("ready")
with ep:
    ep.{wait}
"""
    with start_python(HEAD + code, bus_name) as child:
        assert child.line() == "ready"
        os.kill(child.pid, signal.SIGINT)
        assert child.wait() != 0
    assert "KeyboardInterrupt" in capfd.readouterr().err


@pytest.mark.slow
def test_ctrl_c_while_it_closes_ends_the_waiting_but_not_the_leaving(
    bus: shmbus.Bus, bus_name: str
) -> None:
    printed = run_python(
        HEAD
        + """
ep = shmbus.attach(NAME, name="e")
begun, go = threading.Event(), threading.Event()
ep.handle("slow", lambda message: (begun.set(), go.wait(60)))
ep.start()
ep.send("slow")
begun.wait(60)
await_others = ep._running.await_others
def interrupted(timeout):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    await_others(3600)
ep._running.await_others = interrupted
try:
    ep.close()
except KeyboardInterrupt:
    print("interrupted")
shmbus.attach(NAME, name="e").close()
try:
    ep.publish("x")
except shmbus.errors.EndpointClosed:
    print("closed")
go.set()
""",
        bus_name,
    )
    assert printed == "interrupted\nclosed\n"


def take_part(bus: str, name: str) -> None:
    with shmbus.attach(bus, name=name, timeout=60) as endpoint:
        assert endpoint.request("echo", name, timeout=60).payload == name


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_multiprocessing_attach_like_any_other(
    bus: shmbus.Bus, attach: Attach, method: str
) -> None:
    server = attach("server")
    server.handle("echo", lambda message: message.payload)
    server.start()
    context: Any = multiprocessing.get_context(method)
    processes = [
        context.Process(target=take_part, args=(bus.name, f"{method}{n}")) for n in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    eventually(lambda: {e.name for e in bus.endpoints()} == {"server"})


def test_a_forked_child_does_not_keep_its_parents_connection_to_the_door(bus: shmbus.Bus) -> None:
    """Whose end alone shows an exec where nothing else of a process may be read."""
    code = """
        import os, sys, warnings, shmbus
        warnings.simplefilter("ignore")
        endpoint = shmbus.attach(sys.argv[1])

        def sockets():
            links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
            return sum(os.readlink(l).startswith("socket:") for l in links if os.path.islink(l))

        print(sockets())
        sys.stdout.flush()
        if not os.fork():
            print(sockets())
            sys.stdout.flush()
            os._exit(0)
        os.wait()
    """
    assert run_python(code, bus.name) == "1\n0\n"


def test_a_forked_childs_end_is_not_its_parents(bus: shmbus.Bus, recorder: MakeRecorder) -> None:
    downs = recorder("$bus.endpoint.down")
    code = """
        import os, sys, warnings, shmbus
        warnings.simplefilter("ignore")
        ep = shmbus.attach(sys.argv[1], name="parent")
        ep.subscribe("x")
        for way in ("exit", "exception", "_exit"):
            child = os.fork()
            if child == 0:
                if way == "_exit":
                    os._exit(0)
                sys.exit(0)
            os.waitpid(child, 0)
        ep.publish("x", 1)
        assert ep.receive(60).payload == 1
        print("fine")
    """
    assert run_python(code, bus.name) == "fine\n"
    (down,) = downs.wait()
    assert down.payload["reason"] == "detached"


@pytest.mark.parametrize("way", ["return", "raise ValueError", "sys.exit()"])
def test_a_handler_that_forks_goes_on_in_its_parent_alone(bus: shmbus.Bus, way: str) -> None:
    code = """
        import os, sys, threading, warnings, shmbus
        warnings.simplefilter("ignore")
        worker = shmbus.attach(sys.argv[1], name="worker")
        seen = []

        def job(message):
            seen.append(message.payload)
            if len(seen) == 3:
                threading.Thread(target=worker.close).start()
            if len(seen) > 1:
                return
            child = os.fork()
            if child == 0:
                WAY
            os.waitpid(child, 0)
            (worker_seen,) = worker.bus.find("job")
            print(worker_seen.in_hand, worker_seen.handler_errors, flush=True)

        worker.subscribe("job", job, group="g")
        for number in range(3):
            worker.publish("job", number)
        try:
            worker.run()
        except shmbus.errors.ForkedEndpoint:
            os._exit(3)
        print(*seen, flush=True)
        worker.close()
    """
    code = code.replace("WAY", way)
    assert run_python(code, bus.name, quiet=False) == "1 0\n0 1 2\n"


EXIT = """
    import sys, threading, shmbus
    ep = shmbus.attach(sys.argv[1])
    kept = []
    ep.handle("never", lambda m: (m.defer(), kept.append(m))[0])
    ep.subscribe("x")
    def go(call):
        threading.Thread(target=call, daemon=True).start()
    go(lambda: ep.receive())
    go(lambda: ep.request("never", timeout=None))
    go(lambda: ep.wait_for("nobody", timeout=None))
    ep.on_death("somebody", print)
    ep.request_async("never", timeout=None)
    other = shmbus.attach(sys.argv[1])
    go(lambda: [other.publish("x", b"y" * 1000) for _ in range(10**9)])
    if sys.argv[2] == "error":
        raise SystemExit(3)
"""


@pytest.mark.parametrize("way", ["end", "error"])
def test_the_interpreter_ends_cleanly_whatever_its_daemon_threads_wait_for(
    bus: shmbus.Bus, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with start_python(EXIT, bus.name, way) as child:
        assert child.wait() == (3 if way == "error" else 0)
    assert "Fatal" not in capfd.readouterr().err
    eventually(lambda: bus.endpoints() == [])
