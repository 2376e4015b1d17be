"""Payloads as files, one each: in the format that fits what came."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec
import numpy as np
from shmbus_console.messages import raw

from shmbus import Message

Write = Callable[[BinaryIO], object]

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
    if _are_arrays(payload):
        return "npz", lambda file: np.savez(file, **payload)
    try:
        content = msgspec.json.encode(payload)
        if msgspec.json.decode(content) == payload:
            return "json", lambda file: file.write(content)
        packed = msgspec.msgpack.encode(payload)
    except (TypeError, ValueError, RecursionError):  # with arrays inside
        return "json", lambda file: file.write(raw(payload))
    return "msgpack", lambda file: file.write(packed)


def _are_arrays(payload: Any) -> bool:
    """Whether it is a dict of arrays by names, such as the columns of a table."""
    return (
        isinstance(payload, dict)
        and bool(payload)
        and "file" not in payload  # which `savez` takes for its own argument
        and all(isinstance(name, str) and name and "/" not in name for name in payload)
        and all(isinstance(value, np.ndarray) for value in payload.values())
    )
