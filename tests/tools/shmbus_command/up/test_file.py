"""The file of `shmbus up`: what it may say, and what is said of what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from shmbus_command.up.file import File, Unfit, read

import shmbus
from shmbus.options import OPTIONS

ROOT = Path(__file__).resolve().parents[4]

WHOLE = """
[bus]
name = "symphony"
in_bytes = 65536
block_timeout = "250ms"

[process.indexer]
command = "python 'my indexer.py' --fast"
restart = "on-failure"
stop_timeout = 2

[process.web]
target = "web.main:run"
needs = ["index.query"]
directory = "site"
environment = { PORT = "8080" }
backoff = { first = "50ms", limit = 3 }

[process.web.grant]
publish = ["web.>"]

[output]
directory = "logs"
size = 4096
"""


def written(folder: Path, text: str) -> File:
    path = folder / "symphony.toml"
    path.write_text(text)
    return read(path)


@pytest.mark.smoke
def test_a_file_says_a_bus_and_its_processes(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    assert file.bus == "symphony"
    assert (file.settings.in_bytes, file.settings.block_timeout) == (65536, 0.25)
    indexer, web = file.processes
    assert indexer.command == ("python", "my indexer.py", "--fast")
    assert (indexer.name, indexer.restart, indexer.stop_timeout) == ("indexer", "on-failure", 2.0)
    assert (web.target, web.needs) == ("web.main:run", ("index.query",))
    assert (web.backoff.first, web.backoff.limit, web.backoff.longest) == (0.05, 3, 10.0)
    assert web.grant is not None
    assert web.grant.publish == ("web.>",)
    assert file.output is not None
    assert (file.output.size, file.output.count) == (4096, 3)


def test_relative_paths_are_those_beside_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    assert [p.directory for p in file.processes] == [f"{tmp_path}", f"{tmp_path}/site"]
    assert file.output is not None
    assert file.output.directory == f"{tmp_path}/logs"


BUS = '[bus]\nname = "s"\n'
PROCESS = '[process.a]\ncommand = "x"\n'
ONE = BUS + PROCESS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[bus\n", "line 1"),
        ("", '[bus] has no name: write name = "symphony" there'),
        ("bus = 3", "[bus] is a table: it cannot be 3"),
        (BUS, "no process is named: write [process.NAME]"),
        ('[bsu]\nname = "s"', "symphony.toml: it has no key 'bsu': perhaps bus"),
        ("bus = { name = 5 }", '[bus] name = 5: it takes a text: "..."'),
        (f'{BUS}[process.a]\ncomand = "x"', "[process.a] has no key 'comand': perhaps command"),
        (f"{BUS}in_byte = 1\n{PROCESS}", "[bus] has no key 'in_byte': perhaps in_bytes"),
        (f"{BUS}in_bytes = 5\n{PROCESS}", "[bus] in_bytes=5"),
        (f"{BUS}spin = 1\n{PROCESS}", "[bus] spin = 1: it takes true or false"),
        (f'{ONE}need = ["x"]', "[process.a] has no key 'need': perhaps needs"),
        (f'{ONE}needs = "x"', '[process.a] needs = "x": it takes a list of texts: ["..."]'),
        (f"{ONE}needs = [1]", "[process.a] needs = [1]: it takes a list of texts"),
        (f"{ONE}stop_timeout = true", "[process.a] stop_timeout = true: it takes seconds, or a"),
        (f'{ONE}stop_timeout = "soon"', '[process.a] stop_timeout = "soon": it takes seconds, or'),
        (
            f'{ONE}restart = "alway"',
            'restart = "alway": it takes "always", "never" or "on-failure"',
        ),
        (f'{ONE}name = "b"', '[process.a] has a name already: remove name = "b"'),
        (
            f'{ONE}target = "m:f"',
            '[process.a] needs command = "...", or target = "module:function"',
        ),
        (f"{BUS}[process.a]", '[process.a] needs command = "...", or target = "module:function"'),
        (f'{BUS}[process.a]\ncommand = "\'"', "no closing quotation; write it as a list"),
        (f"{ONE}environment = {{ PORT = 1 }}", 'it takes a table of texts: { NAME = "..." }'),
        (f'{ONE}grant = "all"', '[process.a] grant = "all": it takes a table'),
        (f"{ONE}grant = {{ pub = [] }}", "[process.a.grant] has no key 'pub'"),
        (f'{ONE}grant = {{ publish = "a" }}', '[process.a.grant] publish = "a": it takes a list'),
        (f'{ONE}environment = {{ SHMBUS_BUS = "t" }}', "[bus] name is SHMBUS_BUS there: remove"),
        (
            f'{ONE}backoff = {{ first = "20s" }}',
            "[process.a.backoff] first = 20 is more than longest = 10: give a longer longest",
        ),
        (f"{ONE}stop_timeout = inf", "a time in it is not finite"),
        (f"{ONE}[output]", "[output] missing required argument 'directory'"),
        (f'{ONE}[output]\ndirectory = "l"\nsize = 0', "[output] size = 0: give at least 1 byte"),
        (f'{ONE}needs = ["a..b"]', "process 'a' cannot be supervised: "),
        (f'{ONE}start = "first message"', "nothing says which message starts it"),
        (f"process = [1]\n{BUS}", "[process] is a table: it cannot be [1]"),
    ],
)
def test_what_a_file_cannot_say_is_told_with_file_table_key_and_remedy(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(Unfit) as caught:
        written(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/symphony.toml: ")
    assert told in str(caught.value)


def test_the_guide_names_every_key_of_a_process() -> None:
    page = (ROOT / "docs/howto/up.md").read_text()
    for field in msgspec.structs.fields(shmbus.Process):
        assert field.name == "name" or f"`{field.name}`" in page, field.name


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "symphony.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(Unfit, match="can't decode"):
        read(path)


def test_a_file_that_has_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match=r"symphony\.toml: No such file"):
        read(tmp_path / "symphony.toml")


def test_every_setting_of_a_bus_can_be_written(tmp_path: Path) -> None:
    values: dict[str, Any] = {option.setting: option.default or 256 for option in OPTIONS}
    sizes = ("backlog_bytes", "mailbox_bytes", "pool_bytes", "pool_total_bytes")
    values |= dict.fromkeys(sizes, 65536)
    lines = "".join(f"{key} = {value}\n" for key, value in values.items())
    file = written(tmp_path, f"{BUS}{lines}{PROCESS}")
    assert file.settings == shmbus.Settings(**values)
