"""A process that serves a bus goes on when its children end and whatever its finalizers do."""

from __future__ import annotations

import pytest

import shmbus
from shmbus.testing import in_shm, run_python


@pytest.mark.smoke
def test_a_host_that_forks_serves_on_when_its_child_ends(bus: shmbus.Bus) -> None:
    code = """
        import os, sys, warnings, shmbus
        warnings.simplefilter("ignore")
        with shmbus.serve(sys.argv[1] + "2") as bus, bus.attach("me") as ep:
            ep.subscribe("x")
            child = os.fork()
            if child == 0:
                sys.exit(0)
            os.waitpid(child, 0)
            ep.publish("x", 1)
            assert ep.receive(60).payload == 1
            with bus.attach("other") as other:
                other.publish("x", 2)
                assert ep.receive(60).payload == 2
        print("fine")
    """
    assert run_python(code, bus.name) == "fine\n"
    assert in_shm(bus.name + "2") == []


def test_a_finalizer_that_puts_an_endpoint_out_does_not_stop_the_bus(bus_name: str) -> None:
    code = """
        import gc, linecache, sys, shmbus
        with shmbus.serve(sys.argv[1]) as bus:
            evict, collections = bus._dispatcher._kernel.evict, 0

            def collect(phase, info):
                global collections
                caller = sys._getframe(1)
                line = linecache.getline(caller.f_code.co_filename, caller.f_lineno)
                if "notices()" in line:
                    collections += 1
                    evict(0, 0)  # as a finalizer would that closes something of the bus

            gc.callbacks.append(collect)
            gc.set_threshold(1, 1, 1)  # which takes away the spare tuples, too
            for _ in range(50):  # until a collection falls into that call; from 3.12 on none does
                guests = [bus.attach(f"guest{n}") for n in range(20)]
                for guest in guests:
                    bus.evict(guest.name)
                for guest in guests:
                    guest.close()
                if collections or sys.version_info >= (3, 12):
                    break
            bus.attach("another").close()
            gc.callbacks.remove(collect)
        print("fine" if collections or sys.version_info >= (3, 12) else "not tried")
    """
    assert run_python(code, bus_name) == "fine\n"
