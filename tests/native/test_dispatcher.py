"""The dispatcher's half of the C kernel, without Python: every promise of the C files beside this
one, plain and under the sanitizers, on a bus without processes."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from .conftest import Program, run

HERE = Path(__file__).resolve().parent
SOURCES = [
    "events.c",
    "bus_events.c",
    "requests.c",
    "cancels.c",
    "streams.c",
    "queries.c",
    "backlogs.c",
    "keyed.c",
    "limits.c",
    "nacks.c",
    "retaining.c",
    "closings.c",
    "deaths.c",
    "wills.c",
    "hostile.c",
    "routing.c",
    "urgent.c",
    "threads.c",
    "endpoint.c",
    "spinning.c",
    "ring.c",
    "blocks.c",
    "pools.c",
    "hostile_pools.c",
    "pooled_values.c",
    "revoking.c",
    "links.c",
]
ALONE = ("limits.c", "spinning.c")
"""Put functions of their own in the place of some that the kernel calls."""
VARIANTS = {
    "threads": ["-O0", "-fsanitize=thread"],
    "plain": ["-O0"],
    "sanitized": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
"""Not optimized: compiling takes longer than all that is run. The kernels of an installation, which
the other tests use, are, and so are the stress programs here."""
SMOKE = ("plain", "an_event_reaches_everyone_whose_pattern_matches_and_nobody_else")
NAMES = ("source", "promise", "variant")
PROMISES = [
    pytest.param(
        source,
        promise,
        variant,
        id=f"{variant}-{promise}",
        marks=[pytest.mark.slow] * (variant != "plain")
        + [pytest.mark.smoke] * ((variant, promise) == SMOKE),
    )
    for source in SOURCES
    for variant in VARIANTS
    if variant != "threads" or source == "threads.c"
    for promise in re.findall(r"^TEST\((\w+)\)", (HERE / source).read_text(), re.M)
]

Broken = dict[str, str]
"""Of those that ran: why a promise was not kept; empty where it was."""


def keep(command: list[str], promises: list[str]) -> Broken:
    """Run these promises in one process. It ends with the first that is not kept: the others run in
    another."""
    ended = run([*command, *promises])
    kept = ended.printed.split()
    fine = (ended.code, ended.complaint, ended.left) == (0, "", [])
    if fine and set(kept) == set(promises):
        return dict.fromkeys(promises, "")
    why = f"exit code {ended.code}, left in /dev/shm: {ended.left}\n{ended.complaint}"
    broken = [promise for promise in promises if promise not in kept]
    if len(promises) == 1:
        return {promises[0]: why}
    if not broken:  # only the end of the process showed it: find the promise that is not kept
        return {promise: keep(command, [promise])[promise] for promise in promises}
    others = keep(command, broken[1:]) if broken[1:] else {}
    return dict.fromkeys(kept, "") | {broken[0]: why} | others


@pytest.fixture(scope="session")
def broken(program: Program, place: Path, request: pytest.FixtureRequest) -> Callable[..., Broken]:
    """`broken(source, variant)`: compiles that, and runs all that was asked for of it, once however
    many tests and workers want to know."""

    asked: dict[str, dict[str, list[str]]] = {variant: {} for variant in VARIANTS}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == Path(__file__):
            source, promise, variant = map(str, (item.callspec.params[n] for n in NAMES))
            asked[variant].setdefault(source, []).append(promise)

    def compiled(variant: str, alone: str) -> Path:
        """All files that are asked for, as one."""
        if alone:
            name = f"{alone.removesuffix('.c')}-alone-{variant}"
            return program(name, ["main.c", alone], VARIANTS[variant])
        sources = ["main.c", *(one for one in asked[variant] if one not in ALONE)]
        return program(variant, [sources], VARIANTS[variant])

    def alone(source: str) -> str:
        return source if source in ALONE else ""

    # At the same time: all workers wait for them.
    kinds = {(variant, alone(source)) for variant, files in asked.items() for source in files}
    with ThreadPoolExecutor() as pool:
        programs = dict(zip(kinds, pool.map(lambda kind: compiled(*kind), kinds), strict=True))

    def run_once(source: str, variant: str) -> Broken:
        name = f"{source.removesuffix('.c')}-{variant}"
        account = place / f"{name}.json"
        with open(place / f"{name}.run.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not account.exists():
                command = [str(programs[variant, alone(source)])]
                if variant == "threads":  # whose memory map does not go with randomised addresses
                    command = ["setarch", "-R", *command]
                account.write_bytes(msgspec.json.encode(keep(command, asked[variant][source])))
        return msgspec.json.decode(account.read_bytes(), type=Broken)

    return run_once


@pytest.mark.parametrize(NAMES, PROMISES)
def test_promise(broken: Callable[..., Broken], source: str, promise: str, variant: str) -> None:
    why = broken(source, variant)[promise]
    assert not why, why
