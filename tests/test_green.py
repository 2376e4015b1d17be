"""Where gevent or eventlet has replaced threads or sockets, the bus names the remedy."""

from __future__ import annotations

import importlib.util

import pytest

from shmbus.testing import run_python

REPLACED = """
import _thread, socket, sys
def patch_all():  # what gevent.monkey.patch_all does to these two
    def start_new_thread(function, args=(), kwargs={}):
        raise AssertionError("a greenlet, which never runs while the bus waits natively")
    start_new_thread.__module__ = "gevent.thread"
    _thread.start_new_thread = start_new_thread
"""
REAL = """
import sys
from gevent.monkey import patch_all
"""
WAYS = [
    pytest.param(REPLACED, id="as gevent does"),
    pytest.param(
        REAL,
        id="gevent",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
        ),
    ),
]


@pytest.mark.parametrize("way", WAYS)
def test_the_import_is_refused_where_threads_have_been_replaced(way: str) -> None:
    code = """
patch_all()
try:
    import shmbus
except ImportError as error:
    print(error)
"""
    printed = run_python(way + code)
    assert "gevent has replaced the threads" in printed
    assert "patch_all(thread=False, socket=False)" in printed


@pytest.mark.parametrize("way", WAYS)
def test_serving_and_attaching_are_refused_where_they_are_replaced_afterwards(way: str) -> None:
    code = """
import shmbus
patch_all()
for call in (shmbus.serve, shmbus.attach):
    try:
        call("any")
    except shmbus.errors.NotSupported as error:
        print(error)
"""
    serving, attaching = run_python(way + code).splitlines()
    assert serving.startswith("serving a bus is not supported: gevent has replaced the threads")
    assert attaching.startswith("attaching is not supported: gevent has replaced the threads")


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_the_remedy_helps(bus_name: str) -> None:
    code = """
import gevent
patch_all(thread=False, socket=False)
import shmbus
with shmbus.serve(sys.argv[1]) as bus, bus.attach("a") as a, bus.attach("b") as b:
    b.handle("double", lambda message: 2 * message.payload)
    b.start()
    print(gevent.spawn(lambda: a.request("double", 21).payload).get())
    print(a.request_async("double", 4).result(60).payload)
"""
    assert run_python(REAL + code, bus_name).split() == ["42", "8"]
