"""The names of buses and endpoints, and the names that they have in /dev/shm.

Everything of a bus begins with ``shmbus:UID:BUS:``. The names of what an endpoint owns contain its
process (pid and start time) and a nonce for each attach, so that what the dead left can be
recognized without opening it. No name of a bus or endpoint has a ``:``, so the parts can be split.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ringbuf.segment import DIRECTORY
from shmbus.errors import InvalidName
from shmbus.limits import MAX_NAME, MAX_SITE

from .layout import Rank

SHM = Path(DIRECTORY)

LINK_MARK = "@"
"""With it the names of links begin, with two of it those of keepers, and no others."""

_NAME = rf"[A-Za-z0-9_.-]{{1,{MAX_NAME}}}"
_WHOLE_NAME = re.compile(rf"{_NAME}\Z")


def check_bus(name: str) -> str:
    """The bus name itself, if it is one; raises ``InvalidName``."""
    return _check(name, "bus")


def check_endpoint(name: str) -> str:
    """The endpoint name itself, if it is one; raises ``InvalidName``."""
    return _check(name, "endpoint")


def rank(endpoint: str) -> Rank:
    """Of the endpoint with this name."""
    if not endpoint.startswith(LINK_MARK):
        return Rank.HERE
    return Rank.KEEPER if endpoint.startswith(2 * LINK_MARK) else Rank.LINK


def check_link(name: str) -> str:
    """The name of a link's endpoint itself, or of its stand-in's, if it is one: ``@NAME``,
    ``@@NAME``. Raises ``InvalidName``."""
    _check(name.lstrip(LINK_MARK), "link", MAX_NAME - (len(name) - len(name.lstrip(LINK_MARK))))
    if not name.startswith(LINK_MARK) or name.startswith(3 * LINK_MARK):
        raise InvalidName(name=name, what="link", reason="it begins with neither '@' nor '@@'")
    return name


def check_attached(name: str) -> str:
    """The name itself, if it is that of an endpoint or of a link; raises ``InvalidName``."""
    return check_link(name) if name.startswith(LINK_MARK) else check_endpoint(name)


def check_group(name: str) -> str:
    """The group name itself, if it is one; raises ``InvalidName``."""
    return _check(name, "group")


def check_site(name: str) -> str:
    """The name of a site itself, if it is one; raises ``InvalidName``."""
    return _check(name, "site", MAX_SITE)


def check_pool(name: str) -> str:
    """The name of a pool itself, if it is one; raises ``InvalidName``."""
    return _check(name, "pool", MAX_SITE)


def check_space(name: str) -> str:
    """The name of a space itself, if it is one; raises ``InvalidName``."""
    return _check(name, "space", MAX_SITE)


def _check(name: object, what: str, most: int = MAX_NAME) -> str:
    if not isinstance(name, str):
        reason = f"it is of type {type(name).__name__}"
    elif len(name) <= most and _WHOLE_NAME.match(name):
        return name
    elif not name:
        reason = "it is empty"
    elif len(name) > most:
        reason = f"it has {len(name)} characters, the limit is {most}"
    else:
        odd = next(c for c in name if not _WHOLE_NAME.match(c))
        reason = f"it has the character {odd!r}"
    raise InvalidName(name=str(name), what=what, reason=reason)


class Owner(NamedTuple):
    """Who owns an object of an endpoint: one attach of one process."""

    pid: int
    start: int  # the process's start time in clock ticks since boot, field 22 of /proc/PID/stat
    nonce: str  # 16 hex digits, new for each attach

    def __str__(self) -> str:
        return f"{self.pid}:{self.start}:{self.nonce}"


def new_owner(pid: int, start: int) -> Owner:
    """An owner with a nonce of its own."""
    return Owner(pid, start, secrets.token_hex(8))


def owner_in(row: Any) -> Owner:
    """The owner that a slot row names."""
    who = row["identity"]
    return Owner(int(who["pid"]), int(who["start_time"]), f"{int(row['nonce']):016x}")


class BusNames(NamedTuple):
    """What one bus has in /dev/shm. The names are those of files there, without a leading ``/``;
    bells are named as posix_ipc needs them, with one."""

    uid: int
    bus: str

    @property
    def prefix(self) -> str:
        return f"shmbus:{self.uid}:{self.bus}:"

    @property
    def bus_segment(self) -> str:
        return self.prefix + "bus"

    @property
    def lock(self) -> str:
        return self.prefix + "lock"

    @property
    def door(self) -> str:
        return self.prefix + "door"

    @property
    def ready(self) -> str:
        return self.prefix + "ready"

    @property
    def bell(self) -> str:
        """The dispatcher's bell."""
        return f"/{self.prefix}bell"

    def up(self, owner: Owner) -> str:
        return f"{self.prefix}up:{owner}"

    def interests(self, owner: Owner, serial: int) -> str:
        return f"{self.prefix}int:{owner}:{serial}"

    def down(self, slot: int, generation: int) -> str:
        return f"{self.prefix}down:{slot}:{generation}"

    def backlog(self, slot: int, generation: int) -> str:
        return f"{self.prefix}backlog:{slot}:{generation}"

    def retained(self, chunk: int) -> str:
        return f"{self.prefix}retained:{chunk}:0"

    def mailbox(self, slot: int, generation: int) -> str:
        return f"{self.prefix}mailbox:{slot}:{generation}"

    def pool(self, slot: int, generation: int) -> str:
        return f"{self.prefix}pool:{slot}:{generation}"

    def endpoint_bell(self, owner: Owner) -> str:
        return f"/{self.prefix}bell:{owner}"

    def complete(self) -> bool:
        """Whether every name that an attach needs is there, as while a dispatcher serves."""
        files = (self.bus_segment, self.ready, self.door, f"sem.{self.bell[1:]}")
        return all(os.path.lexists(SHM / file) for file in files)


