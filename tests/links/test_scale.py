"""stress/link_scale.py says what links cost as sites grow."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import link_scale
import pytest


def test_costs_grow_with_sites_and_endpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, picture = tmp_path / "report.json", tmp_path / "picture.svg"
    sizes = ["--sites", "3", "6", "--endpoints", "10", "20"]
    link_scale.main(["--quick", *sizes, "--json", str(report), "--plot", str(picture)])
    found = json.loads(report.read_text())
    assert all(cost > 0 for cost in found["costs"].values())
    few, _, _, many = found["scaled"]
    for each in ("patterns", "start_bytes", "churn_rate", "link_bytes", "all_known", "one_known"):
        assert 0 < few[each] < many[each]
    lines = ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}polyline")
    assert len(list(lines)) == 2 * 4
    shown = capsys.readouterr().out
    assert "Of each link" in shown
    assert "| 3, 10 | 40 |" in shown  # as docs/performance.md has it
