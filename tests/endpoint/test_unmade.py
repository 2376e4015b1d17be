"""What only the bus makes cannot be had otherwise: it is refused, or its methods raise;
no process ends by that."""

from __future__ import annotations

import pytest

from shmbus import Message
from shmbus.endpoint._kernel import Batch, LoopStream, Stream
from shmbus.testing import run_python

EVERYTHING = """
import contextlib, importlib, inspect

ARGUMENTS = ((), (None,), (0,), ("x",), ("x", 0), (None, None, None))

def drive(call, *arguments):
    with contextlib.suppress(BaseException):
        found = call(*arguments)
        if inspect.isawaitable(found):
            found.send(None)

for where in {kernels}:
    kernel = importlib.import_module(where)
    for kind in [one for one in vars(kernel).values() if inspect.isclass(one)]:
        if kind.__module__ != where:
            continue
        try:
            made = kind.__new__(kind)
        except TypeError:
            continue
        print("made", kind.__name__, flush=True)
        for name in dir(made):
            with contextlib.suppress(BaseException):
                member = getattr(made, name)
                for arguments in ARGUMENTS if callable(member) else ():
                    drive(member, *arguments)
        for look in (len, iter, next, repr, hash, bytes, memoryview):
            drive(look, made)
print("alive")
"""


def test_no_class_of_the_kernels_ends_the_process_where_its_maker_is_left_out() -> None:
    rooms = "shmbus.endpoint", "shmbus.shared", "shmbus.dispatcher", "ringbuf"
    kernels = [f"{room}._kernel" for room in rooms]
    said = run_python(EVERYTHING.format(kernels=kernels), quiet=False)
    assert said.endswith("alive\n"), said


def test_what_the_bus_makes_says_who_does() -> None:
    for kind, remedy in (
        (Message, "publish"),
        (Stream, "Endpoint.stream"),
        (LoopStream, "Endpoint.stream"),
        (Batch, "Endpoint.batch"),
    ):
        for make in (kind, lambda kind=kind: kind.__new__(kind)):
            with pytest.raises(TypeError, match=remedy):
                make()
