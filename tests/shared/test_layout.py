"""Python, Cython and the fingerprint have the layout of the C headers."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import headers
import layout as generator
import pytest
from headers import ROOT, Structure

import ringbuf
from shmbus.shared import _kernel, layout

PATHS = (*generator.RING_HEADERS, *generator.BUS_HEADERS)
TEXTS = {path: (ROOT / path).read_text() for path in PATHS}


def fingerprints(texts: dict[str, str]) -> dict[str, int]:
    """Those of a ring and of a bus, with these headers."""
    read = headers.parse(texts)
    below = read[: len(generator.RING_HEADERS)]
    return {
        "ring": generator.ring_facts(below).fingerprint(),
        "bus": generator.bus_facts(below, read[len(below) :]).fingerprint(),
    }


def test_what_is_derived_is_as_the_headers_say() -> None:
    assert generator.stale() == [], "run: python tools/build/layout.py"


@pytest.mark.smoke
def test_the_kernels_were_built_with_the_fingerprints_that_were_derived() -> None:
    assert _kernel.layout_hash() == layout.LAYOUT
    read = headers.parse({path: TEXTS[path] for path in generator.RING_HEADERS})
    assert ringbuf.layout_hash() == generator.ring_facts(read).layout(1)


def test_a_layout_is_of_the_version_that_the_header_names() -> None:
    assert layout.LAYOUT >> 32 == layout.LAYOUT_VERSION == 1


def neighbours() -> Iterator[tuple[str, str, str, str]]:
    """Header and structure, with two fields side by side that have one size."""
    for header in headers.parse(TEXTS):
        structures: list[Structure] = list(header.structures.values())
        for structure in structures:
            for a, b in zip(structure.fields, structure.fields[1:], strict=False):
                if (a.size, a.type, a.count) == (b.size, b.type, b.count):
                    yield header.path, structure.name, a.name, b.name


@pytest.mark.parametrize(("path", "structure", "a", "b"), list(neighbours()))
def test_swapping_two_fields_changes_the_fingerprint(
    path: str, structure: str, a: str, b: str
) -> None:
    def swapped(body: re.Match[str]) -> str:
        declared = rf"\b({a}|{b})\b(?=(?:\[\w*\])?[,;])"
        return re.sub(declared, lambda name: b if name[0] == a else a, body[0])

    body = re.compile(rf"^struct {structure} \{{.*?^\}};", re.MULTILINE | re.DOTALL)
    changed = body.sub(swapped, TEXTS[path])
    assert changed != TEXTS[path]
    before, after = fingerprints(TEXTS), fingerprints(TEXTS | {path: changed})
    of = "ring" if structure in generator.RING else "bus"
    assert after[of] != before[of]


def test_the_swaps_that_once_went_unnoticed_are_among_them() -> None:
    swaps = {(structure, a, b) for _, structure, a, b in neighbours()}
    assert ("sb_record", "flags", "epoch") in swaps
    assert ("sb_up", "sent_events", "sent_sends") in swaps
    assert ("rb_standalone", "capacity", "doorbells") in swaps


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("SB_ROW_LIVE = 1", "SB_ROW_LIVE = 5"),
        ("SB_KEPT 16u", "SB_KEPT 32u"),
        ("SB_FROM_BUS 0xffffu", "SB_FROM_BUS 0xfffeu"),
        ("uint8_t record[432]", "uint8_t record[433]"),
        ("_Alignas(64) rb_word bell;  /* dispatcher", "rb_word bell;  /* dispatcher"),
    ],
)
def test_values_limits_and_places_change_the_fingerprint(written: str, instead: str) -> None:
    changed = {path: text.replace(written, instead) for path, text in TEXTS.items()}
    assert changed != TEXTS
    assert fingerprints(changed)["bus"] != fingerprints(TEXTS)["bus"]


def test_the_first_64_bytes_of_a_segment_are_frozen() -> None:
    assert layout.PREFIX.fields is not None
    assert {field: (at, str(kind)) for field, (kind, at, *_) in layout.PREFIX.fields.items()} == {
        "magic": (0, "uint64"),
        "layout": (8, "uint64"),
        "size": (16, "uint64"),
        "generation": (24, "uint64"),
        "superseded_by": (32, "uint64"),
        "kind": (40, "uint32"),
        "reserved": (44, "('<u4', (5,))"),
    }
    assert (layout.PREFIX.itemsize, layout.MAGIC.to_bytes(8, "little")) == (64, b"SRINGBUF")


def test_a_comment_does_not_change_the_fingerprint() -> None:
    changed = {path: text.replace("/* ", "/* indeed, ") for path, text in TEXTS.items()}
    assert fingerprints(changed) == fingerprints(TEXTS)


def test_the_compiler_places_every_field_where_the_generator_does(tmp_path: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler here to ask")

    def compiles(include: str) -> bool:
        source = tmp_path / "layout.c"
        source.write_text(f'#include "{include}"\n')
        flags = ["-std=c11", "-fsyntax-only", f"-I{tmp_path}", str(source)]
        command = [*shlex.split(compiler), *flags]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    for top in ("ringbuf", "shmbus"):
        for header in (ROOT / top).rglob("*.h"):
            copy = tmp_path / header.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(header.read_text())
    assert compiles("shmbus/shared/native/layout.h")
    assert compiles("ringbuf/native/standalone.h")
    record = tmp_path / "shmbus/shared/native/record.h"
    record.write_text(record.read_text().replace("uint16_t flags;", "uint16_t more, flags;"))
    assert not compiles("shmbus/shared/native/layout.h")


def test_numpy_s_structures_are_those_of_the_headers() -> None:
    known = {
        name: structure
        for header in headers.parse(TEXTS)
        for name, structure in header.structures.items()
    }
    assert set(layout.STRUCTURES) == {name for name in known if name.startswith("sb_")} | {
        "rb_prefix"
    }
    for name, dtype in layout.STRUCTURES.items():
        assert dtype.itemsize == known[name].size
        assert dtype.fields is not None
        placed = {field: (at, kind.itemsize) for field, (kind, at, *_) in dtype.fields.items()}
        assert placed == {f.name: (f.at, f.size) for f in known[name].fields if f.count != 0}


def test_enumerations_are_named_for_what_they_enumerate() -> None:
    assert layout.words(layout.Reason)[3] == "exited"
    assert layout.words(layout.Loss)[2] == "too_large"
    assert layout.words(layout.Outcome)[1] == "nobody"
    assert layout.BusState.HANDOVER.name == "HANDOVER"
    assert layout.Fitness.STALLED | layout.Fitness.SLOW == 3


def test_a_fact_that_is_needed_by_name_must_be_there() -> None:
    with pytest.raises(ValueError, match="no header defines rb_gone"):
        generator.facts(headers.parse(TEXTS), only=("rb_prefix", "rb_gone"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("struct sb_x {\n    int field;\n};\n", "not of a kind"),
        ("struct sb_x {\n    struct sb_y field;\n};\n", "not of a kind"),
        ("/* X. */\nenum sb_x { SB_X_A, SB_X_B };\n", "needs a value"),
    ],
)
def test_what_may_not_be_in_shared_memory_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        headers.parse({"x.h": text})
