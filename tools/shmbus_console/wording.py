"""The messages of errors, which name options and commands here instead of calls."""

from __future__ import annotations

from collections.abc import Sequence

from shmbus import errors


class Options(errors.Wording):
    """What the users of the command can do."""

    longer = "--timeout"
    at_least = "--at-least"
    endpoints = "shmbus ls"
    route = "shmbus route"
    whose = "the bus's "
    which_bus = " (--bus)"
    traceback = False

    def wait_for(self, type: str) -> str:
        return "--wait"

    def serve(self, bus: str) -> str:
        return f"shmbus serve {bus}"

    def reconnect(self, how: str) -> str:
        return ""

    def setting(self, *names: str, to: int | None = None) -> str:
        value = "" if to is None else f" {to}"
        return " ".join(f"--{name.replace('_', '-')}{value}" for name in names)


class _Waited(Options):
    """As given with --wait, which ended first."""

    longer = "--wait"


class _OfFile(Options):
    """As given with --file."""

    parts = "Publish it in pieces (--chunk 1M)"


def explain(problem: errors.BusError, given: Sequence[str] = ()) -> str:
    """An error's message for who has given this command line."""
    if isinstance(problem, errors.WaitTimeout) and _is_among("--wait", given):
        return problem.told(_Waited())
    return problem.told(_OfFile() if _is_among("--file", given) else Options())


def _is_among(option: str, given: Sequence[str]) -> bool:
    return any(each.startswith(option) for each in given)
