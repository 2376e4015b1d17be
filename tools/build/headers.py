"""The facts in the C headers of shared memory: structures, enumerations and numbers.

What is read is the part of C that such headers use: structures of integers of fixed width,
characters, arrays of constant size and other structures, with `_Alignas`; enumerations; and
`#define NAME expression`. A structure with a pointer is private to a process and is skipped, as is
everything else. Offsets follow C's rules; assertions that layout.py writes make the compiler check
them.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
INTEGERS = {
    "char": 1,
    "uint8_t": 1,
    "uint16_t": 2,
    "uint32_t": 4,
    "uint64_t": 8,
    "_Atomic uint32_t": 4,
    "rb_word": 8,
}


@dataclass(frozen=True)
class Field:
    """A member of a structure."""

    name: str
    type: str
    """A key of INTEGERS, or the name of a structure."""
    count: int | None
    """Elements of an array; 0: of a flexible one; None: not an array."""
    at: int
    size: int
    comment: str


@dataclass(frozen=True)
class Structure:
    """A structure as it lies in memory."""

    name: str
    fields: tuple[Field, ...]
    size: int
    alignment: int
    comment: str


@dataclass(frozen=True)
class Member:
    """A member of an enumeration."""

    name: str
    value: int
    comment: str


@dataclass(frozen=True)
class Enumeration:
    """An enumeration; `bits` where its members are written as shifts, to be combined."""

    name: str
    members: tuple[Member, ...]
    bits: bool
    comment: str

    @property
    def prefix(self) -> str:
        """What the names of all members begin with, up to an underscore."""
        names = [member.name for member in self.members]
        first, last = min(names), max(names)
        same = next((i for i in range(len(first)) if first[i] != last[i : i + 1]), len(first))
        return first[: first.rfind("_", 0, same) + 1]


@dataclass(frozen=True)
class Number:
    """A constant; `hexadecimal` where the header writes it so, or as the complement of another."""

    name: str
    value: int
    hexadecimal: bool
    comment: str


@dataclass(frozen=True)
class Header:
    """What one header defines, by name."""

    path: str
    structures: dict[str, Structure]
    enumerations: dict[str, Enumeration]
    numbers: dict[str, Number]


def read(*paths: str) -> list[Header]:
    """The headers at these paths of the tree; each must come after those that it includes."""
    return parse({path: (ROOT / path).read_text() for path in paths})


def parse(texts: dict[str, str]) -> list[Header]:
    """Headers from their texts, by path."""
    structures: dict[str, Structure] = {}
    numbers: dict[str, int] = {}
    return [_header(path, text, structures, numbers) for path, text in texts.items()]


_DEFINITION = re.compile(
    r"""^\#define\ (?P<number>\w+)\ (?P<value>[^\n]+)$
      | ^(?P<kind>struct|enum)\ (?P<name>\w+)\ \{(?P<body>.*?)\};(?P<after>[^\n]*)$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_COMMENT = re.compile(r"/\*(.*?)\*/", re.DOTALL)
_BEFORE = re.compile(r"(?:^|\n)/\*((?:(?!\*/).)*)\*/\n\Z", re.DOTALL)


def _header(
    path: str, text: str, structures: dict[str, Structure], numbers: dict[str, int]
) -> Header:
    header = Header(path, {}, {}, {})
    for found in _DEFINITION.finditer(text):
        if name := found["number"]:
            code, comment = _parted(found["value"])
            value = _value(code, structures, numbers)
            if value is not None:
                numbers[name] = value
                written = code.lstrip("(").startswith(("0x", "~"))
                header.numbers[name] = Number(name, value, written, comment)
            continue
        name, start = found["name"], found.start()
        before = _BEFORE.search(text, max(0, text.rfind("/*", 0, start) - 1), start)
        opening, _, body = found["body"].partition("\n")
        inside, beside = _parted(opening)[1], _parted(found["after"])[1]
        comment = _prose(before[1]) if before else inside or beside
        if not inside:
            body = found["body"]
        if found["kind"] == "enum":
            members = tuple(_members(body, structures, numbers))
            numbers |= {member.name: member.value for member in members}
            bits = "<<" in body
            header.enumerations[name] = Enumeration(name, members, bits, comment)
        elif "*" not in _COMMENT.sub("", body):
            structures[name] = _structure(name, body, comment, structures, numbers)
            header.structures[name] = structures[name]
    return header


