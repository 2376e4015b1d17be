"""Derive other files from the C headers of shared memory.

    python tools/build/layout.py            write what is derived
    python tools/build/layout.py --check    name the files that are not up to date

tests/shared/test_layout.py compares the files in the tree with the headers. What is derived:

    ringbuf/native/generated.h          the fingerprint, and assertions of every offset and size
    shmbus/shared/native/generated.h    the same of the bus, and the words of enumerations
    shmbus/shared/_layout.pxd           structures, enumerations and numbers for Cython
    shmbus/queues/native/generated.h    the same for a queue
    shmbus/shared/layout.py             the same for Python and numpy, below a marked line
    shmbus/endpoint/trouble.py          an enumeration of endpoint/native/trouble.h, likewise
    shmbus/limits.py                    the numbers that bound what users choose
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from headers import INTEGERS, ROOT, Enumeration, Field, Header, Number, Structure, read

RING_HEADERS = (
    "ringbuf/native/order.h",
    "ringbuf/native/prefix.h",
    "ringbuf/native/ring.h",
    "ringbuf/native/standalone.h",
)
BUS_HEADERS = (
    "shmbus/shared/native/door.h",
    "shmbus/shared/native/record.h",
    "shmbus/shared/native/layout.h",
)
PROCESS_HEADER = "shmbus/shared/native/process.h"
QUEUE_HEADER = "shmbus/queues/native/layout.h"
TROUBLE_HEADER = "shmbus/endpoint/native/trouble.h"

# Of ringbuf's headers: what a ring in a segment of its own consists of, and what a bus uses.
RING = ("rb_prefix", "rb_head8", "rb_standalone", "RB_MAGIC", "RB_PADDING", "RB_STANDALONE_KIND")
BELOW = ("rb_prefix", "RB_MAGIC", "RB_LINE", "RB_PADDING")

WORDS = ("sb_kind", "sb_reason", "sb_loss", "sb_right")
LIMITS = (
    "SB_GROUPS",
    "SB_HELD",
    "SB_KEYED_GROUPS",
    "SB_MAILBOXES",
    "SB_MAX_DEPTH",
    "SB_MAX_NAME",
    "SB_MAX_REQUESTS",
    "SB_MAX_SITE",
    "SB_MAX_SLOTS",
    "SB_MAX_TYPE",
    "SB_MEMBERS",
    "SB_GRANTED",
    "SB_SHARES",
    "SB_OWN_MAILBOXES",
    "SB_OWN_MATCHINGS",
    "SB_REQUEST_RESERVE",
    "SB_RINGS",
    "SB_RINGS_IN",
    "SB_URGENT_BYTES",
)

DO_NOT_EDIT = "Written by tools/build/layout.py from the headers; do not edit."
BELOW_HERE = f"# {DO_NOT_EDIT} {'-' * 34}\n"


@dataclass
class Facts:
    """What some headers define."""

    structures: list[Structure]
    enumerations: list[Enumeration]
    numbers: list[Number]

    def fingerprint(self) -> int:
        """FNV-1a over all names, offsets, sizes and values."""
        lines = chain(
            (f"{s.name} {s.size}" for s in self.structures),
            (f"{s.name}.{f.name} {f.at} {f.size}" for s in self.structures for f in s.fields),
            (f"{m.name} {m.value}" for e in self.enumerations for m in e.members),
            (f"{n.name} {n.value}" for n in self.numbers),
        )
        hashed = 0xCBF29CE484222325
        for byte in "\n".join(lines).encode():
            hashed = (hashed ^ byte) * 0x100000001B3 & (2**64 - 1)
        return hashed

    def layout(self, version: int) -> int:
        """The second word of every segment: the version, and the fingerprint folded to 32 bits."""
        f = self.fingerprint()
        return version << 32 | (f ^ f >> 32) & 0xFFFFFFFF


def facts(headers: Iterable[Header], *, only: Collection[str] | None = None) -> Facts:
    """What these headers define; with `only`, just that, all of which must be there."""
    found = Facts([], [], [])
    for header in headers:
        found.structures += header.structures.values()
        found.enumerations += header.enumerations.values()
        found.numbers += header.numbers.values()
    if only is None:
        return found
    chosen = Facts(
        [structure for structure in found.structures if structure.name in only],
        [enumeration for enumeration in found.enumerations if enumeration.name in only],
        [number for number in found.numbers if number.name in only],
    )
    names = [structure.name for structure in chosen.structures]
    names += [enumeration.name for enumeration in chosen.enumerations]
    names += [number.name for number in chosen.numbers]
    if missing := set(only).difference(names):
        raise ValueError(f"no header defines {', '.join(sorted(missing))}")
    return chosen


def ring_facts(headers: Iterable[Header]) -> Facts:
    """What a ring in a segment of its own consists of."""
    return facts(headers, only=RING)


def bus_facts(ringbuf: Iterable[Header], bus: Iterable[Header]) -> Facts:
    """What a bus consists of."""
    below, own = facts(ringbuf, only=BELOW), facts(bus)
    return Facts(below.structures + own.structures, own.enumerations, below.numbers + own.numbers)


def queue_facts(ringbuf: Iterable[Header], queue: Header) -> Facts:
    """What a queue consists of."""
    below, own = facts(ringbuf, only=(*BELOW, "rb_head8")), facts([queue])
    return Facts(below.structures + own.structures, own.enumerations, below.numbers + own.numbers)


# C ---------------------------------------------------------------------------------------------


def c_header(prefix: str, of: str, known: Facts, layout: int, words: Iterable[str] = ()) -> str:
    """Fingerprint, assertions and words."""
    lines = [
        f"/* {DO_NOT_EDIT}",
        " *",
        f" * The fingerprint of {of}, assertions that this compiler gives every field the offset",
        " * and size that the fingerprint, Python and Cython assume, and enumerations' words. */"
        if words
        else " * and size that the fingerprint assumes. */",
        "#pragma once",
        "",
        "/* Version << 32 | fingerprint: two builds whose words agree read shared memory alike. */",
        f"#define {prefix}_LAYOUT {layout:#018x}ull",
        "",
        f"#define {prefix}_FIELD(type, field, at, size) \\",
        "    _Static_assert(offsetof(struct type, field) == (at) && \\",
        '                       sizeof(((struct type *)0)->field) == (size), #type "." #field)',
    ]
    for structure in known.structures:
        name, size = structure.name, structure.size
        lines.append("")
        lines.append(f'_Static_assert(sizeof(struct {name}) == {size}, "{name}");')
        for field in structure.fields:
            if field.count == 0:
                condition = f"offsetof(struct {name}, {field.name}) == {field.at}"
                lines.append(f'_Static_assert({condition}, "{name}.{field.name}");')
            else:
                lines.append(f"{prefix}_FIELD({name}, {field.name}, {field.at}, {field.size});")
    for enumeration in known.enumerations:
        if enumeration.name in words:
            lines += ["", *_c_words(enumeration)]
    return "\n".join([*lines, ""])


def _c_words(enumeration: Enumeration) -> Iterator[str]:
    value = enumeration.name.removeprefix("sb_")
    yield f"static inline const char *{enumeration.name}_word(enum {enumeration.name} {value})"
    yield "{"
    yield f"    switch ({value}) {{"
    for member in enumeration.members:
        word = member.name.removeprefix(enumeration.prefix).lower()
        yield f'    case {member.name}: return "{word}";'
    yield "    }"
    yield '    return "unknown";'
    yield "}"


# Cython ----------------------------------------------------------------------------------------

KEYWORDS = {"from", "in", "is"}


def cython(headers: Iterable[Header]) -> str:
    """Declarations of all that the bus's headers define, and of the prefix."""
    lines = [f'"""What is in shared memory, for Cython. {DO_NOT_EDIT}"""', ""]
    lines += ["from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t"]
    lines += ["from ringbuf._native cimport rb_word"]
    for header in headers:
        if header.path in BUS_HEADERS:
            known = facts([header])
        elif "rb_prefix" in header.structures:
            known = facts([header], only=("rb_prefix",))
        else:
            continue
        lines += ["", f'cdef extern from "{header.path}" nogil:']
        lines += [f"    {line}" for line in _cython(known)]
    return "\n".join([*lines, ""])


