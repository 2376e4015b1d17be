"""Packages that are known as if they were installed: no network, nothing written beside them."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def make_known(project: Path, directory: Path) -> None:
    """Let this process, and those that it starts, find the entry points of a project: write what
    ``pip install`` would into `directory`."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    name, version = about["name"].replace("-", "_"), about["version"]
    written = directory / f"{name}-{version}.dist-info"
    written.mkdir()
    (written / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {version}\n"
    )
    (written / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{each} = {value}\n" for each, value in points.items())
            for group, points in about["entry-points"].items()
        )
    )
    sys.path[:0] = [str(directory), str(project)]
