"""The files in examples/links/ do what they say: but for Docker itself, on this machine."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from shmbus.links.config import LinkConfig
from shmbus.testing import Program
from tests.links.stage import Stage

pytest.importorskip("zenoh")

EXAMPLES = Path(__file__).parents[2] / "examples/links"


def services() -> dict[str, Path]:
    """Those of the Compose file, by name: the directory that each has as /app."""
    text = (EXAMPLES / "compose.yaml").read_text()
    found = re.findall(r"^  (\w+):\n(?:    .*\n)*?      - (\./\w+):/app:ro$", text, re.MULTILINE)
    return {name: EXAMPLES / directory for name, directory in found}


def processes(directory: Path) -> dict[str, str]:
    """What `shmbus up` would run there: the bus, and the commands."""
    given = tomllib.loads((directory / "up.toml").read_text())
    commands = {name: each["command"] for name, each in given["process"].items()}
    return {"bus": given["bus"]["name"]} | commands


@pytest.mark.slow
def test_the_two_containers_reach_each_other(stage: Stage) -> None:
    found = services()
    assert set(found) == {"berlin", "paris"}
    port = stage.port("berlin")
    sites = {}
    for name, directory in found.items():
        runs = processes(directory)
        assert runs["link"] == f"shmbus link {runs['bus']} --config link.toml"
        config = LinkConfig.read(directory / "link.toml")
        assert config.site == name
        assert list(config.connect) == ([] if name == "berlin" else ["tcp/berlin:7447"])
        assert config.insecure
        sites[name] = site = stage.site(name)
        site.join(
            space=stage.space,
            listen=[f"tcp/127.0.0.1:{port}"] if config.listen else [],
            connect=[f"tcp/127.0.0.1:{port}"] if config.connect else [],
            export=config.exports,
            **{"import": config.imports},
        )
    programs = {"berlin": "indexer", "paris": "editor"}
    for name, program in programs.items():
        assert processes(found[name])[program] == f"python -u {program}.py"
    file = found["berlin"] / "indexer.py"
    run = [sys.executable, "-u", str(file)]
    indexer = stage.keep(Program("indexer", run, bus=sites["berlin"].bus, read_output=True))
    assert indexer.line() == "ready"
    sites["paris"].attach("observer").wait_for("index.query", timeout=60)
    run = [sys.executable, "-u", str(found["paris"] / "editor.py")]
    editor = stage.keep(Program("editor", run, bus=sites["paris"].bus, read_output=True))
    assert editor.line() == "tea, found in berlin"
