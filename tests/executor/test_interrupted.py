"""What a signal's handler raises comes out of the executor's calls, and harms nothing."""

from __future__ import annotations

from typing import Any

import shmbus
from tests.interruption import Journey
from tests.stage import places_of, sweep


def test_an_interruption_anywhere_comes_out_and_every_task_ends_with_its_result() -> None:
    tasks: list[Any] = []

    def submit_and_wait() -> None:
        tasks.append(executor.submit(abs, -7))
        tasks[-1].result()

    def interrupt(journey: Journey) -> bool:
        return journey.comes_out_of(submit_and_wait)

    with shmbus.Executor(2) as executor:
        submit_and_wait()
        sweep(interrupt, places_of(interrupt))
        assert {task.result(60) for task in tasks} == {7}
        assert executor.submit(abs, -8).result(60) == 8
