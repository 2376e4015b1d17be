"""The command line: see the package."""

from __future__ import annotations

import argparse
import os
import time

from . import executor, queues
from .runner import PASSED, SKIPPED, run_cases

SUBJECTS = {"executor": executor.SUBJECT, "queues": queues.SUBJECT}

AGAIN = 5
"""Failed cases that are run once more; if more failed, it is not the machine."""


def main() -> int:
    """Returns 0 if every case passed, or was skipped by itself."""
    parser = argparse.ArgumentParser(prog="python -m tests.cpython")
    parser.add_argument("subjects", nargs="*", help="which: " + ", ".join(SUBJECTS))
    parser.add_argument("-k", metavar="TEXT", default="", help="only cases with that in their name")
    parser.add_argument("--original", action="store_true", help="exchange nothing, except nothing")
    parser.add_argument("--excepted", action="store_true", help="run the excepted cases alone")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one case")
    parser.add_argument("-n", type=int, default=4 * (os.cpu_count() or 1), help="side by side")
    parser.add_argument("--durations", type=int, default=0, help="show so many of the longest")
    given = parser.parse_args()
    began = time.monotonic()
    failed = 0
    for name in given.subjects or SUBJECTS:
        failed += run(name, given)
    print(f"{time.monotonic() - began:.1f} s in all")
    return 1 if failed else 0


def run(name: str, given: argparse.Namespace) -> int:
    """One subject's cases; returns how many failed."""
    subject = SUBJECTS[name]
    if not given.original:
        subject.exchange()
    found = [case for case in subject.cases() if given.k in case.id()]
    excepted = (
        {}
        if given.original
        else {case.id(): why for case in found if (why := subject.why_excepted(case))}
    )
    cases = [case for case in found if (case.id() in excepted) == given.excepted]
    prepare = (lambda case: None) if given.original else subject.prepare
    outcomes = list(run_cases(cases, beside=given.n, limit=given.limit, prepare=prepare))
    failed = [outcome for outcome in outcomes if outcome.code not in (PASSED, SKIPPED)]
    if 0 < len(failed) <= AGAIN:  # some have limits of their own, which a busy machine exceeds
        for outcome in failed:
            print(f"once more, alone: {outcome.case.id()}", flush=True)
            outcomes.remove(outcome)
        cases = [outcome.case for outcome in failed]
        again = list(run_cases(cases, beside=1, limit=given.limit, prepare=prepare))
        failed = [outcome for outcome in again if outcome.code not in (PASSED, SKIPPED)]
        outcomes += again
    for outcome in failed:
        print(f"\nFAILED {outcome.case.id()}\n{outcome.output}", flush=True)
    for outcome in sorted(outcomes, key=lambda outcome: -outcome.seconds)[: given.durations]:
        print(f"{outcome.seconds:6.2f} s {outcome.case.id()}")
    count = {code: sum(outcome.code == code for outcome in outcomes) for code in (PASSED, SKIPPED)}
    print(
        f"{name}: {count[PASSED]} passed, {count[SKIPPED]} skipped by themselves, "
        f"{len(failed)} failed, {len(excepted)} excepted"
    )
    return len(failed)
