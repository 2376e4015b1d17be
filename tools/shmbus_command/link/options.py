"""The most common keys of a link's config as options, so that no file is needed."""

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from shmbus_console.options import seconds_option

from shmbus.links import LinkConfig

Command = Callable[..., None]

_KEYS = ("site", "space", "name", "groups", "delivery", "congestion", "buffer", "window", "mode")
_LISTS = ("listen", "connect", "export", "import")
_PATH = click.Path(exists=True, dir_okay=False, path_type=Path)


def config_options(command: Command) -> Command:
    """They, and ``--config``; `given` makes a config of their values."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


def _text(name: str, metavar: str, help: str) -> Callable[[Command], Command]:
    return click.option(name, metavar=metavar, help=help)


def _several(name: str, metavar: str, help: str) -> Callable[[Command], Command]:
    return click.option(name, metavar=metavar, multiple=True, help=f"{help} May be repeated.")


def _choice(name: str, choices: list[str], help: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.Choice(choices), help=help)


_OPTIONS: list[Callable[[Command], Command]] = [
    click.option(
        "--config",
        "-c",
        "path",
        metavar="FILE",
        type=_PATH,
        help="Settings in TOML, as below. Options override what it says.",
    ),
    _text("--site", "NAME", "The name of this bus for the others. By default that of the host."),
    _text("--space", "NAME", "The name of what is joined: other spaces do not see it."),
    _several("--listen", "ENDPOINT", "Where others may connect to: tls/0.0.0.0:7447."),
    _several("--connect", "ENDPOINT", "To whom to connect: tls/paris.example:7447."),
    _several("--export", "PATTERN", "What may leave this bus."),
    _several("--import", "PATTERN", "What may come in."),
    _several("--rename", "LOCAL=SPACE", "A prefix here, and what it is for the others."),
    _choice("--groups", ["span", "local"], "Whether queue groups have members on all sites."),
    _choice(
        "--delivery",
        ["at-most-once", "confirmed"],
        "Whether commands and group messages are kept until the other side has confirmed them.",
    ),
    _choice(
        "--congestion",
        ["drop_newest", "drop_oldest", "block"],
        "What happens to events while a site takes fewer than leave for it.",
    ),
    _text("--buffer", "SIZE", "Bytes that may wait for each site: 16MiB."),
    _text("--window", "SIZE", "Bytes that may be on their way to each site: 1MiB."),
    seconds_option("--detection", help="After which a site that says nothing counts as gone."),
    _choice("--mode", ["peer", "client", "router"], "What it is among zenoh's nodes."),
    click.option("--scout", is_flag=True, help="Look for peers in the local network."),
    click.option(
        "--insecure",
        is_flag=True,
        help="Permit plain traffic, which others can read and forge, beyond this machine.",
    ),
    click.option("--tls-ca", metavar="FILE", help="Certificate of who has signed all sites'."),
    click.option("--tls-certificate", metavar="FILE", help="This site's certificate."),
    click.option("--tls-key", metavar="FILE", help="Its private key."),
    _text("--name", "NAME", "The link's endpoint is @NAME: for a second link on the same bus."),
]


def given(path: Path | None, options: Mapping[str, Any]) -> LinkConfig:
    """What a file and options say, the options last. Raises `click.UsageError` and
    `InvalidSetting`."""
    table = {} if path is None else _read(path)
    for key in _KEYS:
        if options[key] is not None:
            table[key] = options[key]
    for key in _LISTS:
        if found := options[key]:
            table[key] = list(found)
    if options["detection"] is not None:
        table["detection"] = float(options["detection"])
    for flag in ("scout", "insecure"):
        if options[flag]:
            table[flag] = True
    if options["rename"]:
        table["rename"] = [_rename(text) for text in options["rename"]]
    tls = {key: options[f"tls_{key}"] for key in ("ca", "certificate", "key")}
    if found := {key: value for key, value in tls.items() if value is not None}:
        table["tls"] = {**table.get("tls", {}), **found}
    if "site" not in table:
        table["site"] = _host()
    return LinkConfig.of(table)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as problem:
        raise click.UsageError(f"{path}: {problem.strerror}") from None
    except ValueError as problem:  # neither UTF-8 nor TOML
        raise click.UsageError(f"{path}: {problem}") from None


def _rename(text: str) -> dict[str, str]:
    local, equals, space = text.partition("=")
    if not (local and equals and space):
        raise click.UsageError(f"--rename {text}: write it as --rename sensor=berlin.sensor")
    return {"local": local, "space": space}


def _host() -> str:
    """The name of this host, as a site may have it."""
    name = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]", "-", name) or "site"