def _prose(comment: str) -> str:
    """The text of a comment in one line."""
    return " ".join(re.sub(r"\n\s*\*", "\n", comment).split())


def _parted(line: str) -> tuple[str, str]:
    """The code of a line, and the comment behind it."""
    comment = _COMMENT.search(line)
    return _COMMENT.sub("", line).strip(), _prose(comment[1]) if comment else ""


def _parts(body: str, end: str) -> Iterator[tuple[str, str]]:
    """What a body declares, with the comment that begins in the same line; comments in lines of
    their own are about several."""
    part = re.compile(rf"\s*(?:/\*.*?\*/|([^{end}/]+)(?:{end}|$)[ \t]*(?:/\*(.*?)\*/)?)", re.DOTALL)
    for found in part.finditer(body):
        if found[1] and found[1].strip():
            yield found[1].strip(), _prose(found[2] or "")


def _members(
    body: str, structures: dict[str, Structure], numbers: dict[str, int]
) -> Iterator[Member]:
    for code, comment in _parts(body, ","):
        name, _, written = (part.strip() for part in code.partition("="))
        value = _value(written, structures, numbers)
        if value is None:
            raise ValueError(f"{name} needs a value, {written!r} is none: write a number")
        yield Member(name, value, comment)


_FIELD = re.compile(r"(?:_Alignas\((\w+)\) )?(?:struct )?((?:_Atomic )?\w+) (.+)", re.DOTALL)


def _structure(
    name: str,
    body: str,
    comment: str,
    structures: dict[str, Structure],
    numbers: dict[str, int],
) -> Structure:
    fields = []
    at, alignment = 0, 1
    for code, comment_beside in _parts(body, ";"):
        found = _FIELD.fullmatch(code)
        if found is None or (found[2] not in INTEGERS and found[2] not in structures):
            raise ValueError(f"{name}: {code!r} is not of a kind that may be in shared memory")
        kind = found[2]
        one = INTEGERS[kind] if kind in INTEGERS else structures[kind].size
        align = one if kind in INTEGERS else structures[kind].alignment
        if found[1]:
            align = max(align, _value(found[1], structures, numbers) or 0)
        for declared in found[3].split(","):
            field, _, many = declared.strip().rstrip("]").partition("[")
            is_array = "[" in declared
            count = (_value(many, structures, numbers) or 0) if is_array else None
            at = -(-at // align) * align
            size = one * (1 if count is None else count)
            fields.append(Field(field, kind, count, at, size, comment_beside))
            at += size
            alignment = max(alignment, align)
    return Structure(name, tuple(fields), -(-at // alignment) * alignment, alignment, comment)


def _value(code: str, structures: dict[str, Structure], numbers: dict[str, int]) -> int | None:
    """The value of a constant expression in 64 bits; None where it is none, or of another form."""
    code = re.sub(
        r"sizeof\(struct (\w+)\)",
        lambda of: str(structures[of[1]].size) if of[1] in structures else of[0],
        code,
    )
    code = re.sub(r"\(u?int\d+_t\)", "", code)
    code = re.sub(r"\b(0x[0-9a-fA-F]+|\d+)[uUlL]+\b", r"\1", code)
    try:
        return _evaluate(ast.parse(code.strip(), mode="eval").body, numbers) & (2**64 - 1)
    except (SyntaxError, KeyError, TypeError):
        return None


_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.LShift: operator.lshift,
    ast.BitOr: operator.or_,
}


def _evaluate(node: ast.expr, numbers: dict[str, int]) -> int:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return numbers[name]
        case ast.UnaryOp(op=ast.Invert()):
            return ~_evaluate(node.operand, numbers)
        case ast.UnaryOp(op=ast.USub()):
            return -_evaluate(node.operand, numbers)
        case ast.BinOp():
            operation = _OPERATIONS[type(node.op)]
            return operation(_evaluate(node.left, numbers), _evaluate(node.right, numbers))
        case _:
            raise TypeError(f"{ast.dump(node)} is no constant")
