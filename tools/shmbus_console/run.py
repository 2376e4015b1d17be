"""Running a command line: its errors, its signals and its exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from typing import Any

import click
from click.shell_completion import shell_complete

from shmbus import errors, streams

from .options import VARIABLE, named_by_variable
from .output import to_json
from .text import one_line
from .wording import explain

FAILED, USAGE, NO_BUS, TIMED_OUT, INTERRUPTED, PIPE, TERMINATED = 1, 2, 3, 4, 130, 141, 143

EXIT_CODES = """\b
Exit codes:
  0    done
  1    it failed, was refused, or is not healthy
  2    bad command line: also a name, type, pattern or setting that cannot be one
  3    no such bus: none runs, several do, or it is dead or of another version
  4    timed out
  130  interrupted by Ctrl-C, 143 by SIGTERM; serve, up, sub, tap, types, reply, logs -f and top end
       so with 0
  141  the reader of its output closed the pipe

\b
With --json, what fails is the last document on standard output:
  {"error": {"class": "NoRoute", "message": "...", "exit_code": 1, "facts": {...}}}
"""


class Stopped(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def usual_end() -> contextlib.suppress:
    """To be around what goes on until Ctrl-C or SIGTERM: it ends then, and nothing has failed."""
    return contextlib.suppress(KeyboardInterrupt)


class Failure(click.ClickException):
    """What a command ends with, with facts for --json."""

    def __init__(self, message: str, *, timed_out: bool = False, **facts: Any) -> None:
        super().__init__(message)
        self.facts, self.timed_out = facts, timed_out


def run(command: click.Command, name: str, arguments: list[str] | None = None) -> int:
    """Run a command line; print an error in one line, or as JSON; returns the exit code."""
    streams.prepare()
    signal.signal(signal.SIGTERM, _stop)
    # Also where a script started this in the background, and so with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return _invoke(command, name, given)
    except OSError as problem:
        streams.leave()
        if problem.filename != streams.OUTPUT:
            return _fail(_refused(problem), FAILED, name, given, problem)
        if isinstance(problem, BrokenPipeError):
            return PIPE
        return _fail(_refused(problem), FAILED, name, [], problem)  # beside the output
    finally:
        streams.leave()


def _invoke(command: click.Command, name: str, given: list[str]) -> int:
    """Run it; returns the exit code. Raises ``OSError``."""
    context: click.Context | None = None
    completing = f"_{name.upper()}_COMPLETE"
    try:
        if instruction := os.environ.get(completing):
            return shell_complete(command, {}, name, completing, instruction)
        # Not command.main(), which prints errors and exits by itself.
        with command.make_context(name, list(given)) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as end:
        sys.stdout.flush()
        return end.exit_code
    except SystemExit as end:
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0
    except Stopped:
        return TERMINATED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.UsageError as problem:
        where = problem.ctx.command_path if problem.ctx else name
        text = f"{problem.format_message().rstrip('.')}. See {where} --help"
        return _fail(text, USAGE, where, given, problem)
    except Failure as problem:
        code = TIMED_OUT if problem.timed_out else FAILED
        return _fail(problem.format_message(), code, name, given, problem)
    except click.ClickException as problem:
        return _fail(problem.format_message(), problem.exit_code, name, given, problem)
    except errors.BusError as problem:
        told = blamed(problem) if context and named_by_variable(context) else problem
        return _fail(explain(told, given), exit_code(told), name, given, told)


def blamed(problem: errors.BusError) -> errors.BusError:
    """The error, with the variable of the environment that named the bus."""
    match problem:
        case errors.NoSuchBus(bus=str()) | errors.AttachTimeout() | errors.InvalidName(what="bus"):
            return type(problem)(**{**problem.data, "variable": VARIABLE})
        case _:
            return problem


def exit_code(problem: errors.BusError) -> int:
    """The code that an error of the bus ends a command with."""
    match problem:
        case TimeoutError():
            return TIMED_OUT
        case errors.NoSuchBus() | errors.LayoutMismatch() | errors.BusDown():
            return NO_BUS
        case errors.UsageError() | errors.InvalidArguments():
            return USAGE
        case _:
            return FAILED


def _refused(problem: OSError) -> str:
    """What the system refused."""
    full = "; free some space there" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    where = "" if problem.filename is None else f"{problem.filename}: "
    return f"{where}{problem.strerror or problem}{full}"


def _fail(text: str, code: int, who: str, given: list[str], problem: Exception) -> int:
    """Print one line on standard error, or with --json a document; returns the exit code."""
    text = " ".join(text.split())
    with contextlib.suppress(OSError):
        if wants_json(given):
            sys.stdout.buffer.write(to_json({"error": _document(text, code, problem)}) + b"\n")
            sys.stdout.flush()
            return code
    with contextlib.suppress(OSError):
        click.echo(one_line(f"{who}: {text}"), err=True)
    return code


def _document(text: str, code: int, problem: Exception) -> dict[str, Any]:
    """A failure as JSON."""
    name, facts = type(problem).__name__, {}
    match problem:
        case errors.BusError():
            facts = problem.data
        case OSError():
            facts = {"errno": problem.errno, "file": problem.filename}
        case Failure():
            facts = problem.facts
        case click.UsageError():
            name = "UsageError"
    return {"class": name, "message": text, "exit_code": code, "facts": facts}


def wants_json(given: list[str]) -> bool:
    """Whether a command line has the option --json."""
    return "--json" in (given[: given.index("--")] if "--" in given else given)


def _stop(number: int, frame: object) -> None:
    raise Stopped
