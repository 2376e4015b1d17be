"""Who may join, and who may send what to whom."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shmbus import errors
from shmbus.links.config import LinkConfig
from shmbus.links.link import Link
from shmbus.links.transport import settings
from shmbus.testing import Program, eventually
from tests.links.stage import Site, Stage, meet

zenoh = pytest.importorskip("zenoh")

EXAMPLES = Path(__file__).parents[2] / "examples/links"
SCRIPT = EXAMPLES / "make_ca.sh"
SITES = ("berlin", "paris", "rome")


def make_ca(keys: Path, *sites: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    command = ["sh", str(SCRIPT), str(keys), *sites]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three sites on this machine."""
    keys = tmp_path_factory.mktemp("ours")
    make_ca(keys, *(f"{site}=localhost,127.0.0.1" for site in SITES))
    return keys


def tls(site: Site, keys: Path, *to: Site, **more: Any) -> dict[str, Any]:
    """The configuration of a link by certificates of these."""
    files = {"ca": "ca.pem", "certificate": f"{site.name}.pem", "key": f"{site.name}.key"}
    given = {
        "listen": [f"tls/127.0.0.1:{site.port}"],
        "connect": [f"tls/127.0.0.1:{each.port}" for each in to],
        "tls": {key: str(keys / file) for key, file in files.items()},
    }
    return given | more


def why(link: Link, address: str) -> str:
    """It does not reach an address; empty: it does, or does not know."""
    return link.status().unreached.get(address, "")


@pytest.mark.smoke
def test_sites_with_certificates_of_one_authority_meet(stage: Stage, keys: Path) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    berlin.join(**tls(berlin, keys))
    paris.join(**tls(paris, keys, berlin))
    meet(berlin, paris)


@pytest.mark.slow
def test_another_authoritys_certificate_is_refused_and_the_status_says_by_whom(
    stage: Stage, keys: Path, tmp_path: Path
) -> None:
    make_ca(tmp_path, "rome=")
    berlin, rome = stage.sites("berlin", "rome")
    berlin.join(**tls(berlin, keys))
    stranger = tls(rome, tmp_path, berlin)
    link = rome.join(**stranger)
    address = f"tls/127.0.0.1:{berlin.port}"
    eventually(lambda: "its certificate is refused here" in why(link, address))
    link.close()
    stranger["tls"]["ca"] = str(keys / "ca.pem")
    link = rome.join(**stranger)
    eventually(lambda: "it refuses this site's certificate" in why(link, address))
    assert not berlin.sees()


@pytest.mark.slow
def test_a_wrong_password_is_refused_and_the_status_says_so(stage: Stage, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("paris:secret\nrome:other\n")
    berlin, paris, rome = stage.sites("berlin", "paris", "rome")
    berlin.join(auth={"user": "berlin", "password": "own", "users": str(users)})
    paris.join(berlin, listen=[], auth={"user": "paris", "password": "secret"})
    meet(berlin, paris)
    link = rome.join(berlin, listen=[], auth={"user": "rome", "password": "guessed"})
    address = f"tcp/127.0.0.1:{berlin.port}"
    eventually(lambda: "refuses this site's user or password" in why(link, address))
    assert berlin.sees() == {"paris"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["peer", "client"])
def test_an_address_where_nobody_listens_is_in_the_status_until_somebody_does(
    stage: Stage, mode: str
) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    link = paris.join(berlin, listen=[], mode=mode)
    eventually(lambda: link.status().unreached)
    assert link.status().unreached == {f"tcp/127.0.0.1:{berlin.port}": "connection refused"}
    berlin.join()
    meet(berlin, paris)
    eventually(lambda: not link.status().unreached)


def test_files_that_are_missing_or_do_not_fit_are_named_at_once(
    stage: Stage, keys: Path, tmp_path: Path
) -> None:
    (berlin,) = stage.sites("berlin")
    with pytest.raises(errors.LinkFailed, match=r"ca\.pem"):
        berlin.join(**tls(berlin, tmp_path))
    wrong = tls(berlin, keys)
    wrong["tls"]["key"] = str(keys / "rome.key")
    with pytest.raises(errors.LinkFailed, match="key values mismatch"):
        berlin.join(**wrong)


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "link.toml"
    file.write_text(
        'site = "berlin"\nscout = true\n[tls]\nca = "ca.pem"\ncertificate = "/b.pem"\nkey = "b.key"'
    )
    assert LinkConfig.read(file).files() == (
        str(tmp_path / "ca.pem"),
        "/b.pem",
        str(tmp_path / "b.key"),
    )


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"connect": ["tls/x:1"]}, "connect"),
        ({"connect": ["tcp/x:1"]}, "connect"),
        ({"listen": ["tcp/0.0.0.0:0"]}, "listen"),
        ({"listen": ["tcp/127.0.0.1:0"], "auth": {"user": "a", "password": "b"}}, "auth.users"),
        ({"scout": True, "access": {"paris": {}}}, "access"),
        ({"scout": True, "access": {"paris": {"sends": ["x"]}}}, "access.paris.sends"),
        ({"scout": True, "access": {"paris": {"send": ["a..b"]}}}, "access.paris.send"),
        ({"scout": True, "access": {"paris": {"to": ["a/b"]}}}, "access.paris.to"),
        ({"scout": True, "tls": {"ca": "a"}}, "tls.certificate"),
        ({"scout": True, "auth": {"user": "a", "pass": "b"}}, "auth.pass"),
    ],
)
def test_what_would_not_be_safe_or_cannot_be_is_refused_by_its_key(
    given: dict[str, Any], setting: str
) -> None:
    with pytest.raises(errors.InvalidSetting) as raised:
        LinkConfig.of({"site": "berlin"} | given)
    assert raised.value.setting == setting


