"""`shmbus bench`: this machine measured, in the terminal, as JSON and as SVG."""

from __future__ import annotations

import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from shmbus_command import plot

from shmbus.testing import eventually, in_shm

from .conftest import Start


@pytest.mark.slow
def test_it_measures_latency_and_throughput(start: Start, tmp_path: Path) -> None:
    process = start("bench", "--seconds", 1, "--json", "--svg", tmp_path / "bench.svg")
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    found = msgspec.json.decode(out)
    for latency in (found["request"], found["event"]):
        times = list(latency["percentiles"].values())
        assert times == sorted(times)
        assert latency["count"] > 100
        assert latency["histogram"].startswith("HIST")
    assert [flood["size"] for flood in found["floods"]][:2] == [64, 64]
    assert all(flood["rate"] > 0 and flood["lost"] == 0 for flood in found["floods"])
    text = ET.parse(tmp_path / "bench.svg").getroot().itertext()
    assert {"request and reply", "event", "64 KiB"} <= set(text)
    assert in_shm(f"bench-{process.pid}") == []


@pytest.mark.slow
def test_its_figures_are_shown(start: Start) -> None:
    out, _ = start("bench", "--seconds", 1).communicate(timeout=200)
    for word in ("LATENCY", "p99.9", "request and reply", "batches of 256", "64 KiB", "█"):
        assert word in out


@pytest.mark.slow
def test_interrupted_it_leaves_nothing(start: Start) -> None:
    process = start("bench", "--json")
    eventually(lambda: in_shm(f"bench-{process.pid}") or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")
    assert in_shm(f"bench-{process.pid}") == []


def test_a_plot_shows_every_curve_and_its_scale() -> None:
    curves = {"one": [(0.0, 1e-6), (50.0, 5e-6), (99.0, 1e-4)], "two": [(0.0, 1e-5), (99.9, 1e-3)]}
    lines = plot.curves(curves)
    assert {line[:7].strip() for line in lines if "|" in line} >= {
        "1 µs",
        "10 µs",
        "100 µs",
        "1 ms",
    }
    assert "o one   + two" in lines[-1]
    assert any("o" in line for line in lines[:-2])
    assert any("+" in line for line in lines[:-3])
