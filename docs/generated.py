"""Parts of the documentation that are made from the code: mkdocs calls this for every page."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace `{{ name }}` by what the function of that name makes."""
    return re.sub(r"^\{\{ (\w+) \}\}$", lambda m: MAKERS[m[1]](), markdown, flags=re.MULTILINE)


# The layout -------------------------------------------------------------------------------------

HEADERS = (
    "ringbuf/native/prefix.h",
    "shmbus/shared/native/record.h",
    "shmbus/shared/native/layout.h",
)


def layout() -> str:
    """A table for each structure: from numpy's mirror the places, from the header the meanings."""
    from shmbus.shared import layout

    source = "\n".join((ROOT / header).read_text() for header in HEADERS)
    parts = []
    for name, structure in layout.STRUCTURES.items():
        body = re.search(rf"^struct {name} \{{(.*?)^\}};", source, re.MULTILINE | re.DOTALL)
        assert body is not None, name
        said, comments = re.match(r"\s*/\*(.*?)\*/", body[1]), _comments(body[1])
        parts.append(f"### {name}\n")
        parts.append(f"{structure.itemsize} bytes. {_prose(said[1]) if said else ''}\n")
        parts.append("| at | size | field | |\n|---:|---:|---|---|")
        assert structure.fields is not None
        for field, (kind, offset, *_) in structure.fields.items():
            what = comments.get(field, "")
            parts.append(f"| {offset} | {kind.itemsize} | `{field}` | {what} |")
        if name == "sb_ready":
            parts.append(f"| {structure.itemsize} | 4 each | `word` | {comments['word']} |")
        parts.append("")
    return "\n".join(parts)


def _comments(body: str) -> dict[str, str]:
    """What the header says beside its fields."""
    result = {}
    for line in body.splitlines():
        code, _, comment = line.partition("/*")
        for declarator in re.sub(r"_Alignas\(\d+\)", "", code).split(","):
            if field := re.search(r"(\w+)\s*(?:\[\w*\])?\s*;?\s*$", declarator):
                result[field[1]] = _prose(comment.partition("*/")[0])
    return result


def _prose(comment: str) -> str:
    text = " ".join(comment.replace("|", "\\|").split())
    return re.sub(r"\b(?:enum |struct )?(sb_\w+|SB_\w+)(\(\))?", r"`\1`", text)


# The errors -------------------------------------------------------------------------------------


def errors() -> str:
    """Every class: what it means, and the facts that it carries."""
    from shmbus.errors import BusError

    return "\n".join(_error(BusError, 0))


def _error(error: type[BaseException], depth: int) -> Iterator[str]:
    facts = [field.name for field in dataclasses.fields(error)] if depth else []  # type: ignore[arg-type]
    known = f" Facts: {', '.join(f'`{fact}`' for fact in facts)}." if facts else ""
    meaning = (inspect.getdoc(error) or "").partition("\n\n")[0].replace("\n", " ")
    yield f"{'    ' * depth}- **`{error.__name__}`**: {meaning}{known}"
    for child in error.__subclasses__():
        yield from _error(child, depth + 1)


# The command line -------------------------------------------------------------------------------


def cli() -> str:
    """The help of every command."""
    import click
    from shmbus_command.app import COMMANDS, shmbus
    from shmtop.command import shmtop

    def helped(command: click.Command, name: str) -> str:
        context = click.Context(command, info_name=name, terminal_width=88, max_content_width=88)
        return f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"

    parts = [helped(shmbus, "shmbus")]
    context = click.Context(shmbus, info_name="shmbus")
    for name in sorted(COMMANDS):
        command = shmbus.get_command(context, name)
        assert command is not None
        parts.append(helped(command, f"shmbus {name}"))
    return "\n".join([*parts, helped(shmtop, "shmtop")])


MAKERS: dict[str, Callable[[], str]] = {"layout": layout, "errors": errors, "cli": cli}