def _cython(known: Facts) -> Iterator[str]:
    for enumeration in known.enumerations:
        yield f"enum: # {enumeration.name}; a named one could not be an index"
        yield from (f"    {member.name}" for member in enumeration.members)
    small = [number for number in known.numbers if number.value < 1 << 31]
    if small:
        yield "enum:"
        yield from (f"    {number.name}" for number in small)
    yield from (f"const uint64_t {n.name}" for n in known.numbers if n not in small)
    for structure in known.structures:
        yield f"struct {structure.name}:"
        for field in structure.fields:
            name = f'{field.name}_ "{field.name}"' if field.name in KEYWORDS else field.name
            many = f"[{field.count}]" if field.count is not None else ""
            if field.count != 0:
                yield f"    {field.type} {name}{many}"


# Python ----------------------------------------------------------------------------------------


def python_layout(known: Facts, layout: int) -> str:
    """Numbers, enumerations and numpy's structures."""
    lines = [
        "",
        f"LAYOUT = {_digits(f'{layout:#018x}')}",
        '"""The second word of every segment that this version can read."""',
        "",
    ]
    for number in known.numbers:
        lines += _python_number(number)
    for enumeration in known.enumerations:
        lines += ["", "", *_python_enumeration(enumeration)]
    lines.append("")
    for structure in known.structures:
        lines += ["", *_python_structure(structure)]
    lines += ["", "STRUCTURES: dict[str, Dtype] = {"]
    lines += [f'    "{s.name}": {_bare(s.name)},' for s in known.structures]
    names = [_bare(number.name) for number in known.numbers]
    names += [_bare(structure.name) for structure in known.structures]
    names += [_class_name(enumeration) for enumeration in known.enumerations]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two facts would have one name in Python: {', '.join(sorted(twice))}")
    return "\n".join([*lines, "}", ""])


