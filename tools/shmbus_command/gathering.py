"""What became of a request to all who handle its type: a table, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmbus_console.messages import envelope, shown
from shmbus_console.output import flush, print_json, write
from shmbus_console.run import Failure
from shmbus_console.text import columns
from shmbus_console.wording import explain

from shmbus import Endpoint, Message, errors

Results = Mapping[str, Message | errors.BusError]


def ask_all(
    endpoint: Endpoint,
    type: str,
    payload: object,
    timeout: float,
    at_least: int | None,
    *,
    as_json: bool,
) -> None:
    """Ask, and print what each of them answered. Fails where not all have replied, or fewer than
    `at_least`."""
    try:
        results = endpoint.gather(type, payload, timeout=timeout, at_least=at_least)
    except errors.TooFewReplies as why:
        _print(type, why.results, as_json)
        raise
    if not results:
        raise errors.NoRoute(type=type)
    _print(type, results, as_json)
    failures = {name: one for name, one in results.items() if isinstance(one, errors.BusError)}
    if failures and at_least is None:
        raise Failure(
            f"{len(failures)} of {len(results)} endpoints did not reply to {type!r}: "
            f"{', '.join(failures)}",
            timed_out=all(isinstance(one, TimeoutError) for one in failures.values()),
            type=type,
            asked=len(results),
            failed=list(failures),
        )


def _print(type: str, results: Results, as_json: bool) -> None:
    if as_json:
        print_json({"type": type, "results": {n: _document(one) for n, one in results.items()}})
    elif results:
        rows = [[name, *_line(one)] for name, one in results.items()]
        write("\n".join(columns(["ENDPOINT", "OUTCOME", "ANSWER"], rows)).encode())
    flush()


def _document(one: Message | errors.BusError) -> dict[str, Any]:
    if isinstance(one, errors.BusError):
        error = {"class": type(one).__name__, "message": explain(one), "facts": one.data}
        return {"error": error}
    return {"reply": envelope(one)}


def _line(one: Message | errors.BusError) -> tuple[str, str]:
    if isinstance(one, errors.RemoteError):
        return "raised", f"{one.error}: {one.message}"
    if isinstance(one, errors.EndpointDied):
        begun = "it had begun" if one.begun else "it had not begun"
        return "died", f"{one.reason}, {begun}"
    if isinstance(one, errors.RequestTimeout):
        begun = {None: "", True: ", it had begun", False: ", it had not begun"}[one.begun]
        return "timed out", f"no reply within {one.seconds:.3g} s{begun}"
    if isinstance(one, errors.Withdrawn):
        return "withdrawn", "it had not replied yet"
    if isinstance(one, errors.BusError):
        return "failed", explain(one)
    return "replied", shown(one)
