"""Buses joined by links, on one machine: each a site, over loopback, through a proxy that makes the
network bad, through a router, or in network namespaces."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Self, TypeVar

import pytest

import shmbus
from shmbus.links.link import Link, link
from shmbus.testing import BusProcess, Program, eventually, no_leavings
from tests.links.proxy import Proxy

T = TypeVar("T")

DETECTION = 1.0
"""Seconds, unless a test says another."""

LINK = """
import json, signal, sys
from shmbus.links.link import link

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with link(sys.argv[1], json.loads(sys.argv[2])) as linked:
    print("up")
    for line in sys.stdin:
        print(getattr(linked, line.strip())())
    signal.pause()
"""

ROUTER = """
import json, signal, sys
import zenoh

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
config = zenoh.Config()
for key, value in json.loads(sys.argv[1]).items():
    config.insert_json5(key, json.dumps(value))
with zenoh.open(config):
    print("up")
    signal.pause()
"""


class Port:
    """A port of loopback that nobody else is given while it is held, also while who listens there
    is started again."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        # Bound and not listening: whoever sets SO_REUSEADDR, as zenoh does, may bind it as well.
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


class Site:
    """A bus, and its link."""

    def __init__(self, stage: Stage, name: str, bus: str) -> None:
        self.name, self.bus = name, bus
        self.process: BusProcess | None = None
        self.served: shmbus.Bus | None = None
        self.link: Link | None = None
        self.linked: Program | None = None
        self.namespace: Namespace | None = None
        self._stage = stage
        self._config: dict[str, Any] = {}

    @property
    def port(self) -> int:
        """Where its link listens."""
        return self._stage.port(self.name)

    def attach(self, name: str, **options: Any) -> shmbus.Endpoint:
        """An endpoint of this process on its bus."""
        return self._stage.keep(shmbus.attach(self.bus, name=name, timeout=60, **options))

    def config(self, *to: Site | Proxy | Router, **more: Any) -> dict[str, Any]:
        """Of a link that listens, and connects to these; it exports and imports all."""
        host = "127.0.0.1" if self.namespace is None else self.namespace.address
        reached = [
            f"tcp/{each.namespace.address}:{each.port}"
            if isinstance(each, Site) and each.namespace is not None
            else f"tcp/127.0.0.1:{each.port}"
            for each in to
        ]
        given: dict[str, Any] = {
            "site": self.name,
            "space": self._stage.space,
            "listen": [f"tcp/{host}:{self.port}"],
            "connect": reached,
            "export": [">"],
            "import": [">"],
            "detection": DETECTION,
            "insecure": self.namespace is not None,
        }
        return given | more

    def join(self, *to: Site | Proxy | Router, **config: Any) -> Link:
        """Link it, in this process."""
        self.link = self._stage.keep(link(self.bus, self.config(*to, **config)))
        return self.link

    def start_link(self, *to: Site | Proxy | Router, **config: Any) -> Program:
        """Link it, in a process of its own."""
        self._config = self.config(*to, **config)
        return self._start()

    def _start(self) -> Program:
        before = [] if self.namespace is None else self.namespace.enter
        command = [*before, sys.executable, "-u", "-c", LINK, self.bus, json.dumps(self._config)]
        program = Program(f"link of {self.name!r}", command, bus=self.bus, read_output=True)
        self.linked = self._stage.keep(program)
        assert program.line() == "up"
        return program

    def restart_link(self) -> None:
        """Kill its link's process, and start another."""
        assert self.linked is not None
        self.linked.kill()
        self._start()

    def sees(self) -> set[str]:
        """The sites that its link sees up; the link is in this process."""
        assert self.link is not None
        return {peer.site for peer in self.link.status().peers if peer.up}

    def has(self, site: str) -> bool:
        """Whether its bus shows this other site as up."""
        with shmbus.observe(self.bus) as view:
            return any(each.name == site and each.state == "up" for each in view.sites())

    def sees_all(self, sites: Iterable[str]) -> bool:
        """Whether it sees these, at least."""
        return self.sees().issuperset(sites)


class Router:
    """A router of zenoh's, in this process or in one of its own."""

    def __init__(self, stage: Stage, *to: Router, **zenoh: Any) -> None:
        self._stage, self.name = stage, f"router-{secrets.token_hex(2)}"
        self.port = stage.port(self.name)
        self.config: dict[str, Any] = {
            "mode": "router",
            "listen/endpoints": [f"tcp/127.0.0.1:{self.port}"],
            "connect/endpoints": [f"tcp/127.0.0.1:{each.port}" for each in to],
            "scouting/multicast/enabled": False,
            "transport/link/tx/lease": int(DETECTION * 1000),
        } | zenoh
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-u", "-c", ROUTER, json.dumps(self.config)]
        self.process = self._stage.keep(Program(self.name, command, read_output=True))
        assert self.process.line() == "up"

    def restart(self) -> None:
        """Kill it, and start it again."""
        self.process.kill()
        self.start()


