"""`shmbus bench`: this machine measured, in the terminal, as JSON and as SVG."""

from __future__ import annotations

import array
import signal
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from shmbus_command.bench import measuring, plot
from shmbus_command.bench.figures import Crowd, Figures, Flood, Latency

from shmbus.testing import eventually, in_shm

from .conftest import Ran, Start


@pytest.mark.slow
def test_it_measures_latency_and_throughput(start: Start, tmp_path: Path) -> None:
    bench = ("bench", "--seconds", 3, "--clients", 2)
    process = start(*bench, "--json", "--svg", tmp_path / "bench.svg")
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    found = msgspec.json.decode(out)
    assert found["crowd"]["clients"] == 2
    assert found["crowd"]["rate"] > 0
    assert found["crowd"]["request"]["count"] >= 100
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


def test_a_drawing_has_every_curve_and_every_bar_and_its_title_is_text() -> None:
    curves = {"one": [(0.0, 1e-6), (99.0, 1e-4)], "two": [(50.0, 1e-5), (99.999, 2e-3)]}
    drawing = plot.svg(curves, [("64 B", 1000.0), ("1 KiB", 500.0)], "CPU <fast> & Co")
    root = ET.fromstring(drawing)
    texts = set(root.itertext())
    assert {"one", "two", "64 B", "1 KiB", "1,000", "500", "99.9 %", "1 µs"} <= texts
    assert "shmbus bench: CPU <fast> & Co" in texts
    lines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert [len((line.get("points") or "").split()) for line in lines] == [2, 1]
    widths = [
        float(element.get("width") or 0)
        for element in root.iter()
        if element.tag.endswith("rect") and element.get("height") == "26"
    ]
    assert widths == [240.0, 120.0]


# An earlier run beside this one ------------------------------------------------------------------


def figures(*, machine: str = "2 CPUs", size: int = 64, faster: float = 1.0) -> Figures:
    times = Latency.of(array.array("q", [int(n * 1000 / faster) for n in range(1, 101)]))
    flood = Flood(size=size, batch=1, rate=1000.0 * faster, bytes_per_second=1.0, lost=0)
    batches = msgspec.structs.replace(flood, batch=256)
    return Figures(
        machine=machine,
        seconds=30.0,
        size=size,
        request=times,
        event=times,
        routing_mean=1e-5,
        routing_p99=2e-5,
        floods=(flood, batches),
        crowd=Crowd(clients=2, rate=500.0 * faster, request=times),
    )


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`now(figures)`: what a run measures."""

    def now(found: Figures) -> None:
        def measure(*arguments: Any, **options: Any) -> Figures:
            return found

        monkeypatch.setattr("shmbus_command.bench.command.measure", measure)

    return now


def earlier(path: Path, found: Figures) -> Path:
    path.write_bytes(msgspec.json.encode(found))
    return path


def test_each_figure_is_shown_beside_that_of_an_earlier_run(
    now: Callable[..., None], tmp_path: Path, shmbus_command: Callable[..., Ran]
) -> None:
    before = earlier(tmp_path / "before.json", figures())
    now(figures(faster=2.0))
    ran = shmbus_command("bench", "--compare", before)
    assert ran.code == 0
    shown = {line.split("  ")[0]: line for line in ran.lines}
    assert f"BEFORE is {before}, of a run of 30 s; NOW is this run" in ran.lines
    assert shown["request and reply, p50"].endswith("0.50  2.00 times better")
    assert shown["events of 64 B, batches of 256, a second"].endswith("2.00  2.00 times better")
    assert shown["request of 2 clients, a second"].endswith("2.00 times better")
    assert shown["routing, p99"].endswith("1.00  noise")
    assert ran.lines[-1].startswith("noise: ")
    assert "another machine" not in ran.out
    ran = shmbus_command("bench", "--compare", before, "--json")
    assert ran.json["request"] == msgspec.to_builtins(figures(faster=2.0).request)
    ratios = {one["figure"]: one["worse"] for one in ran.json["compared"]["figures"]}
    assert ratios["events of 64 B, one by one, a second"] == 0.5


def test_another_machine_and_other_sizes_are_told(
    now: Callable[..., None], tmp_path: Path, shmbus_command: Callable[..., Ran]
) -> None:
    before = earlier(tmp_path / "before.json", figures(machine="64 CPUs"))
    now(figures(size=256))
    ran = shmbus_command("bench", "--compare", before)
    assert ran.code == 0
    assert "! BEFORE is of another machine or Python: 64 CPUs; this is 2 CPUs" in ran.out
    assert "! BEFORE is of payloads of 64 bytes, NOW of 256" in ran.out
    assert ran.lines[-1] == "nothing is measured in both"


def test_a_run_that_is_worse_than_it_may_be_fails(
    now: Callable[..., None], tmp_path: Path, shmbus_command: Callable[..., Ran]
) -> None:
    before = earlier(tmp_path / "before.json", figures(faster=2.0))
    now(figures())
    assert shmbus_command("bench", "--compare", before, "--fail-above", 2.5).code == 0
    ran = shmbus_command("bench", "--compare", before, "--fail-above", 1.5)
    assert ran.code == 1
    assert "request and reply, p50 is 2.00 times worse" in ran.err
    assert "mean" not in ran.err
    ran = shmbus_command("bench", "--fail-above", 1.5)
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_a_figure_that_was_or_is_nothing_is_compared_too(
    now: Callable[..., None], tmp_path: Path, shmbus_command: Callable[..., Ran]
) -> None:
    some = figures()
    flood = msgspec.structs.replace(some.floods[0], rate=0.0)
    none = msgspec.structs.replace(some, floods=(flood, *some.floods[1:]))
    before = earlier(tmp_path / "before.json", none)
    now(some)
    ran = shmbus_command("bench", "--compare", before, "--fail-above", 1.5)
    assert ran.code == 0
    assert "inf times better" in ran.out
    before = earlier(tmp_path / "before.json", some)
    now(none)
    ran = shmbus_command("bench", "--compare", before, "--fail-above", 1.5)
    assert ran.code == 1
    assert "inf times worse" in ran.out
    ran = shmbus_command("bench", "--compare", before, "--fail-above", "nan")
    assert (ran.code, ran.out) == (2, "")
    assert "'nan' is not a number" in ran.err


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}',
        b"no JSON",
        b'{"machine": "\xff"}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        None,
    ],
    ids=["other", "none", "latin", "deep", "missing"],
)
def test_what_is_no_earlier_run_is_refused_before_anything_is_measured(
    tmp_path: Path, shmbus_command: Callable[..., Ran], content: bytes | None
) -> None:
    file = tmp_path / "other.json"
    if content is not None:
        file.write_bytes(content)
    ran = shmbus_command("bench", "--compare", file)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert str(file) in ran.err
    assert content is None or "make one: shmbus bench --json > FILE" in ran.err


@pytest.mark.slow
def test_what_is_measured_may_be_of_one_size(
    shmbus_command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "PACE", 100)
    ran = shmbus_command("bench", "--seconds", 1, "--size", 5000, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["size"] == 5000
    assert [(f["size"], f["batch"]) for f in ran.json["floods"]] == [(5000, 1), (5000, 256)]
    assert ran.json["crowd"] is None


def test_where_the_plot_cannot_be_written_is_told_before_anything_is_measured(
    shmbus_command: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = shmbus_command("bench", "--svg", tmp_path / "nowhere" / "bench.svg")
    assert (ran.code, ran.out) == (2, "")
    assert "nowhere" in ran.err
