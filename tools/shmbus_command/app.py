"""The command line itself: its commands, each imported when it is used."""

from __future__ import annotations

import importlib

import click
from shmbus_console.options import complete_bus
from shmbus_console.run import EXIT_CODES, USAGE

COMMANDS = {
    "bench": "bench.command:bench",
    "call": "calling:call",
    "completion": "shell:completion",
    "describe": "describe:describe",
    "doctor": "doctor:doctor",
    "gateway": "gateway.command:gateway",
    "get": "getting:get",
    "health": "health:health",
    "link": "link.command:link",
    "ls": "ls:ls",
    "mem": "mem:mem",
    "ping": "link.pinging:ping",
    "pub": "sending:pub",
    "reply": "replying:reply",
    "request": "sending:request",
    "resend": "resending:resend",
    "route": "route:route",
    "send": "sending:send",
    "sub": "receiving:sub",
    "tap": "tapping:tap",
    "top": "top:top",
    "types": "flowing:types",
    "wait": "wait:wait",
    "worker": "working:worker",
    "demo": "demo.command:demo",
    "serve": "serve:serve",
    "up": "up.command:up",
    "restart": "up.controls:restart",
    "reload": "up.controls:reload",
    "logs": "up.controls:logs",
}
"""Where each command is; imported only when it is used, so that completion is quick."""


class Commands(click.Group):
    """All commands, each imported when it is needed."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A bus that is named before the command is the command's."""
        name, command, rest = super().resolve_command(context, arguments)
        bus = context.params.get("bus")
        return name, command, rest if bus is None else ["--bus", bus, *rest]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        try:
            found = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
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
@click.option(
    "--bus",
    "-b",
    metavar="NAME",
    shell_complete=complete_bus,
    help="For the command: the same as after it.",
)
@click.pass_context
def shmbus(context: click.Context, bus: str | None) -> None:
    """The message bus for the processes of one machine.

    Where a command takes a bus (-b, or SHMBUS_BUS in the environment) and none is given, it takes
    the only one running. A TIME is 500ms, 2m, 1h30m or 1.5 (seconds).
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(USAGE)
