"""Settings: defaults that fit together, and errors that name valid values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmbus
from shmbus.errors import InvalidSetting
from shmbus.limits import REQUEST_RESERVE
from shmbus.settings import BatchLimits, Settings
from shmbus.testing import Attach, in_shm

CONTAINER = 64 << 20  # bytes that Docker gives /dev/shm of a container


@pytest.mark.smoke
def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert settings.in_bytes == settings.out_bytes == 512 * 1024
    assert settings.reply_bytes == 256 * 1024
    assert settings.max_endpoints == 256
    assert settings.request_limit == 512
    assert settings.record_limit == 128 * 1024
    assert settings.reply_limit == 64 * 1024
    assert settings.block_timeout == 1.0
    assert settings.stall_after == 2.0


@given(st.integers(12, 31))
def test_small_rings_lower_the_number_of_requests_by_themselves(bits: int) -> None:
    settings = Settings(reply_bytes=1 << bits)
    assert 1 <= settings.request_limit <= 512
    assert settings.request_limit * REQUEST_RESERVE <= settings.reply_bytes // 2


def test_more_requests_than_the_ring_can_answer_are_refused_with_the_size_that_does() -> None:
    with pytest.raises(InvalidSetting, match="reply_bytes=4194304") as caught:
        Settings(max_requests=5000)
    assert (caught.value.setting, caught.value.value) == ("max_requests", 5000)
    assert Settings(max_requests=5000, reply_bytes=4194304).request_limit == 5000


@given(st.integers(1, 65535), st.integers(12, 31))
def test_the_size_that_an_error_names_does(requests: int, bits: int) -> None:
    try:
        Settings(reply_bytes=1 << bits, max_requests=requests)
    except InvalidSetting as error:
        size = int(error.remedy.rpartition("=")[2])
        Settings(reply_bytes=size, max_requests=requests)


@pytest.mark.parametrize("setting", ["in_bytes", "out_bytes", "reply_bytes"])
def test_a_ring_that_is_no_power_of_two_is_told_its_neighbours(setting: str) -> None:
    given: dict[str, Any] = {setting: 100_000}
    with pytest.raises(InvalidSetting, match="Set 65536 or 131072 bytes") as caught:
        Settings(**given)
    assert caught.value.setting == setting


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("in_bytes", 2048),
        ("out_bytes", 1 << 40),
        ("reply_bytes", "512"),
        ("in_bytes", True),
        ("in_bytes", 4096.0),
        ("max_endpoints", 0),
        ("max_requests", 0),
        ("block_timeout", -1.0),
        ("block_timeout", float("nan")),
        ("block_timeout", float("inf")),
        ("stall_after", 0.0),
        ("stall_after", None),
        ("prefetch", 0),
        ("hold_limit", 65),
        ("max_deliveries", 0),
        ("batch_per_pass", 0),
        ("batch_per_pass", 1 << 32),
        ("prefetch", 1 << 64),
        ("spin_us", -1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(setting: str, value: object) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(InvalidSetting, match=setting) as caught:
        Settings(**given)
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("setting", "value"), [("max_messages", 0), ("max_bytes", 0), ("max_delay", 0.0)]
)
def test_a_batch_that_could_hold_nothing_is_refused(setting: str, value: object) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(InvalidSetting, match=f"batch.{setting}"):
        BatchLimits(**given)


def test_settings_stay_as_they_are_and_travel_whole() -> None:
    settings = Settings(in_bytes=8192, batch=BatchLimits(max_delay=0.01))
    with pytest.raises(AttributeError):
        settings.in_bytes = 4096  # type: ignore[misc]
    packed = msgspec.msgpack.encode(settings)
    assert msgspec.msgpack.decode(packed, type=Settings) == settings
    assert msgspec.structs.replace(settings, reply_bytes=4096).request_limit == 8


def test_the_table_says_what_endpoints_take() -> None:
    settings = Settings()
    rings = settings.in_bytes + settings.out_bytes + 2 * settings.reply_bytes
    assert rings < settings.endpoint_bytes < rings * 9 / 8
    assert settings.bytes_for(10) - settings.bytes_for(9) == settings.endpoint_bytes
    table = settings.describe()
    assert "256 endpoints" in table
    assert "payloads up to 64 MiB; through rings\nmessages up to 128 KiB, replies up to 64" in table
    assert "MiB" in table


def test_a_container_s_64_mb_hold_40_endpoints_by_default(bus: shmbus.Bus, attach: Attach) -> None:
    def taken() -> int:
        return sum((Path("/dev/shm") / name).stat().st_blocks * 512 for name in in_shm(bus.name))

    alone = taken()
    attach("one")
    with_one = taken()
    attach("two")
    each = taken() - with_one
    assert (CONTAINER - alone) // each == 40
    settings = Settings()
    assert (CONTAINER - settings.bytes_for(0)) // settings.endpoint_bytes == 40
