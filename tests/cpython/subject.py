"""What is put in the place of something of CPython's, and which of its tests are run so."""

from __future__ import annotations

import importlib
import unittest
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple


class Subject(NamedTuple):
    """One of ours that takes the place of one of CPython's."""

    modules: tuple[str, ...]
    """Those of the package `test` that have its cases."""

    wanted: Callable[[unittest.TestCase], bool]
    """Whether a case of theirs is about it."""

    exchange: Callable[[], None]
    """Puts ours in the original's place; called before any of the modules is imported."""

    prepare: Callable[[unittest.TestCase], None]
    """Called in the process of a case before it runs, where the exchange was made."""

    excepted: Mapping[str, str]
    """Cases that ours cannot pass, each with the reason: "method", or "Class.method"."""

    def cases(self) -> Iterator[unittest.TestCase]:
        """All that are wanted, the excepted ones included."""
        for name in self.modules:
            found = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(name))
            yield from (case for case in _flat(found) if self.wanted(case))

    def why_excepted(self, case: unittest.TestCase) -> str | None:
        """The reason, or None where ours must pass it."""
        method = case.id().rpartition(".")[2]
        whole = f"{type(case).__name__}.{method}"
        return self.excepted.get(whole) or self.excepted.get(method)


def _flat(suite: unittest.TestSuite | unittest.TestCase) -> Iterator[unittest.TestCase]:
    if isinstance(suite, unittest.TestCase):
        yield suite
    else:
        for part in suite:
            yield from _flat(part)
