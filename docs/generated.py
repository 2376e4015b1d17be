"""Parts of the documentation that are made from the code: mkdocs calls this for every page."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace `{{ name }}` by what the function of that name makes."""
    return re.sub(r"^\{\{ (\w+) \}\}$", lambda m: MAKERS[m[1]](), markdown, flags=re.MULTILINE)


# The layout -------------------------------------------------------------------------------------


def layout() -> str:
    """A table for each structure and enumeration of the C headers."""
    sys.path.append(str(ROOT / "tools/build"))
    import headers
    import layout as generator

    parts = []
    read = headers.read(*generator.RING_HEADERS, *generator.BUS_HEADERS)
    below = len(generator.RING_HEADERS)
    for known in (
        generator.facts(read[:below], only=("rb_prefix",)),
        *(generator.facts([header]) for header in read[below:]),
    ):
        for structure in known.structures:
            parts += [f"### {structure.name}\n", _sentence(structure.size, structure.comment)]
            parts.append("| at | size | field | |\n|---:|---:|---|---|")
            for field in structure.fields:
                one = headers.INTEGERS.get(field.type)
                size = f"{one} each" if field.count == 0 else field.size
                parts.append(f"| {field.at} | {size} | `{field.name}` | {_prose(field.comment)} |")
            parts.append("")
        for enumeration in known.enumerations:
            parts += [f"### {enumeration.name}\n", f"{_prose(enumeration.comment)}\n"]
            parts.append("| value | name | |\n|---:|---|---|")
            for member in enumeration.members:
                parts.append(f"| {member.value} | `{member.name}` | {_prose(member.comment)} |")
            parts.append("")
    return "\n".join(parts)


def _sentence(size: int, comment: str) -> str:
    about = f": {_prose(comment).rstrip('.')}" if comment else ""
    return f"{size} bytes{about}.\n"


def _prose(comment: str) -> str:
    text = comment.replace("|", "\\|")
    return re.sub(r"\b(?:enum |struct )?(sb_\w+|SB_\w+)(\(\))?", r"`\1`", text)


# The bus's own events ---------------------------------------------------------------------------


def events() -> str:
    """What the bus publishes: a table of the fields of each."""
    from shmbus.events import EVENTS

    parts = []
    for type, event in EVENTS.items():
        parts += [f"### {type}\n", f"`shmbus.events.{event.__name__}`: {inspect.getdoc(event)}\n"]
        parts.append("| field | | |\n|---|---|---|")
        for name, (kind, meaning) in _attributes(event).items():
            parts.append(f"| `{name}` | `{kind}` | {meaning} |")
        parts.append("")
    return "\n".join(parts)


def _attributes(owner: type) -> dict[str, tuple[str, str]]:
    """The annotated attributes of a class and of those that it builds on, with type and meaning."""
    found: dict[str, tuple[str, str]] = {}
    for base in reversed([base for base in owner.__mro__ if base.__module__ == owner.__module__]):
        (definition,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(definition, ast.ClassDef)
        for attribute, text in itertools.pairwise(definition.body):
            if isinstance(attribute, ast.AnnAssign) and isinstance(text, ast.Expr):
                kind, meaning = ast.unparse(attribute.annotation), ast.literal_eval(text.value)
                meaning = " ".join(meaning.split())
                found[ast.unparse(attribute.target)] = (kind.replace("|", "\\|"), meaning)
    return found


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


MAKERS: dict[str, Callable[[], str]] = {
    "layout": layout,
    "events": events,
    "errors": errors,
    "cli": cli,
}
