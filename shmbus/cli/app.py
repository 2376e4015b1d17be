"""The command line itself: its commands, its errors and its exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys

import click
from click.shell_completion import shell_complete

from shmbus import errors

FAILED, USAGE, NO_BUS, TIMED_OUT, INTERRUPTED, PIPE, TERMINATED = 1, 2, 3, 4, 130, 141, 143

EXIT_CODES = """\b
Exit codes:
  0    done
  1    it failed, was refused, or is not healthy
  2    bad command line
  3    no such bus: none runs, several do, or it is dead or of another version
  4    timed out
  130  interrupted by Ctrl-C, 143 by SIGTERM; serve, sub, tap, reply and top end so with 0
  141  who read its output went away
"""

COMMANDS = {
    "bench": "bench:bench",
    "completion": "shell:completion",
    "describe": "look:describe",
    "doctor": "doctor:doctor",
    "health": "look:health",
    "ls": "look:ls",
    "pub": "talk:pub",
    "reply": "talk:reply",
    "request": "talk:request",
    "route": "look:route",
    "send": "talk:send",
    "sub": "talk:sub",
    "tap": "talk:tap",
    "top": "look:top",
    "demo": "demo:demo",
    "serve": "serve:serve",
}
"""Where each command is; imported only when it is used, so that completion is quick."""


class Stopped(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


class Commands(click.Group):
    """All commands, each imported when it is needed."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        try:
            found = getattr(importlib.import_module(f"shmbus.cli.{module}"), attribute)
        except ModuleNotFoundError as problem:  # installed in part, or by hand
            raise click.ClickException(
                f"{name} needs {problem.name}, of the extra `tools`: pip install 'shmbus[tools]'"
            ) from None
        assert isinstance(found, click.Command)
        return found


@click.group(
    cls=Commands,
    epilog=EXIT_CODES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="shmbus")
@click.pass_context
def shmbus(context: click.Context) -> None:
    """The message bus for the processes of one machine.

    Where a command takes a bus (-b, or SHMBUS_BUS in the environment) and none is given, the only
    one running is meant.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(USAGE)


def run(
    arguments: list[str] | None = None, command: click.Command = shmbus, name: str = "shmbus"
) -> int:
    """Run a command line and say what went wrong in one line; returns the exit code."""
    signal.signal(signal.SIGTERM, _stop)
    # Also where a script starts us in the background, which lets us begin with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    completing = f"_{name.upper()}_COMPLETE"
    if asked := os.environ.get(completing):
        return shell_complete(command, {}, name, completing, asked)
    try:
        # Not command.main(), which writes and exits where it likes.
        given = sys.argv[1:] if arguments is None else arguments
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
        return _say(f"{text}. See {where} --help", USAGE, where)
    except click.ClickException as problem:
        return _say(problem.format_message(), problem.exit_code, name)
    except errors.BusError as problem:
        return _say(explain(problem), exit_code(problem), name)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered still
        return PIPE
    except OSError as problem:
        full = "; free some space there" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        where = "" if problem.filename is None else f"{problem.filename}: "
        return _say(f"{where}{problem.strerror or problem}{full}", FAILED, name)


def explain(problem: errors.BusError) -> str:
    """What an error says, with options and commands for remedies where it names calls."""
    text = str(problem).partition("\n\nRemote traceback")[0]
    patience = "--wait" if isinstance(problem, errors.WaitTimeout) else "--timeout"
    for call, here in (
        (f"ep.wait_for({getattr(problem, 'type', '')!r})", "--wait"),
        ("bus.route()", "shmbus route"),
        ("timeout=", patience),
        ("; with reconnect=True calls wait for that", ""),
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


def _say(text: str, code: int, who: str) -> int:
    click.echo(f"{who}: {' '.join(text.split())}", err=True)
    return code


def _stop(number: int, frame: object) -> None:
    raise Stopped
