"""The file of `shmbus up`: a bus and its processes, in TOML."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from shmbus_console.options import VARIABLE

from shmbus import BusError, Process, Settings
from shmbus.options import seconds
from shmbus.supervisor import check_processes
from shmbus_command.arguments import near

from .toml import as_toml, takes

T = TypeVar("T", bound=msgspec.Struct)


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """Files for what the processes print, one for each; without them it goes to the terminal."""

    directory: str
    """In which they are, each ``NAME.log``."""
    size: int = 10 << 20
    """Bytes at which one is renamed to ``NAME.log.1``, that to ``NAME.log.2``, and a new begun."""
    count: int = 3
    """Renamed ones that are kept of each."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size = {self.size}: give at least 1 byte")
        if self.count < 0:
            raise ValueError(f"count = {self.count}: give 0 or more")


class File(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says."""

    bus: str
    settings: Settings
    processes: tuple[Process, ...]
    output: Output | None


class Unfit(ValueError):
    """A file that cannot be used; the text says where and why."""


def read(path: Path) -> File:
    """Read it. What it calls by a relative path is in its own directory, in which its processes run
    as well. Raises `Unfit`."""
    try:
        tables = tomllib.loads(path.read_bytes().decode())
    except OSError as problem:
        raise Unfit(f"{path}: {problem.strerror}") from None
    except ValueError as problem:  # neither UTF-8 nor TOML
        raise Unfit(f"{path}: {problem}") from None
    try:
        return _file(tables, path.resolve().parent)
    except Unfit as problem:
        raise Unfit(f"{path}: {problem}") from None


def _file(tables: dict[str, Any], home: Path) -> File:
    _known("it ", tables, ("bus", "process", "output"))
    bus = dict(_table("[bus]", tables.get("bus", {})))
    settings = fields_of(Settings)
    _known("[bus] ", bus, ("name", *settings))
    name = bus.pop("name", None)
    if name is None:
        raise Unfit('[bus] has no name: write name = "symphony" there')
    if not isinstance(name, str):
        raise Unfit(f'[bus] name = {as_toml(name)}: it takes a text: "..."')
    processes = _table("[process]", tables.get("process", {}))
    if not processes:
        raise Unfit('no process is named: write [process.NAME], and command = "..." below it')
    output = None
    if "output" in tables:
        output = _fitted("[output]", tables["output"], Output)
        output = msgspec.structs.replace(output, directory=str(home / output.directory))
    found = tuple(_process(name, table, home) for name, table in processes.items())
    try:
        check_processes(found)
    except BusError as problem:
        raise Unfit(str(problem)) from None
    return File(bus=name, settings=_fitted("[bus]", bus, Settings), processes=found, output=output)


def _process(name: str, table: object, home: Path) -> Process:
    where = f"[process.{name}]"
    given = dict(_table(where, table))
    if "name" in given:
        raise Unfit(f"{where} has a name already: remove name = {as_toml(given['name'])}")
    _known(f"{where} ", given, fields_of(Process))
    if isinstance(command := given.get("command"), str):
        try:
            given["command"] = shlex.split(command)
        except ValueError as problem:
            told = f"{where} command = {as_toml(command)}: {str(problem).lower()}"
            raise Unfit(f"{told}; write it as a list") from None
    if bool(given.get("command")) == bool(given.get("target")):
        raise Unfit(f'{where} needs command = "...", or target = "module:function", not both')
    process = _fitted(where, {**given, "name": name}, Process)
    if VARIABLE in process.environment:
        raise Unfit(f"{where} environment: [bus] name is {VARIABLE} there: remove {VARIABLE}")
    backoff = process.backoff
    if backoff.first > backoff.longest:
        told = f"first = {backoff.first:g} is more than longest = {backoff.longest:g}"
        raise Unfit(f"{where[:-1]}.backoff] {told}: give a longer longest")
    return msgspec.structs.replace(process, directory=str(home / (process.directory or "")))


# Tables that become structs ---------------------------------------------------------------------


def fields_of(struct: type[msgspec.Struct]) -> dict[str, msgspec.inspect.Type]:
    """The types of its fields, by name."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.name: field.type for field in info.fields}


def _fitted(where: str, table: object, struct: type[T]) -> T:
    """A table as a struct; ``where`` is how it is called in the file."""
    given = _table(where, table)
    kinds = fields_of(struct)
    _known(f"{where} ", given, kinds)
    annotations = {field.name: field.type for field in msgspec.structs.fields(struct)}
    values = {
        key: _value(where, key, value, kinds[key], annotations[key]) for key, value in given.items()
    }
    try:
        return struct(**values)
    except BusError as problem:
        raise Unfit(f"{where} {problem}") from None
    except (TypeError, ValueError) as problem:  # a field that is required, or out of bounds
        raise Unfit(f"{where} {str(problem).lower()}") from None


def _value(
    where: str, key: str, value: object, kind: msgspec.inspect.Type, annotation: Any
) -> object:
    below = _struct_in(kind)
    if below is not None and isinstance(value, dict):
        return _fitted(f"{where[:-1]}.{key}]", value, below)
    try:
        if isinstance(kind, msgspec.inspect.FloatType) and isinstance(value, str):
            return seconds(value)
        return msgspec.convert(value, annotation)
    except ValueError:
        raise Unfit(f"{where} {key} = {as_toml(value)}: it takes {takes(kind)}") from None


def _struct_in(kind: msgspec.inspect.Type) -> type[msgspec.Struct] | None:
    """The struct that a field is, or may be."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(filter(None, map(_struct_in, kind.types)), None)
    return kind.cls if isinstance(kind, msgspec.inspect.StructType) else None


def _table(where: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Unfit(f"{where} is a table: it cannot be {as_toml(value)}")
    return value


def _known(where: str, table: Mapping[str, object], known: Any) -> None:
    for key in table:
        if key not in known:
            raise Unfit(f"{where}has no key {key!r}: {near(key, known)}")
