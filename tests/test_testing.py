"""shmbus.testing: users test their workers with it, and it reports what went wrong."""

from __future__ import annotations

import os
import resource
from typing import get_type_hints

import pytest

import shmbus
from shmbus import testing
from shmbus.testing import (
    AioAttach,
    AioAttachOptions,
    Attach,
    AttachOptions,
    BusProcess,
    MakeRecorder,
    StartWorker,
    eventually_async,
    run_async,
)

pytest_plugins = ["pytester"]


def answer(endpoint: shmbus.Endpoint, hit: str) -> None:
    endpoint.handle("index.query", lambda message: {"hits": [hit]})
    endpoint.run()


def count(endpoint: shmbus.Endpoint, n: int) -> int:
    for i in range(n):
        endpoint.publish("count.up", i)
    return n


def fail(endpoint: shmbus.Endpoint) -> None:
    raise LookupError("no such thing")


def test_a_worker_is_a_function_on_the_bus_in_a_process_of_its_own(
    bus: shmbus.Bus, worker: StartWorker, attach: Attach
) -> None:
    process = worker(answer, "a.py", name="indexer")
    assert [(e.name, e.pid) for e in bus.endpoints()] == [("indexer", process.pid)]
    assert process.pid != os.getpid()
    client = attach("client")
    client.wait_for("index.query")
    assert client.request("index.query", timeout=60).payload == {"hits": ["a.py"]}


@pytest.mark.smoke
def test_a_worker_gives_back_what_its_function_returned(
    worker: StartWorker, recorder: MakeRecorder, bus: shmbus.Bus
) -> None:
    seen = recorder("count.*")
    process = worker(count, 100)
    assert process.result() == 100
    assert process.wait() == 0
    assert [m.payload for m in seen.wait(100)] == list(range(100))


