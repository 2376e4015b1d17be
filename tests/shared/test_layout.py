"""What observers read is laid out as the kernel writes it."""

import os
import re
import shlex
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path

import pytest

from shmbus.shared import layout

ROOT = Path(__file__).resolve().parent.parent.parent

ENUMS: dict[str, tuple[type[IntEnum], str]] = {
    "sb_segment_kind": (layout.SegmentKind, "SEGMENT_"),
    "sb_bus_state": (layout.BusState, "BUS_"),
    "sb_row_state": (layout.RowState, "ROW_"),
    "sb_reason": (layout.Reason, "REASON_"),
    "sb_up_state": (layout.UpState, "UP_"),
    "sb_down_state": (layout.DownState, "DOWN_"),
    "sb_pending_state": (layout.PendingState, "PENDING_"),
    "sb_interest_op": (layout.InterestOp, "INTEREST_"),
    "sb_interest_role": (layout.InterestRole, "ROLE_"),
}


def compile_asserts(assertions: list[str], directory: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler here to ask")
    source = directory / "layout.c"
    lines = [f'_Static_assert({claim}, "{claim}");' for claim in assertions]
    source.write_text('#include "shmbus/shared/native/layout.h"\n' + "\n".join(lines) + "\n")
    command = [*shlex.split(compiler), "-std=c11", "-fsyntax-only", f"-I{ROOT}", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_field_lies_where_the_header_puts_it(tmp_path: Path) -> None:
    claims = []
    for name, structure in layout.STRUCTURES.items():
        claims.append(f"sizeof(struct {name}) == {structure.itemsize}")
        assert structure.fields is not None
        for field, (kind, offset, *_) in structure.fields.items():
            if name == "sb_ready":
                continue
            claims.append(f"offsetof(struct {name}, {field}) == {offset}")
            claims.append(f"sizeof(((struct {name} *)0)->{field}) == {kind.itemsize}")
    claims += [
        f"SB_GROUPS == {layout.GROUPS}",
        f"SB_HELD == {layout.HELD}",
        f"SB_LATENCY_BUCKETS == {layout.LATENCY_BUCKETS}",
        f"SB_NOWHERE == {layout.NOWHERE}u",
        f"RB_MAGIC == {layout.MAGIC:#x}u",
        f"SB_STALLED == {layout.Fitness.STALLED:d}",
        f"SB_SLOW == {layout.Fitness.SLOW:d}",
        f"SB_DROP_NEWEST == {layout.InterestFlag.DROP_NEWEST:d}",
        f"SB_REDELIVER == {layout.InterestFlag.REDELIVER:d}",
    ]
    for members, prefix in ENUMS.values():
        claims += [f"SB_{prefix}{member.name} == {member:d}" for member in members]
    compile_asserts(claims, tmp_path)


def test_every_member_of_the_header_s_enumerations_is_known() -> None:
    header = (ROOT / "shmbus/shared/native/layout.h").read_text()
    for name, (members, _) in ENUMS.items():
        body = re.search(rf"enum {name} \{{(.*?)\}};", header, re.DOTALL)
        assert body is not None, name
        assert len(re.findall(r"\bSB_\w+ *=", body[1])) == len(members), name


def test_no_structure_has_a_hole_where_a_field_was_forgotten() -> None:
    for name, structure in layout.STRUCTURES.items():
        assert structure.fields is not None
        ends = 0
        for kind, offset, *_ in structure.fields.values():
            assert offset - ends < layout.LINE, name
            ends = offset + kind.itemsize
        assert structure.itemsize - ends < layout.LINE, name
