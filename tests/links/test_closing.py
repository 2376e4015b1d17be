"""The end of a link in a process that goes on."""

from __future__ import annotations

import threading
import time

import pytest

from tests.links.stage import Stage

_run = threading.Thread.run


def _run_slowly(self: threading.Thread) -> None:
    _run(self)
    if "shmbus" not in self.name:
        time.sleep(0.5)


def test_no_thread_that_calls_for_zenoh_is_left_when_a_link_is_closed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is left when the interpreter ends would abort the process."""
    (site,) = stage.sites("berlin")
    before = set(threading.enumerate())
    monkeypatch.setattr(threading.Thread, "run", _run_slowly)
    link = site.join()
    # Those that shmbus starts itself have names; they run no code of zenoh's when it has closed.
    calling = {t for t in threading.enumerate() if "shmbus" not in t.name} - before
    assert calling
    link.close()
    assert not calling & set(threading.enumerate())