def test_a_worker_may_be_started_beside_a_thousand_open_files(
    bus: shmbus.Bus, worker: StartWorker
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 2048:
        pytest.skip("this machine allows no more files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limits[1]))
    files: list[int] = []
    try:
        while not files or files[-1] < 1100:
            files.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        assert worker(count, 3).result() == 3
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_a_worker_raised_is_told(bus: shmbus.Bus, worker: StartWorker) -> None:
    process = worker(fail)
    with pytest.raises(testing.WorkerFailed, match=r"(?s)in fail.*LookupError: no such thing"):
        process.result()


def test_what_a_worker_raised_is_printed_where_nobody_asks_for_its_result(
    bus: shmbus.Bus, worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    assert worker(fail).wait() == 1
    assert "LookupError: no such thing" in capfd.readouterr().err


def test_a_worker_killed_before_it_returned_is_told(bus: shmbus.Bus, worker: StartWorker) -> None:
    process = worker(answer, "a.py")
    process.kill()
    with pytest.raises(testing.WorkerFailed, match="exit code -9"):
        process.result()


def test_a_worker_must_be_found_by_its_process(bus: shmbus.Bus, worker: StartWorker) -> None:
    with pytest.raises(ValueError, match="top of its module"):
        worker(lambda endpoint: None)


def test_a_worker_may_be_a_program(
    bus: shmbus.Bus, worker: StartWorker, recorder: MakeRecorder, tmp_path: os.PathLike[str]
) -> None:
    program = os.path.join(tmp_path, "program.py")
    with open(program, "w") as file:
        file.write(
            "import shmbus, sys\n"
            "with shmbus.attach(sys.argv[1]) as endpoint:\n"
            "    endpoint.publish('program.ran', sys.argv[2])\n"
        )
    seen = recorder("program.ran")
    process = worker(program, bus.name, "well")
    assert [m.payload for m in seen.wait()] == ["well"]
    assert process.wait() == 0


def test_a_program_learns_the_bus_of_its_test(
    bus: shmbus.Bus, worker: StartWorker, recorder: MakeRecorder, tmp_path: os.PathLike[str]
) -> None:
    code = "import shmbus\nwith shmbus.attach() as e: e.publish('ran', e.bus.name)\n"
    program = os.path.join(tmp_path, "program.py")
    with open(program, "w") as file:
        file.write(code)
    seen = recorder("ran")
    worker(program)
    testing.run_python(code, bus=bus.name)
    with testing.start_python(code, bus=bus.name):
        assert [m.payload for m in seen.wait(3)] == [bus.name] * 3


def test_who_names_no_bus_is_told_at_once(
    bus_name: str, worker: StartWorker, attach: Attach, recorder: MakeRecorder
) -> None:
    for start in (lambda: worker(count, 1), attach, lambda: recorder("x")):
        with pytest.raises(AssertionError, match="name `bus` or `bus_process` among the fixtures"):
            start()
    with pytest.raises(shmbus.errors.AttachTimeout):
        attach(timeout=0.01)
    with shmbus.serve(bus_name):
        assert worker(count, 2).result() == 2
        attach("one").close()


def test_attach_and_recorder_take_what_shmbus_attach_takes() -> None:
    taken = get_type_hints(shmbus.attach)
    for own in ("bus", "name", "return"):
        del taken[own]
    assert get_type_hints(AttachOptions) == taken
    assert get_type_hints(AioAttachOptions) == taken | {"concurrency": int}


def test_a_misspelt_option_is_an_error_at_once(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    # mypy sees each as well, or it would call these comments unused.
    with pytest.raises(TypeError, match="'reconect'"):
        attach("e", reconect=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'reconect'"):
        recorder("x", reconect=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'reconect'; it has name, timeout, settings, reconnect"):
        worker(count, 1, reconect=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no options"):
        worker("program.py", name="program")
    assert bus.endpoints() == []


@pytest.mark.bus(in_bytes=8192, out_bytes=8192)
def test_a_worker_is_attached_with_its_options(bus: shmbus.Bus, worker: StartWorker) -> None:
    worker(
        answer,
        "",
        settings=shmbus.Settings(in_bytes=4096, out_bytes=4096),
        timeout=None,
        reconnect=True,
    )
    assert bus.endpoints()[0].incoming.capacity == 4096


def test_a_program_prints_lines_for_its_test_until_the_block_ends() -> None:
    code = """
        import sys
        print(*sys.argv[1:])
        sys.stdin.readline()
        print("on", end="")
    """
    with testing.start_python(code, "one", 2) as program:
        assert program.line() == "one 2"
        assert program.wait() == 0
    assert program.printed == "on"
    with pytest.raises(AssertionError, match="exit code 0 and no further line"):
        program.line()
    with testing.start_python("import time; print('ready'); time.sleep(600)") as program:
        assert program.line() == "ready"
        assert (program.printed, program.alive) == ("", True)
        with pytest.raises(AssertionError, match=r"wrote nothing for 0.01 s"):
            program.line(timeout=0.01)
    assert program.wait() == -15


def test_the_recorder_waits_for_what_it_is_asked_for(
    recorder: MakeRecorder, bus: shmbus.Bus
) -> None:
    seen = recorder("job.>", handles=["job.stop"])
    with bus.attach("source") as source:
        source.publish("job.1.begun", 1)
        source.publish("job.1.done", 2)
        source.send("job.stop", "now")
        assert [m.payload for m in seen.wait(where=lambda m: m.type == "job.stop")] == ["now"]
        assert seen.types == ["job.1.begun", "job.1.done", "job.stop"]
        assert seen.payloads == [1, 2, "now"]
        with pytest.raises(AssertionError, match=r"3 of 4 messages .* 'job.stop'"):
            seen.wait(4, timeout=0.05)
        seen.clear()
        assert len(seen) == 0


async def double_in_a_loop(endpoint: shmbus.aio.Endpoint, times: int) -> None:
    async def double(message: shmbus.Message[int]) -> int:
        return message.payload * times

    endpoint.handle("double", double)
    await endpoint.run()


def test_the_function_of_a_worker_may_be_async(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    process = worker(double_in_a_loop, 2)
    client = attach()
    client.wait_for("double")
    assert client.request("double", 21, timeout=60).payload == 42
    process.stop()


def test_run_async_says_that_it_is_no_decorator_of_tests() -> None:
    async def test_something(bus: shmbus.Bus) -> None:
        raise AssertionError(bus)

    with pytest.raises(TypeError, match=r"missing a required argument: 'bus'.*within it"):
        run_async(test_something)


def test_what_runs_in_an_event_loop_is_tested_without_a_plugin(
    bus: shmbus.Bus, aio_attach: AioAttach, recorder: MakeRecorder
) -> None:
    asked = recorder("asked")

    async def main(what: str) -> object:
        async with aio_attach("ui", concurrency=1) as ui, aio_attach("server") as server:

            @server.handle("echo")
            async def echo(message: shmbus.Message) -> object:
                await server.publish("asked", message.payload)
                return message.payload

            server.start()
            reply = await ui.request("echo", what)
            assert [m.payload for m in await asked.wait_async()] == [what]
            await eventually_async(lambda: len(asked) == 1)
            return reply.payload

    assert run_async(main, "hello") == "hello"
    assert bus.endpoints()[0].name == asked.endpoint.name  # the others are gone
    assert len(bus.endpoints()) == 1


def test_what_never_comes_true_in_an_event_loop_fails_with_its_name() -> None:
    def never() -> bool:
        return False

    async def main() -> None:
        await eventually_async(never, timeout=0.01)

    with pytest.raises(AssertionError, match="never"):
        run_async(main)


def test_a_dispatcher_can_be_killed_and_its_successor_adopts_the_bus(
    bus_process: BusProcess, recorder: MakeRecorder, worker: StartWorker
) -> None:
    seen = recorder("count.*", reconnect=True)
    first = bus_process.pid
    bus_process.restart()
    assert bus_process.pid != first
    worker(count, 10).result()
    assert [m.payload for m in seen.wait(10)] == list(range(10))


@pytest.mark.bus(in_bytes=8192, out_bytes=8192)
def test_the_marker_gives_the_settings(bus: shmbus.Bus, attach: Attach) -> None:
    attach("one")
    assert bus.endpoints()[0].incoming.capacity == 8192


def test_a_paused_process_stands_still_until_it_is_resumed(
    bus: shmbus.Bus, worker: StartWorker, attach: Attach
) -> None:
    process = worker(answer, "a.py", name="indexer")
    client = attach("client")
    client.wait_for("index.query")
    process.pause()
    with pytest.raises(shmbus.errors.RequestTimeout):
        client.request("index.query", timeout=0.05)
    process.resume()
    assert client.request("index.query", timeout=60).payload == {"hits": ["a.py"]}


def test_faults_meet_only_what_the_test_started() -> None:
    for fault in (testing.kill, testing.pause, testing.resume):
        with pytest.raises(ValueError, match="not started by this test"):
            fault(os.getppid())
    with testing.start_python("import time; time.sleep(600)") as child:
        testing.pause(child.pid)
        testing.resume(child.pid)
        testing.kill(child.pid)
        assert child.wait() == -9


def test_what_never_comes_true_fails_with_its_name() -> None:
    with pytest.raises(AssertionError, match="the moon is blue; it is still 0"):
        testing.eventually(lambda: 0, "the moon is blue", timeout=0.01)


def test_what_a_bus_leaves_is_told_and_removed(bus_name: str) -> None:
    file = f"/dev/shm/shmbus:{os.geteuid()}:{bus_name}:lock"
    with pytest.raises(AssertionError, match=f"left in /dev/shm:\\s+shmbus:.*{bus_name}:lock"):
        with testing.no_leavings(bus_name, timeout=0.01):
            open(file, "w").close()
    assert testing.in_shm(bus_name) == []


@pytest.mark.slow
def test_a_dispatcher_that_does_not_come_up_in_time_ends_with_its_test(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("from shmbus.testing import processes\nprocesses.TIMEOUT = 0.0")
    pytester.makepyfile(
        """
        import psutil

        def test_in_vain(bus_process):
            pass

        def test_after_it():
            assert psutil.Process().children() == []
        """
    )
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*dispatcher of bus *wrote nothing for 0 s*"])


@pytest.mark.slow
def test_in_a_project_of_a_user(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nshmbus_leak_check = true\nfilterwarnings = error\n")
    pytester.makepyfile(
        """
        import shmbus

        def index(endpoint):
            endpoint.handle("index.query", lambda message: {"hits": []})
            endpoint.run()

        def test_answers(bus, attach, worker):
            worker(index, name="indexer")
            client = attach("client")
            client.wait_for("index.query")
            assert client.request("index.query", timeout=60).payload == {"hits": []}

        kept = []

        def test_forgets_to_close(bus_name):
            kept.append(shmbus.serve(bus_name + "-2"))

        def test_closes(bus_name):
            kept.pop().close()
        """
    )
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*this test left in /dev/shm:*", "*shmbus:*-2:bus*"])