def names_of(bus: str, uid: int | None = None) -> BusNames:
    """The names of a bus, by default of the user that this process runs as; raises
    ``InvalidName``."""
    return BusNames(os.geteuid() if uid is None else uid, check_bus(bus))


class Entry(NamedTuple):
    """A file name in /dev/shm, in its parts."""

    uid: int
    bus: str
    kind: str  # bus, lock, door, ready, up, int, down, backlog, mailbox, retained, pool or bell
    owner: Owner | None = None  # of up, int, and an endpoint's bell
    serial: int | None = None  # of int
    slot: int | None = None  # of down, backlog, mailbox, pool; of retained, which chunk
    generation: int | None = None  # of down, backlog, mailbox, pool; of retained, 0
    semaphore: bool = False

    @property
    def names(self) -> BusNames:
        return BusNames(self.uid, self.bus)


_NUMBER = r"(?:0|[1-9][0-9]{0,19})"
_OWNER = rf"(?P<pid>{_NUMBER}):(?P<start>{_NUMBER}):(?P<nonce>[0-9a-f]{{16}})"
_FILE = re.compile(
    rf"(?P<sem>sem\.)?shmbus:(?P<uid>{_NUMBER}):(?P<bus>{_NAME}):"
    rf"(?P<kind>bus|lock|door|ready|bell|up|int|down|backlog|mailbox|retained|pool)"
    rf"(?::{_OWNER}(?::(?P<serial>{_NUMBER}))?|:(?P<slot>{_NUMBER}):(?P<generation>{_NUMBER}))?\Z"
)
_PARTS: dict[str, list[tuple[str, ...]]] = {
    "bus": [()],
    "lock": [()],
    "door": [()],
    "ready": [()],
    "bell": [(), ("owner",)],
    "up": [("owner",)],
    "int": [("owner", "serial")],
    "down": [("slot",)],
    "backlog": [("slot",)],
    "retained": [("slot",)],
    "mailbox": [("slot",)],
    "pool": [("slot",)],
}


def parse(file: str) -> Entry | None:
    """The parts of a name in /dev/shm, or None if it is not one of ours. glibc keeps a semaphore
    ``/x`` as ``sem.x``."""
    match = _FILE.match(file)
    if match is None:
        return None
    has = tuple(
        part
        for part, key in (("owner", "pid"), ("serial", "serial"), ("slot", "slot"))
        if match[key] is not None
    )
    kind = match["kind"]
    semaphore = match["sem"] is not None
    if has not in _PARTS[kind] or semaphore != (kind == "bell"):
        return None
    return Entry(
        uid=int(match["uid"]),
        bus=match["bus"],
        kind=kind,
        owner=Owner(int(match["pid"]), int(match["start"]), match["nonce"])
        if match["pid"]
        else None,
        serial=_int(match["serial"]),
        slot=_int(match["slot"]),
        generation=_int(match["generation"]),
        semaphore=semaphore,
    )


def entries(bus: str | None = None) -> Iterator[tuple[Path, Entry]]:
    """What there is in /dev/shm of any bus of any user, or of this user's bus of that name."""
    try:
        files = sorted(os.listdir(SHM))
    except OSError:
        return
    for file in files:
        entry = parse(file)
        if entry is not None and (bus is None or (entry.bus == bus and entry.uid == os.geteuid())):
            yield SHM / file, entry


def _int(digits: str | None) -> int | None:
    return None if digits is None else int(digits)