class Namespace:
    """A network namespace of its own, at one bridge with those of the same stage."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.enter = ["ip", "netns", "exec", name]
        self._cable = name.replace("shmbus", "sb")

    def set(self, state: str) -> None:
        """Pull its cable (`down`), or put it in again (`up`)."""
        _ip("-n", self.name, "link", "set", self._cable, state)

    def lose(self, percent: int) -> None:
        """Drop so many of the packets that come from now on. Skips the test where that cannot be
        done: `tc netem` is not in every kernel, nor is nftables everywhere."""
        rules = (
            "table inet loss { chain come { type filter hook input priority 0; "
            f'iifname "{self._cable}" numgen random mod 100 < {percent} counter drop; }}; }}'
        )
        command = [*self.enter, "nft", rules]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as why:
            pytest.skip(f"nft drops no packets here: {getattr(why, 'stderr', why)}")

    def dropped(self) -> int:
        """How many packets were."""
        command = [*self.enter, "nft", "list", "chain", "inet", "loss", "come"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return int(listed.split("packets ")[1].split()[0])


class Stage:
    """The sites of one test, in a space of their own."""

    def __init__(self, space: str) -> None:
        self.space = space
        self._stack = contextlib.ExitStack()
        self._ports: dict[str, Port] = {}

    def keep(self, opened: AbstractContextManager[T]) -> T:
        """Close it at the end."""
        return self._stack.enter_context(opened)

    def port(self, name: str) -> int:
        """Of that name, the same at each call."""
        if name not in self._ports:
            self._ports[name] = self._stack.enter_context(contextlib.closing(Port()))
        return self._ports[name].number

    def site(self, name: str, *, process: bool = False, **settings: Any) -> Site:
        """A bus, served in this process or in one of its own, that is not linked yet."""
        bus = f"{self.space}-{name}"
        self.keep(no_leavings(bus))
        site = Site(self, name, bus)
        if process:
            site.process = BusProcess(bus, shmbus.Settings(**settings))
            self._stack.callback(_end, site.process)
            site.process.start()
        else:
            site.served = self.keep(shmbus.serve(bus, settings=shmbus.Settings(**settings)))
        return site

    def sites(self, *names: str) -> list[Site]:
        """Several, served in this process."""
        return [self.site(name) for name in names]

    def proxy(self, site: Site) -> Proxy:
        """A network to the site's link."""
        return self.keep(Proxy(site.port))

    def router(self, *to: Router, **zenoh: Any) -> Router:
        """A router in a process of its own."""
        return Router(self, *to, **zenoh)

    def namespaces(self, *sites: Site) -> None:
        """Give each site a network namespace, at a bridge in one more. Skips the test where that is
        not permitted."""
        prefix = f"shmbus{secrets.token_hex(3)}"
        try:
            _ip("netns", "add", f"{prefix}h")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("network namespaces are not permitted here")
        self._stack.callback(_ip, "netns", "del", f"{prefix}h")
        bridge = ["-n", f"{prefix}h"]
        _ip(*bridge, "link", "add", "bridge", "type", "bridge")
        _ip(*bridge, "link", "set", "bridge", "up")
        for number, site in enumerate(sites):
            there = Namespace(f"{prefix}{number}", f"10.213.0.{number + 1}")
            _ip("netns", "add", there.name)
            self._stack.callback(_ip, "netns", "del", there.name)
            cable = there._cable
            _ip(*bridge, "link", "add", f"h{number}", "type", "veth", "peer", cable)
            _ip(*bridge, "link", "set", cable, "netns", there.name)
            _ip(*bridge, "link", "set", f"h{number}", "master", "bridge")
            _ip(*bridge, "link", "set", f"h{number}", "up")
            _ip("-n", there.name, "addr", "add", f"{there.address}/24", "dev", cable)
            _ip("-n", there.name, "link", "set", "lo", "up")
            there.set("up")
            site.namespace = there

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def meet(*sites: Site) -> None:
    """Wait until each sees all others; their links are in this process."""
    names = {site.name for site in sites}
    for site in sites:
        eventually(partial(site.sees_all, names - {site.name}), f"{site.name} sees all")


def chain(*sites: Site, **config: Any) -> None:
    """Link each to the one before it; what is for others passes through."""
    for before, site in zip((None, *sites), sites, strict=False):
        site.join(*([] if before is None else [before]), mode="router", **config)


def mesh(*sites: Site, **config: Any) -> None:
    """Link each to all before it."""
    for number, site in enumerate(sites):
        site.join(*sites[:number], **config)


def star(router: Router, *sites: Site, **config: Any) -> None:
    """Link all to a router, and not among themselves."""
    for site in sites:
        site.join(router, mode="client", listen=[], **config)


def _end(process: BusProcess) -> None:
    process._end()
    if process.alive:
        return
    with contextlib.suppress(shmbus.errors.BusError):
        shmbus.serve(process.name, settings=process.settings).close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
