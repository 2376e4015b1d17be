"""Parts of the documentation that are made from the code: mkdocs calls this for every page."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Show what stands in a comment `<!-- site ... -->`, leave out what stands between
    `<!-- checkout -->` and `<!-- end -->`, and replace `{{ name }}` by what the function of that
    name makes."""
    shown = re.sub(r"^<!-- checkout -->\n.*?^<!-- end -->$", "", markdown, flags=_LINES)
    shown = re.sub(r"^<!-- site\n(.*?)^-->$", r"\1", shown, flags=_LINES)
    return re.sub(r"^\{\{ (\w+) \}\}$", lambda m: MAKERS[m[1]](), shown, flags=re.MULTILINE)


_LINES = re.MULTILINE | re.DOTALL


# Pages that stand at the top of the checkout ----------------------------------------------------


def readme() -> str:
    """README's beginning, up to its second section."""
    return _as_page("README.md").partition("\n## ")[0].partition("\n")[2]


def contributing() -> str:
    """All of CONTRIBUTING."""
    return _as_page("CONTRIBUTING.md")


def changes() -> str:
    """All of CHANGELOG."""
    return _as_page("CHANGELOG.md")


def _as_page(name: str) -> str:
    """With its links as those of a page in docs; what is not on the site loses its link."""
    text = (
        (ROOT / name)
        .read_text()
        .replace("](docs/", "](")
        .replace("](CONTRIBUTING.md", "](contributing.md")
    )
    return re.sub(r"\[([^\]]+)\]\((?:LICENSE|examples)[^)]*\)", r"\1", text)


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
    "readme": readme,
    "contributing": contributing,
    "changes": changes,
    "layout": layout,
    "cli": cli,
}
