"""``shmbus completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands, buses, endpoints and types.

    \b
    bash:  eval "$(shmbus completion bash)"   in ~/.bashrc
    zsh:   eval "$(shmbus completion zsh)"    in ~/.zshrc
    fish:  shmbus completion fish | source    in ~/.config/fish/config.fish
    """
    maker = get_completion_class(shell)
    assert maker is not None
    root = click.get_current_context().find_root().command
    click.echo(maker(root, {}, "shmbus", "_SHMBUS_COMPLETE").source())
