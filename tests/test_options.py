"""What a command line may say: times, and the settings of a bus."""

from __future__ import annotations

import pytest

from shmbus.__main__ import main
from shmbus.options import OPTIONS, seconds, sized


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5", 1.5),
        ("0", 0.0),
        ("1e-3", 0.001),
        ("500ms", 0.5),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("2m", 120.0),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1m2s300ms", 62.3),
        (".5s", 0.5),
        ("1d", 86400.0),
    ],
)
def test_a_time_is_written_with_its_unit_or_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "5 s", "1.5.5", "ms", "5x", "1h30", "nan", "inf", "1m!", "٣", "s5", "5mss"],
)
def test_what_is_not_a_time_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time: write 500ms, 2m, 1h30m or 1\.5"):
        seconds(text)


@pytest.mark.parametrize("text", ["31000000", "9999h", "1e999"])
def test_a_time_longer_than_a_wait_can_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than 30000000 seconds"):
        seconds(text)


def test_the_default_of_an_option_is_written_as_it_may_be_given() -> None:
    for option in OPTIONS:
        assert option.shown is None or option.type(option.shown) == option.default


def test_a_setting_that_cannot_be_read_is_told_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for given, expected in (
        ("--stall-after=soon", "'soon' is not a time: write 500ms"),
        ("--prefetch=many", "'many' is not a whole number"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["anything", given])
        assert end.value.code == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "written"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1748992, "1.67 MiB"),
        (64 << 20, "64 MiB"),
        (1000 << 20, "1000 MiB"),
        (5 << 40, "5120 GiB"),
    ],
)
def test_a_size_is_written_with_its_unit(size: int, written: str) -> None:
    assert sized(size) == written
