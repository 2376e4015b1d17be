"""Running a command line: its errors, its signals and its exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys

import click
from click.shell_completion import shell_complete

from shmbus import errors

from .options import VARIABLE

FAILED, USAGE, NO_BUS, TIMED_OUT, INTERRUPTED, PIPE, TERMINATED = 1, 2, 3, 4, 130, 141, 143

EXIT_CODES = """\b
Exit codes:
  0    done
  1    it failed, was refused, or is not healthy
  2    bad command line
  3    no such bus: none runs, several do, or it is dead or of another version
  4    timed out
  130  interrupted by Ctrl-C, 143 by SIGTERM; serve, sub, tap, reply and top end so with 0
  141  the reader of its output closed the pipe
"""


class Stopped(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def run(command: click.Command, name: str, arguments: list[str] | None = None) -> int:
    """Run a command line; print an error in one line; returns the exit code."""
    signal.signal(signal.SIGTERM, _stop)
    # Also where a script started this in the background, and so with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    completing = f"_{name.upper()}_COMPLETE"
    if instruction := os.environ.get(completing):
        return shell_complete(command, {}, name, completing, instruction)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        # Not command.main(), which prints errors and exits by itself.
        with command.make_context(name, list(given)) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0
    except Stopped:
        return TERMINATED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.UsageError as problem:
        where = problem.ctx.command_path if problem.ctx else name
        text = problem.format_message().rstrip(".")
        return _fail(f"{text}. See {where} --help", USAGE, where)
    except click.ClickException as problem:
        return _fail(problem.format_message(), problem.exit_code, name)
    except errors.BusError as problem:
        return _fail(explain(blamed(problem, given)), exit_code(problem), name)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        return PIPE
    except OSError as problem:
        full = "; free some space there" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        where = "" if problem.filename is None else f"{problem.filename}: "
        return _fail(f"{where}{problem.strerror or problem}{full}", FAILED, name)


def blamed(problem: errors.BusError, given: list[str]) -> errors.BusError:
    """The error, which says so where the environment named the bus, not the command line."""
    match problem:
        case errors.NoSuchBus(bus=name) | errors.AttachTimeout(bus=name):
            pass
        case errors.InvalidName(name=name, what="bus"):
            pass
        case _:
            return problem
    if name is None or name != os.environ.get(VARIABLE) or any(name in each for each in given):
        return problem
    return type(problem)(**{**problem.data, "variable": VARIABLE})


def explain(problem: errors.BusError) -> str:
    """An error's message, with options and commands where it names calls as remedies."""
    text = str(problem).partition("\n\nRemote traceback")[0]
    patience = "--wait" if isinstance(problem, errors.WaitTimeout) else "--timeout"
    for call, here in (
        (f"ep.wait_for({getattr(problem, 'type', '')!r})", "--wait"),
        ("bus.route()", "shmbus route"),
        ("timeout=", patience),
        ("; with reconnect=True calls wait for that", ""),
        (' and attach anew; with reconnect="always" calls wait', ""),
        ("python -m shmbus", "shmbus serve"),
    ):
        text = text.replace(call, here)
    return text


def exit_code(problem: errors.BusError) -> int:
    """The code that an error of the bus ends a command with."""
    match problem:
        case TimeoutError():
            return TIMED_OUT
        case errors.NoSuchBus() | errors.LayoutMismatch() | errors.BusDown():
            return NO_BUS
        case _:
            return FAILED


def _fail(text: str, code: int, who: str) -> int:
    """Print one line on standard error; returns the exit code."""
    click.echo(f"{who}: {' '.join(text.split())}", err=True)
    return code


def _stop(number: int, frame: object) -> None:
    raise Stopped
