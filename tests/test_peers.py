"""stress/peers.py measures what is there, and names what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import peers
import pytest
from benchmark.peers import PEERS, Peer
from benchmark.peers.row import FAN_OUT, ONE_WAY, REQUEST

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_it_measures_what_every_python_has(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "stress/peers.py"), "--quick", "--markdown"]
    for rounds in (1, 2):  # a second run adds its samples to those of the first
        done = subprocess.run(
            [*command, "--only", "multiprocessing", "--json", str(report)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        samples = json.loads(report.read_text())["samples"]
        assert list(samples) == ["multiprocessing.Queue", "multiprocessing.Pipe"]
        for figures in samples.values():
            assert set(figures) == {REQUEST, ONE_WAY, FAN_OUT}
            assert all(len(values) == rounds for f in figures.values() for values in f.values())
    assert done.stdout.count("| multiprocessing.") == 2


def test_what_is_absent_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = (
        Peer("carrier", "carrier", "carrier-pigeon", "carrier_pigeon"),
        Peer("post", "post", server="post-office-server"),
    )
    monkeypatch.setattr(peers, "PEERS", absent)
    assert peers.main(["--quick"]) == 0
    said = capsys.readouterr().out
    assert "not measured: carrier: pip install carrier-pigeon" in said
    assert "not measured: post: apt install post-office-server" in said


def test_each_peer_has_a_file_of_its_own() -> None:
    files = {path.stem for path in (ROOT / "stress/benchmark/peers").glob("*.py")}
    assert {peer.file for peer in PEERS} == files - {"__init__", "row"}
