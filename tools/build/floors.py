"""Print the oldest versions that `pyproject.toml` permits, of what building, running and developing
need, as constraints for pip: `name==version`, one a line.

    python tools/build/floors.py >floors.txt && PIP_CONSTRAINT=floors.txt pip install '.[dev]'
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def floors(pyproject: dict[str, Any]) -> Iterator[str]:
    """A constraint for each requirement; an extra of the project's own, `shmbus[...]`, is none."""
    project = pyproject["project"]
    requirements = [*pyproject["build-system"]["requires"], *project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    for requirement in dict.fromkeys(requirements):
        if requirement.startswith(f"{project['name']}["):
            continue
        if not (parts := re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", requirement)):
            raise SystemExit(f"{requirement!r} has no oldest version: write 'name>=version'")
        yield "==".join(parts.groups())


if __name__ == "__main__":
    print(*floors(tomllib.loads((ROOT / "pyproject.toml").read_text())), sep="\n")
