"""What a link is told: in a file, a mapping or keywords, and what is wrong with it by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shmbus.errors import InvalidSetting
from shmbus.links.config import LinkConfig

LISTEN = ["tcp/127.0.0.1:0"]

FILE = """
site = "berlin"
space = "lan"
listen = ["tcp/127.0.0.1:7447"]
export = ["xi.>"]
import = ["sensor.*.>"]
detection = "500ms"
buffer = "2MiB"
window = 262144
[[rename]]
local = "sensor"
space = "berlin.sensor"
[sites.paris]
export = []
[confirmed]
patterns = ["order.>"]
"""


def test_a_file_says_what_keywords_do(tmp_path: Path) -> None:
    path = tmp_path / "link.toml"
    path.write_text(FILE)
    config = LinkConfig.read(path)
    assert (config.site, config.space, config.detection) == ("berlin", "lan", 0.5)
    assert (config.buffer, config.window) == (2 << 20, 262144)
    assert [*config.confirmed] == ["order.>"]
    assert config.towards("rome").outward("xi.edit") == "xi.edit"
    assert config.towards("paris").outward("xi.edit") is None
    assert config.towards("rome").inward("berlin.sensor.1.x") == "sensor.1.x"


@pytest.mark.parametrize(
    ("key", "wrong", "remedy"),
    [
        ("site", {"site": "ber/lin"}, "Use 1 to 32 of"),
        ("site", {"site": "x" * 33}, "at most 32"),
        ("export", {"export": ["a..b"]}, "sensor.*.>"),
        ("export", {"export": "a.>"}, 'export = ["sensor.>"]'),
        ("import", {"import": ["$bus.>"]}, "Leave it out"),
        ("detection", {"detection": "soon"}, "500ms"),
        ("detection", {"detection": 0}, "2s or 500ms"),
        ("buffer", {"buffer": "16 megabytes"}, "16mib"),
        ("window", {"window": 1}, "as 1MiB"),
        (
            "window",
            {"window": "64KiB"},
            "as 1MiB",
        ),
        ("groups", {"groups": "global"}, '"span" or "local"'),
        ("congestion", {"congestion": "drop"}, '"drop_newest" or "drop_oldest" or "block"'),
        ("mode", {"mode": "server"}, '"peer" or "client" or "router"'),
        ("delivery", {"delivery": "sure"}, '"at-most-once" or "confirmed"'),
        ("scout", {"scout": "yes"}, "Give true or false"),
        ("auth.users", {"auth": {"user": "a", "password": "b", "users": 5}}, "Give a text"),
        ("space", {"space": "x" * 33}, "at most 32"),
        ("name", {"name": "x" * 15, "delivery": "confirmed"}, "at most 14"),
        ("site", {"site": {"paris": {"export": []}}}, "[sites.paris]"),
        ("scout", {"scout": True}, "insecure = true"),
        ("listen", {"listen": ["7447"]}, "tls/192.0.2.7:7447"),
        ("listen", {"listen": ["tcp/127.0.0.1"]}, '"tcp/127.0.0.1:7447"'),
        ("listen", {"listen": ["tcp/127.0.0.1:"]}, '"tcp/127.0.0.1:7447"'),
        ("listen", {"listen": ["tcp/::1:7447"]}, '"tcp/[::1]:7447"'),
        ("connect", {"connect": ["tcp/127.0.0.1:99999"]}, '"tcp/127.0.0.1:7447"'),
        ("listen", {"listen": ["tcp/0.0.0.0:7447"]}, "insecure = true"),
        ("connect", {"connect": ["tcp/127.example:7447"]}, "insecure = true"),
        ("connect", {"connect": ["ws/localhost.example:7447"]}, "insecure = true"),
        ("connect", {"connect": ["tls/paris.example:7447"]}, "[tls]"),
        ("listen", {"listen": []}, "scout = true"),
        ("rename.local", {"rename": [{"local": "a.*", "space": "b"}]}, "sensor"),
        ("rename.space", {"rename": [{"local": x, "space": "b"} for x in "ac"]}, "Leave one out"),
        ("sites.paris.exports", {"sites": {"paris": {"exports": []}}}, "Use one of export"),
        ("sites.berlin", {"sites": {"berlin": {}}}, "another site"),
        ("speed", {"speed": 1}, "Use one of site, space"),
        ("confirmed", {"confirmed": {"pattern": []}}, "patterns"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_the_remedy(
    key: str, wrong: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        LinkConfig.of({"site": "berlin", "listen": LISTEN} | wrong)
    assert caught.value.setting.startswith(key)
    assert remedy.lower() in caught.value.remedy.lower()


def test_a_file_without_a_site_or_none_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"site.*missing\. Write site"):
        LinkConfig.of({"listen": LISTEN})
    with pytest.raises(InvalidSetting, match="No such file"):
        LinkConfig.read(tmp_path / "nowhere.toml")
    (tmp_path / "link.toml").write_text("site = berlin")
    with pytest.raises(InvalidSetting, match="Write it in TOML"):
        LinkConfig.read(tmp_path / "link.toml")


def test_rules_towards_a_site_in_a_table_of_a_wrong_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "link.toml").write_text('site = "berlin"\n[site.paris]\nexport = []\n')
    with pytest.raises(InvalidSetting, match=r"\[sites\.paris\]"):
        LinkConfig.read(tmp_path / "link.toml")


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp/127.0.0.1:0",
        "tcp/localhost:1?x=1",
        "tcp/[::1]:65535#iface=lo",
        "unixsock-stream//tmp/x",
    ],
)
def test_what_zenoh_can_listen_at_is_accepted(endpoint: str) -> None:
    assert LinkConfig(site="berlin", listen=[endpoint]).listen == [endpoint]


def test_a_keyword_that_is_no_choice_is_told_as_in_a_file() -> None:
    with pytest.raises(InvalidSetting, match='"drop_newest" or'):
        LinkConfig(site="berlin", listen=LISTEN, congestion="drop")  # type: ignore[arg-type]
