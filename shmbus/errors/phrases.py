"""What the messages of several errors say alike."""

from __future__ import annotations


def duration(seconds: float) -> str:
    return f"{seconds:.3g} s"


def of_size(size: int | None) -> str:
    return "" if size is None else f" of {size} bytes"


def at(index: int | None) -> str:
    return "" if index is None else f"message {index} of the batch: "


def named_by(variable: str, remedy: str = "set that to another, or unset it") -> str:
    """That a name comes from the environment, to be added to a message."""
    return f". {variable} in the environment names it: {remedy}" if variable else ""


def go_on(dispatcher: int, stopped: bool) -> str:
    """What to do about a dispatcher that does not get on."""
    if stopped:
        return f"Let it go on: kill -CONT {dispatcher}"
    return f"See what blocks that process: py-spy dump --pid {dispatcher}"


def standstill(dispatcher: int, silent: float, stopped: bool) -> str:
    """That it does not get on, and what to do."""
    return (
        f"dispatcher {dispatcher} {'is stopped' if stopped else 'hangs'} and has forwarded nothing "
        f"for {duration(silent)}. {go_on(dispatcher, stopped)}"
    )
