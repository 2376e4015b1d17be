#!/usr/bin/env python3
"""Make careless changes of the code, one at a time, and see which test notices each.

    python stress/mutate.py                      all of stress/mutation/changes.toml
    python stress/mutate.py --only lost fence    those whose name or file has one of these words
    python stress/mutate.py --list               say what they are, and change nothing

The checkout, with what is not committed yet, is copied to a temporary directory, and only the copy
is changed. First the tests that the table names run there without any change: they must pass. Then,
for each change, the kernels that include the changed file are compiled, and the tests that the
table names for it run; where they all pass, so do the smoke tests, or with --whole the fast ones.
Tests of the C programs come first, since they need no kernel. The outcome is one of

    caught     a named test failed, or took longer than --limit
    elsewhere  no named test failed, another did: name that one in the table
    SURVIVED   all passed: write the test that fails, or say in the table why it is harmless
    harmless   the table says why nobody can notice it; run only where --only names it
    BROKEN     it does not compile, or its text is not there once

Exits with 1 if one survived or is broken. In pieces, for instance beside other work:

    python stress/mutate.py --place /tmp/mutants --json done.json --continue --stop-after 150

keeps the copy and its kernels for the next call, and leaves out what done.json has already, except
the broken. When it has ended, nothing that a test started runs, and nothing of it is in /dev/shm.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from mutation import run, table
from mutation.table import Change
from mutation.workshop import BuildFailed, Workshop


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one change."""

    name: str
    file: str
    breaks: str
    outcome: str
    by: str = ""
    """The test that noticed it, or why it is harmless or broken."""
    seconds: float = 0.0

    @classmethod
    def of(cls, change: Change, outcome: str, by: str, seconds: float = 0.0) -> Outcome:
        return cls(
            name=change.name,
            file=change.file,
            breaks=change.breaks,
            outcome=outcome,
            by=by,
            seconds=seconds,
        )


class Trial:
    """Tries changes in a workshop."""

    def __init__(self, workshop: Workshop, *, limit: float, whole: bool, jobs: int) -> None:
        self._workshop, self._limit = workshop, limit
        self._rest = ["-m", "not slow" if whole else "smoke", "-n", str(jobs)]

    def run(self, tests: list[str], *more: str) -> run.Ran:
        arguments = [*tests, *more]
        return run.pytest(self._workshop.python, self._workshop.copy, arguments, limit=self._limit)

    def outcome(self, change: Change) -> Outcome:
        began = time.monotonic()
        try:
            with self._workshop.changed(change):
                outcome, by = self._try(change)
        except BuildFailed as why:
            outcome, by = "BROKEN", str(why)
        return Outcome.of(change, outcome, by, round(time.monotonic() - began, 1))

    def _try(self, change: Change) -> tuple[str, str]:
        native = [test for test in change.tests if test.startswith("tests/native/")]
        others = [test for test in change.tests if test not in native]
        if native and (by := _noticed(ran := self.run(native))):
            if ran.uncompiled:
                raise BuildFailed(ran.uncompiled)
            return "caught", by
        self._workshop.build()
        if others and (by := _noticed(self.run(others))):
            return "caught", by
        if by := _noticed(self.run(["tests"], *self._rest)):
            return "elsewhere", by
        if change.harmless:
            return "harmless", change.harmless
        return "SURVIVED", ""


def _noticed(ran: run.Ran) -> str:
    """By which test; empty: all passed."""
    if ran.hung:
        return f"longer than {ran.seconds:.0f} s"
    return ", ".join(ran.failed) or ran.trouble[-300:]