def test_a_link_that_is_told_of_a_plain_node_does_not_connect_to_it() -> None:
    tls = {"ca": "ca.pem", "certificate": "b.pem", "key": "b.key"}
    given = {"site": "berlin", "scout": True, "connect": ["tls/paris.example:7447"], "tls": tls}
    key = "transport/link/protocols"
    assert settings(LinkConfig.of(given), ())[key] == ["tls", "quic"]
    assert key not in settings(LinkConfig.of(given | {"insecure": True}), ())


class Intruder:
    """A session with the certificate of a site that says what it likes."""

    def __init__(self, stage: Stage, site: Site, keys: Path, to: Site) -> None:
        config = zenoh.Config()
        values = {
            "mode": "client",
            "connect/endpoints": [f"tls/127.0.0.1:{to.port}"],
            "scouting/multicast/enabled": False,
            "transport/link/tls": {
                "root_ca_certificate": str(keys / "ca.pem"),
                "enable_mtls": True,
                "connect_certificate": str(keys / f"{site.name}.pem"),
                "connect_private_key": str(keys / f"{site.name}.key"),
            },
        }
        for key, value in values.items():
            config.insert_json5(key, json.dumps(value))
        self._session = stage.keep(zenoh.open(config))
        self._to = f"shmbus/1/{stage.space}/to/{to.name}"

    def say(self, source: str, rest: str) -> None:
        """Garbage, by this key."""
        self._session.put(f"{self._to}/{source}/{rest}", b"garbage")


def test_who_is_not_in_the_access_table_is_not_heard_and_nobody_speaks_for_another(
    stage: Stage, keys: Path
) -> None:
    berlin, paris, rome = stage.sites(*SITES)
    permitted = {"paris": {"send": ["sensor.>"]}}
    link = berlin.join(**tls(berlin, keys, access=permitted))
    paris.join(**tls(paris, keys, berlin))
    rome.join(**tls(rome, keys, berlin, mode="client", listen=[]))
    meet(berlin, paris)
    before = link.status().garbage
    for known in (rome, paris):
        intruder = Intruder(stage, known, keys, berlin)
        intruder.say("paris" if known is rome else "oslo", "control")
        intruder.say(known.name, "event/other/type")
        if known is paris:  # what it may say, and is counted
            intruder.say("paris", "event/sensor/temperature")
            intruder.say("paris", "control")
    eventually(lambda: link.status().garbage == before + 2)
    assert berlin.sees() == {"paris"}
    assert not rome.sees()


@pytest.mark.slow
def test_a_router_holds_the_sites_to_the_rules_in_its_file(
    stage: Stage, keys: Path, tmp_path: Path
) -> None:
    berlin, paris, rome = stage.sites(*SITES)
    router = stage.site("router")
    make_ca(tmp_path / "keys", "router=127.0.0.1", *(f"{site}=" for site in SITES))
    text = (EXAMPLES / "router.toml").read_text()
    text = text.replace("0.0.0.0:7447", f"127.0.0.1:{router.port}")
    (tmp_path / "router.toml").write_text(f'space = "{stage.space}"\n{text}')
    command = [sys.executable, str(EXAMPLES / "router.py"), str(tmp_path / "router.toml")]
    running = stage.keep(Program("router", command, read_output=True))
    assert running.line() == "routing"
    for site in (berlin, paris, rome):
        site.join(**tls(site, tmp_path / "keys", router, mode="client", listen=[]))
    meet(berlin, paris)
    assert not rome.sees()
    assert (berlin.sees(), paris.sees()) == ({"paris"}, {"berlin"})


def test_the_script_goes_on_with_an_authority_that_is_there(tmp_path: Path) -> None:
    make_ca(tmp_path, "berlin=berlin.example,10.0.0.7,::1")
    make_ca(tmp_path, "paris=")
    found = subprocess.run(
        ["openssl", "verify", "-CAfile", "ca.pem", "berlin.pem", "paris.pem"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "berlin.pem: OK\nparis.pem: OK\n"
    names = subprocess.run(
        ["openssl", "x509", "-in", "berlin.pem", "-noout", "-ext", "subjectAltName", "-subject"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "DNS:berlin, DNS:berlin.example, IP Address:10.0.0.7, IP Address:0:0" in names.stdout
    assert "CN = berlin\n" in names.stdout
    assert {f.stat().st_mode & 0o077 for f in tmp_path.iterdir()} == {0}
    with pytest.raises(subprocess.CalledProcessError):
        make_ca(tmp_path, "paris=")