def python_limits(known: Facts) -> str:
    """Some numbers alone, for modules that may not import the layout."""
    lines = [f'"""Numbers that bound what users choose.\n\n{DO_NOT_EDIT}\n"""', ""]
    for number in known.numbers:
        lines += _python_number(number)
    return "\n".join([*lines, ""])


def python_trouble(header: Header) -> str:
    """The enumeration of what keeps calls from proceeding, and what the header combines of it."""
    lines = ["", ""]
    for enumeration in header.enumerations.values():
        lines += _python_enumeration(enumeration, header.numbers.values())
    return "\n".join([*lines, ""])


def _digits(number: str) -> str:
    """As ruff writes hexadecimals."""
    return f"0x{number[2:].upper()}"


def _bare(name: str) -> str:
    return name[3:].upper()


def _class_name(enumeration: Enumeration) -> str:
    return "".join(part.capitalize() for part in enumeration.name.split("_")[1:])


def _python_number(number: Number) -> Iterator[str]:
    value = _digits(f"{number.value:#x}") if number.hexadecimal else str(number.value)
    yield from _assigned(_bare(number.name), value, number.comment, "")


def _assigned(name: str, value: str, comment: str, indent: str) -> Iterator[str]:
    """An assignment with a comment: beside it, or above where that would be too long."""
    line = f"{indent}{name} = {value}"
    if not comment:
        yield line
    elif len(line) + 4 + len(comment) <= 100:
        yield f"{line}  # {comment}"
    else:
        yield from textwrap.wrap(
            comment, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        yield line


def _python_enumeration(enumeration: Enumeration, combined: Iterable[Number] = ()) -> Iterator[str]:
    yield f"class {_class_name(enumeration)}({'IntFlag' if enumeration.bits else 'IntEnum'}):"
    if not enumeration.comment:
        raise ValueError(f"{enumeration.name} needs a comment: it becomes a docstring")
    meaning = enumeration.comment[0].upper() + enumeration.comment[1:]
    yield from textwrap.wrap(f'    """{meaning.rstrip(".")}."""', 100, subsequent_indent="    ")
    yield ""
    for member in enumeration.members:
        name = member.name.removeprefix(enumeration.prefix)
        value = f"{member.value:#x}" if member.value > 0xFFF else str(member.value)
        yield from _assigned(name, value, member.comment, "    ")
    for number in combined:
        yield from _assigned(_bare(number.name), str(number.value), number.comment, "    ")


def _python_structure(structure: Structure) -> Iterator[str]:
    yield f"{_bare(structure.name)} = _structure("
    yield f"    {structure.size},"
    for field in structure.fields:
        if field.count != 0:
            yield f'    ("{field.name}", {_dtype(field)}, {field.at}),'
    yield ")"


def _dtype(field: Field) -> str:
    if field.type == "char":
        return f'"S{field.count}"'
    one = f'"<u{INTEGERS[field.type]}"' if field.type in INTEGERS else _bare(field.type)
    one = one.replace("<u1", "u1")
    return f"({one}, {field.count})" if field.count is not None else one


# All of it -------------------------------------------------------------------------------------


def derived() -> dict[str, str]:
    """What the files should contain, by path."""
    headers = read(*RING_HEADERS, *BUS_HEADERS, PROCESS_HEADER, TROUBLE_HEADER, QUEUE_HEADER)
    ringbuf, bus = headers[: len(RING_HEADERS)], headers[len(RING_HEADERS) : -3]
    process, trouble, queue = headers[-3:]
    ring, everything = ring_facts(ringbuf), bus_facts(ringbuf, bus)
    of_queue = queue_facts(ringbuf, queue)
    value = {number.name: number.value for number in facts(headers).numbers}
    version = value["SB_LAYOUT_VERSION"]
    of_python = Facts(
        everything.structures,
        everything.enumerations,
        [number for number in everything.numbers if number.name not in LIMITS]
        + facts([process], only=("SB_TASK_FINISHED",)).numbers,
    )
    layout = everything.layout(version)
    return {
        "ringbuf/native/generated.h": c_header(
            "RB", "a ring that stands alone", ring, ring.layout(value["RB_STANDALONE_VERSION"])
        ),
        "shmbus/shared/native/generated.h": c_header("SB", "a bus", everything, layout, WORDS),
        "shmbus/queues/native/generated.h": c_header(
            "SQ", "a queue", of_queue, of_queue.layout(value["SQ_LAYOUT_VERSION"])
        ),
        "shmbus/shared/_layout.pxd": cython([*ringbuf, *bus]),
        "shmbus/shared/layout.py": _below(
            "shmbus/shared/layout.py", python_layout(of_python, layout)
        ),
        "shmbus/endpoint/trouble.py": _below("shmbus/endpoint/trouble.py", python_trouble(trouble)),
        "shmbus/limits.py": python_limits(facts(bus, only=LIMITS)),
    }


def _below(path: str, text: str) -> str:
    """The text of a file whose beginning is written by hand."""
    return (ROOT / path).read_text().partition(BELOW_HERE)[0] + BELOW_HERE + text


def stale() -> list[str]:
    """The files whose content is not up to date."""
    return [
        path
        for path, text in derived().items()
        if not (ROOT / path).exists() or (ROOT / path).read_text() != text
    ]


def main() -> None:
    """Write the files, or name those that are stale."""
    if sys.argv[1:] == ["--check"]:
        if paths := stale():
            sys.exit(
                f"not up to date with the headers: {', '.join(paths)}; run tools/build/layout.py"
            )
        return
    if sys.argv[1:]:
        sys.exit(__doc__)
    for path, text in derived().items():
        (ROOT / path).write_text(text)


if __name__ == "__main__":
    main()
