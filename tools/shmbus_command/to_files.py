"""Payloads as files, one each: in the format that fits what came."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec
import numpy as np

from shmbus import Message

Write = Callable[[BinaryIO], object]

_NAME = re.compile(r"[^/\\\0-\x1f.][^/\\\0-\x1f]{0,199}")
"""Of an array in an archive: one that a file may have where the archive is unpacked."""

_LONGEST = 200
"""Characters of a type that a name has: with the rest it must be one that a file may have."""


class Files:
    """Files in a directory, named by type and number: ``camera.frame.000001.npy``. None that is
    there is written over: numbers go on behind those."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._next: dict[str, int] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise click.UsageError(f"{directory}: {problem.strerror}") from None

    def save(self, message: Message[Any]) -> Path:
        """Write the payload of a message; returns where. Raises ``OSError``, ``DecodeError``."""
        ending, write = _format(message.payload)
        name = message.type[:_LONGEST]
        number = self._next.get(name) or self._first(name)
        while True:
            path = self._directory / f"{name}.{number:06}.{ending}"
            number += 1
            try:
                file = path.open("xb")
                break
            except FileExistsError:
                continue  # another writes here, too
        self._next[name] = number
        try:
            with file:
                write(file)
        except BaseException as problem:
            path.unlink(missing_ok=True)  # half of it is of no use
            if isinstance(problem, OSError):
                problem.filename = str(path)
            raise
        return path

    def _first(self, name: str) -> int:
        """Behind the numbers that are there."""
        found = [0]
        for file in os.listdir(self._directory):
            rest = file.removeprefix(f"{name}.")
            if rest != file and (number := rest.partition(".")[0]).isdecimal():
                found.append(int(number))
        return max(found) + 1


def _format(payload: Any) -> tuple[str, Write]:
    """The ending of a file for it, and what writes it: arrays as numpy does, bytes and text as they
    are, the rest as JSON where that gives the same again, else as MessagePack."""
    if isinstance(payload, np.ndarray | np.generic):
        return "npy", lambda file: np.save(file, payload)
    if isinstance(payload, bytes | memoryview):
        return "bin", lambda file: file.write(payload)
    if isinstance(payload, str):
        return "txt", lambda file: file.write(payload.encode())
    arrays = dict[str, Any]()
    rest = _without_arrays(payload, (), arrays)
    if not arrays:
        ending, content = _encoded(payload)
        return ending, lambda file: file.write(content)
    return "npz", lambda file: _archive(file, arrays, None if _are(payload, arrays) else rest)


def _encoded(plain: Any) -> tuple[str, bytes]:
    content = msgspec.json.encode(plain)
    if msgspec.json.decode(content) == plain:
        return "json", content
    return "msgpack", msgspec.msgpack.encode(plain)


def _without_arrays(value: Any, path: tuple[str, ...], arrays: dict[str, Any]) -> Any:
    """The same with ``{"array": name}`` for each array, which goes to ``arrays``."""
    if isinstance(value, dict):
        return {
            key: _without_arrays(inner, (*path, str(key)), arrays) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [
            _without_arrays(inner, (*path, str(number)), arrays)
            for number, inner in enumerate(value)
        ]
    if not isinstance(value, np.ndarray | np.generic):
        return value
    name = ".".join(path)
    if name in arrays or not _NAME.fullmatch(name):
        name = f"array.{len(arrays)}"
        while name in arrays:
            name += "_"
    arrays[name] = value
    return {"array": name}


def _are(payload: Any, arrays: dict[str, Any]) -> bool:
    """Whether it is a dict of arrays by these names, such as the columns of a table."""
    return isinstance(payload, dict) and payload.keys() == arrays.keys()


def _archive(file: BinaryIO, arrays: dict[str, Any], rest: Any) -> None:
    """As `numpy.savez`, whose arguments some names are, with what there is beside the arrays."""
    with zipfile.ZipFile(file, "w") as archive:
        if rest is not None:
            ending, content = _encoded(rest)
            archive.writestr(f"payload.{ending}", content)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array))
