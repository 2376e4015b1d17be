"""Ctrl-C while an endpoint attaches."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from types import FrameType
from typing import Any

import pytest

import shmbus

MADE_BY = ("endpoint/attach.py", "endpoint/endpoint.py", "endpoint/ending.py", "endpoint/seat.py")


class Interrupter:
    """Raises KeyboardInterrupt at the `at`-th line of the files that make an endpoint."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self.line if frame.f_code.co_filename.endswith(MADE_BY) else None

    def line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.line


@pytest.mark.slow
def test_an_attach_that_is_interrupted_anywhere_closes_nothing_twice(
    bus: shmbus.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice: list[int] = []
    close = os.close

    def checked(descriptor: int) -> None:
        try:
            close(descriptor)
        except OSError:
            twice.append(descriptor)

    monkeypatch.setattr(os, "close", checked)
    at, attached = 0, False
    while not attached:
        at += 1
        before = sys.gettrace()
        sys.settrace(Interrupter(at))
        try:
            endpoint = shmbus.attach(bus.name, name=f"one-{at}", timeout=60)
            attached = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an endpoint that was never closed
            gc.collect()
        assert twice == [], f"interrupted at line {at}"
    assert at > 50
    endpoint.close()