def main() -> int:
    options = _options()
    chosen = [change for change in table.changes() if _is_meant(change, options.only)]
    if not chosen:
        sys.exit("no change has such a name or file; --list shows them all")
    if options.list:
        for change in chosen:
            print(f"{change.name}  ({change.file})\n    breaks: {change.breaks}")
            for test in change.tests:
                print(f"    noticed by: {test}")
            if change.harmless:
                print(f"    harmless: {change.harmless}")
        return 0
    outcomes = _earlier(options.json) if options.resume else {}
    with _place(options.place) as place:
        for outcome in _outcomes(chosen, outcomes, options, place):
            outcomes[outcome.name] = outcome
            if options.json:
                options.json.write_bytes(
                    msgspec.json.format(msgspec.json.encode(list(outcomes.values())))
                )
    return _report([outcomes[c.name] for c in chosen if c.name in outcomes], len(chosen))


def _outcomes(
    chosen: list[Change], done: dict[str, Outcome], options: argparse.Namespace, place: Path
) -> Iterator[Outcome]:
    began = time.monotonic()
    todo: list[Change] = []
    for change in chosen:
        if change.name in done:
            continue
        if wrong := list(table.faults(change)):
            yield Outcome.of(change, "BROKEN", "; ".join(wrong))
        elif change.harmless and not options.only:
            yield Outcome.of(change, "harmless", change.harmless)
        else:
            todo.append(change)
    if not todo:
        return
    _say(f"copying the checkout to {place} and compiling its kernels")
    workshop = Workshop(table.ROOT, place)
    workshop.open()
    trial = Trial(workshop, limit=options.limit, whole=options.whole, jobs=options.jobs)
    if not options.unchecked:
        tests = sorted({test for change in todo for test in change.tests})
        _say(f"the {len(tests)} named tests, without a change")
        ran = trial.run(tests, "-n", str(options.jobs))
        if not ran.good:
            sys.exit(f"they do not pass as they are: {_noticed(ran)}")
    for number, change in enumerate(todo, 1):
        if options.stop_after and time.monotonic() - began > options.stop_after:
            _say(f"{len(todo) - number + 1} are left: the time is over")
            return
        _say(f"{number} of {len(todo)}: {change.name}", end=" ")
        outcome = trial.outcome(change)
        _say(f"-> {outcome.outcome} ({outcome.seconds:.0f} s) {outcome.by.splitlines()[-1:]}")
        yield outcome


def _report(outcomes: list[Outcome], chosen: int) -> int:
    counts = collections.Counter(each.outcome for each in outcomes)
    for each in outcomes:
        if each.outcome not in ("caught", "harmless"):
            print(f"{each.outcome:9} {each.name} ({each.file})")
            print(f"          breaks: {each.breaks}")
            print(f"          by: {each.by}" if each.by else "          no test noticed it")
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()), end="")
    print(f"; {chosen - len(outcomes)} not run" if chosen > len(outcomes) else "")
    return int(bool(counts["SURVIVED"] or counts["BROKEN"]))


def _is_meant(change: Change, words: list[str]) -> bool:
    return not words or any(word in change.name or word in change.file for word in words)


def _earlier(path: Path | None) -> dict[str, Outcome]:
    if path is None or not path.exists():
        return {}
    found = msgspec.json.decode(path.read_bytes(), type=list[Outcome])
    return {outcome.name: outcome for outcome in found if outcome.outcome != "BROKEN"}


@contextlib.contextmanager
def _place(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="shmbus-mutants-") as place:
        yield Path(place)


def _say(text: str, *, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", default=[], metavar="WORD", help="changes with a word in name or file")
    add("--list", action="store_true", help="say what the changes are, and try none")
    add("--json", type=Path, metavar="FILE", help="write the outcomes there, after each change")
    add("--continue", dest="resume", action="store_true", help="leave out what FILE has already")
    add("--place", type=Path, metavar="DIR", help="keep the copy and its kernels there")
    add("--stop-after", type=float, metavar="SECONDS", help="begin no further change after that")
    add("--limit", type=float, default=180.0, metavar="SECONDS", help="of one run of pytest (180)")
    add("--whole", action="store_true", help="after the named tests, all fast ones, not the smoke")
    add("--jobs", type=int, default=2, help="tests at a time (2)")
    add(
        "--unchecked", action="store_true", help="do not run the named tests without a change first"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
