"""What a link is told: `LinkConfig`, in a file of TOML, a mapping, or keyword arguments."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

import msgspec

from shmbus.errors import InvalidName, InvalidPattern, InvalidSetting, InvalidType
from shmbus.limits import MAX_NAME, MAX_SITE
from shmbus.options import seconds, size
from shmbus.settings import MIB
from shmbus.shared import names, patterns

from .access import Access
from .arrivals import EVERY
from .rules import Rename, Rules

_WITH_SITE = MAX_NAME - len("@.") - MAX_SITE
"""Characters of a link's name for which there is space where a site's name stands behind it."""

PROTOCOLS = ("tcp", "tls", "quic", "ws", "udp", "unixsock-stream")
"""How an endpoint of zenoh's may begin."""

_PLAIN = ("tcp", "ws", "udp")  # that anybody on the way can read
_PRIVATE = ("tls/", "quic/")
T = TypeVar("T", bound=msgspec.Struct)

_LOOPBACK = re.compile(r"(127(\.\d+){3}|localhost|\[::1\])(:|$)")  # this machine alone


class SiteRules(msgspec.Struct, frozen=True, kw_only=True):
    """Rules towards one site, in the place of the general ones; None: those."""

    exports: Sequence[str] | None = None
    """As `LinkConfig.exports`."""
    imports: Sequence[str] | None = None
    """As `LinkConfig.imports`."""
    renames: Sequence[Rename] | None = None
    """As `LinkConfig.renames`."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates, as PEM files. Each side proves who it is to the other."""

    ca: str
    """Of the authority that has signed all sites' certificates."""
    certificate: str
    """This site's."""
    key: str
    """Its private key."""


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """A user and a password, which a link shows to whom it connects to."""

    user: str
    """Its name."""
    password: str
    """In plain text: use it over TLS."""
    users: str | None = None
    """A file with a line ``user:password`` for each that may connect, for a link that listens."""


class LinkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a link joins, with whom, and what may cross. Raises `InvalidSetting`, which names the
    key."""

    site: str
    """The name of this bus among those that are joined, a single one: up to 32 characters."""
    space: str = "default"
    """The name of what is joined. Sites of different spaces do not see each other."""
    name: str = "link"
    """The link's endpoint is ``@`` and this name: another one for a second link on the same bus. Up
    to 46 characters, and 14 with `delivery` confirmed, where a site's name follows it."""
    listen: Sequence[str] = ()
    """Where others may connect to, as zenoh writes it: ``tls/0.0.0.0:7447``. Port 0: a free one."""
    connect: Sequence[str] = ()
    """To whom to connect, likewise. It is tried until it succeeds, and again after it was lost."""
    exports: Sequence[str] = ()
    """Patterns of what may leave this bus. In a file: ``export``."""
    imports: Sequence[str] = ()
    """Patterns of what may come in. In a file: ``import``."""
    renames: Sequence[Rename] = ()
    """Prefixes that are others for the other sites. In a file: ``[[rename]]``."""
    sites: dict[str, SiteRules] = {}
    """Other rules towards single sites. In a file: ``[sites.NAME]``."""
    detection: float = 2.0
    """Seconds after which a site that says nothing counts as gone, at most: its link, its machine
    or the network has failed. A link that dies is seen at once where its machine lives."""
    groups: Literal["span", "local"] = "span"
    """Whether the members of a queue group on all sites share its events, local ones first, or each
    site's members get each event."""
    delivery: Literal["at-most-once", "confirmed"] = "at-most-once"
    """Whether commands and events of groups are kept until the other link has confirmed them."""
    confirmed: Sequence[str] = ()
    """Patterns of those for which ``confirmed`` holds; empty: all. In a file: ``[confirmed]
    patterns``."""
    congestion: Literal["drop_newest", "drop_oldest", "block"] = "drop_newest"
    """What happens to events where more leave for a site than it takes and `buffer` is full: they
    are dropped and counted, or what comes from this bus waits."""
    buffer: int = 16 * MIB
    """Bytes that may wait for each site."""
    window: int = MIB
    """Bytes that may be on their way to each site: at least 128 KiB, since 64 KiB that have come
    are acknowledged together."""
    mode: Literal["peer", "client", "router"] = "peer"
    """What this link is among zenoh's nodes: a peer connects to others directly, a client to one
    router or peer, which carries for it."""
    scout: bool = False
    """Whether peers of the local network are looked for, by multicast: with `tls` or `insecure`."""
    insecure: bool = False
    """Whether traffic that anybody can read and forge is permitted elsewhere than on loopback."""
    tls: Tls | None = None
    """Certificates, for endpoints that begin with ``tls`` or ``quic``."""
    auth: Auth | None = None
    """A user and a password."""
    access: dict[str, Access] = {}
    """What sites may send, each by the name in its certificate, or its user name without `tls`:
    those that connect to this link, or that it connects to. Empty: everything. In a file:
    ``[access.NAME]``."""
    zenoh: dict[str, Any] = {}
    """More of zenoh's own configuration, by its keys: ``{"access_control": {...}}``."""

    def __post_init__(self) -> None:
        _name("site", self.site, MAX_SITE)
        _name("space", self.space, MAX_SITE)
        _name("name", self.name, MAX_NAME - 2)
        for key in ("groups", "delivery", "congestion", "mode"):
            self._choice(key)
        if self.delivery == "confirmed" and len(self.name) > _WITH_SITE:
            raise _wrong(
                "name",
                self.name,
                f'it has {len(self.name)} characters, and with delivery = "confirmed" the link '
                f"has an endpoint @{self.name}.SITE for each other site",
                f"Use at most {_WITH_SITE}: a site has up to {MAX_SITE}, an endpoint {MAX_NAME}",
            )
        _patterns("export", self.exports)
        _patterns("import", self.imports)
        _patterns("confirmed.patterns", self.confirmed)
        _renames("rename", self.renames)
        for site, rules in self.sites.items():
            _name(f"sites.{site}", site, MAX_SITE)
            if site == self.site:
                raise _wrong(f"sites.{site}", site, "it is this site", "Name another site there")
            _patterns(f"sites.{site}.export", rules.exports or ())
            _patterns(f"sites.{site}.import", rules.imports or ())
            _renames(f"sites.{site}.rename", rules.renames or ())
        for site, access in self.access.items():
            _name(f"access.{site}", site, MAX_SITE)
            _patterns(f"access.{site}.send", access.send)
            for to in access.to:
                if to != "*":
                    _name(f"access.{site}.to", to, MAX_SITE)
        if self.access and self.tls is None and self.auth is None:
            raise _wrong(
                "access", [*self.access], "nothing says who a site is", "Add [tls], or [auth]"
            )
        if self.listen and self.auth is not None and self.auth.users is None:
            remedy = "Name a file with a line user:password for each"
            raise _wrong("auth.users", None, "it does not say who may connect", remedy)
        _within("detection", self.detection, 0.1, 3600.0, "seconds, as 2s or 500ms")
        _within("buffer", self.buffer, 64 << 10, 1 << 40, "bytes, as 16MiB")
        _within("window", self.window, 2 * EVERY, 1 << 32, "bytes, as 1MiB")
        for key, endpoints in (("listen", self.listen), ("connect", self.connect)):
            for endpoint in endpoints:
                self._endpoint(key, endpoint)
        if not self.listen and not self.connect and not self.scout:
            raise _wrong(
                "listen",
                [],
                "this link would meet nobody",
                'Give listen = ["tls/0.0.0.0:7447"], connect, or scout = true',
            )
        if self.scout and not self.insecure and not self.private:
            raise _wrong(
                "scout",
                True,
                "it would join in plain whoever it finds, which others can read and forge",
                "Add [tls] and use no tcp/, or permit it: insecure = true",
            )

    def _choice(self, key: str) -> None:
        kind = next(f.type for f in msgspec.structs.fields(type(self)) if f.name == key)
        value = getattr(self, key)
        if value not in get_args(kind):
            raise _wrong(key, value, "there is no such choice", _expected(kind))

    def _endpoint(self, key: str, endpoint: str) -> None:
        protocol, _, address = endpoint.partition("/")
        if protocol not in PROTOCOLS or not address:
            raise _wrong(
                key, endpoint, "no endpoint of zenoh's", 'Write it as "tls/192.0.2.7:7447"'
            )
        if protocol != "unixsock-stream":
            _address(key, endpoint, protocol, address)
        if protocol in ("tls", "quic") and self.tls is None:
            raise _wrong(
                key,
                endpoint,
                "there is no certificate for it",
                "Add [tls] with ca, certificate and key",
            )
        if protocol in _PLAIN and not _LOOPBACK.match(address) and not self.insecure:
            raise _wrong(
                key,
                endpoint,
                "anybody on the way could read and forge what it carries",
                f"Write tls/{address} and add [tls], or permit it: insecure = true",
            )

    @property
    def private(self) -> bool:
        """Whether all that crosses is encrypted: it uses nothing that others can read."""
        return self.tls is not None and all(
            each.startswith(_PRIVATE) for each in (*self.listen, *self.connect)
        )

    def files(self) -> tuple[str, ...]:
        """That it names."""
        found = (getattr(each, f, None) for each in (self.tls, self.auth) for f in _FILES)
        return tuple(filter(None, found))

    def towards(self, site: str) -> Rules:
        """The rules that hold between this site and that one."""
        own = self.sites.get(site, SiteRules())
        return Rules(
            self.exports if own.exports is None else own.exports,
            self.imports if own.imports is None else own.imports,
            self.renames if own.renames is None else own.renames,
        )

    def confirms(self, type: str) -> bool:
        """Whether commands and group messages of this type are confirmed."""
        if self.delivery != "confirmed":
            return False
        return not self.confirmed or any(patterns.covers(p, type) for p in self.confirmed)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """From a file of TOML, to which the paths in it are relative. Raises `InvalidSetting`, also
        where there is none."""
        text = ""
        try:
            text = Path(path).read_bytes().decode()
            given = tomllib.loads(text)
        except OSError as why:
            remedy = "Name a file of TOML that this user can read"
            raise _wrong("config", str(path), str(why.strerror), remedy) from None
        except ValueError as why:  # neither UTF-8 nor TOML
            remedy = _OTHER_SITES if _SITE_TABLE.search(text) else "Write it in TOML"
            raise _wrong("config", str(path), str(why), remedy) from None
        config = cls.of(given)
        beside, tables = Path(path).parent, {}
        for name in _ONE:
            table = getattr(config, name)
            if table is not None:
                files = {f: str(beside / v) for f in _FILES if (v := getattr(table, f, None))}
                tables[name] = msgspec.structs.replace(table, **files)
        return msgspec.structs.replace(config, **tables)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """From what such a file says: times and sizes may be texts, as ``2s`` and ``16MiB``. Raises
        `InvalidSetting`."""
        table = dict(given)
        for key, read in (("detection", seconds), ("buffer", size), ("window", size)):
            if isinstance(text := table.get(key), str):
                try:
                    table[key] = read(text)
                except ValueError as why:
                    reason, _, remedy = str(why).partition(": ")
                    raise _wrong(key, text, reason, remedy[:1].upper() + remedy[1:]) from None
        confirmed = table.get("confirmed", {})
        if isinstance(confirmed, Mapping):  # a table of its own in a file
            _known("confirmed.", confirmed, ("patterns",))
            table["confirmed"] = confirmed.get("patterns", ())
        return _struct(cls, table)


_FILES = ("ca", "certificate", "key", "users")
"""Fields of tables that are paths."""

_ONE: dict[str, type[msgspec.Struct]] = {"tls": Tls, "auth": Auth}
_FOR_EACH: dict[str, type[msgspec.Struct]] = {"sites": SiteRules, "access": Access}
"""Keys that are tables, and those with a table for each site."""

_IN_FILES = {"exports": "export", "imports": "import", "renames": "rename"}
"""What fields are called in files, where that is another word."""


def _struct(struct: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """A table as a struct; `where` begins the names of its keys."""
    fields = {_IN_FILES.get(f.name, f.name): f for f in msgspec.structs.fields(struct)}
    _known(where, table, fields)
    values: dict[str, Any] = {}
    for key, value in table.items():
        at, field = where + key, fields[key]
        if key in _FOR_EACH:
            values[key] = {
                site: _struct(_FOR_EACH[key], _table(f"{at}.{site}", of_it), f"{at}.{site}.")
                for site, of_it in _table(at, value).items()
            }
            continue
        if key in _ONE:
            values[key] = _struct(_ONE[key], _table(at, value), f"{at}.")
            continue
        try:
            values[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as why:
            if key == "site" and isinstance(value, Mapping):
                raise _wrong(at, value, "it is a table", _OTHER_SITES) from None
            raise _wrong(at, value, str(why), _EXAMPLES.get(key) or _expected(field.type)) from None
    for name, field in fields.items():
        if field.required and name not in table:
            raise _wrong(where + name, None, "it is missing", _EXAMPLES.get(name, f"Add {name}"))
    return struct(**values)


def _expected(kind: Any) -> str:
    """What may be given for a field of this type."""
    if get_origin(kind) is Literal:
        return "Give " + " or ".join(f'"{choice}"' for choice in get_args(kind))
    return f"Give {_KINDS.get(kind) or _KINDS.get(get_origin(kind), 'a text')}"


_KINDS = {bool: "true or false", int: "a number", float: "a number", dict: "a table"}
_KINDS[Sequence] = "a list of texts"


_OTHER_SITES = (
    'Write site = "berlin" for the name of this bus, and [sites.paris] for rules towards another'
)
_SITE_TABLE = re.compile(r"^\s*\[\s*site\s*\.", re.MULTILINE)

_EXAMPLES = {
    "site": 'Write site = "berlin"',
    "listen": 'Write listen = ["tls/0.0.0.0:7447"]',
    "connect": 'Write connect = ["tls/192.0.2.7:7447"]',
    "export": 'Write export = ["sensor.>"]',
    "import": 'Write import = ["sensor.>"]',
    "rename": 'Write [[rename]], with local = "sensor" and space = "berlin.sensor" below it',
}


def _address(key: str, endpoint: str, protocol: str, address: str) -> None:
    """Of a protocol with hosts and ports."""
    host, _, port = address.partition("?")[0].partition("#")[0].rpartition(":")
    if not host:
        reason, port = "it has no port", "7447"
        host = address
    elif ":" in host and not host.startswith("["):
        reason, host = "its host has colons and no brackets", f"[{host}]"
    elif not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        reason, port = f"{port!r} is no port, 0 to 65535", "7447"
    else:
        return
    raise _wrong(key, endpoint, reason, f'Write it as "{protocol}/{host}:{port}"')


def _table(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(key, value, "it is no table", f"Write [{key}], and its keys below it")
    return value


def _known(where: str, table: Mapping[str, Any], keys: Iterable[str]) -> None:
    for key in table:
        if key not in keys:
            raise _wrong(
                where + str(key),
                table[key],
                "there is no such key",
                f"Use one of {', '.join(keys)}",
            )


def _wrong(key: str, value: object, reason: str, remedy: str) -> InvalidSetting:
    return InvalidSetting(setting=key, value=value, reason=reason, remedy=remedy)


def _name(key: str, name: object, most: int) -> None:
    try:
        names.check_endpoint(name)  # type: ignore[arg-type]
    except InvalidName as why:
        raise _wrong(key, name, why.reason, f"Use 1 to {most} of A-Z a-z 0-9 '_' '-' '.'") from None
    if len(str(name)) > most:
        raise _wrong(key, name, f"it has {len(str(name))} characters", f"Use at most {most}")


def _patterns(key: str, found: Iterable[str]) -> None:
    if isinstance(found, str):
        raise _wrong(key, found, "it is no list", f'Write ["{found}"]')
    for pattern in found:
        try:
            patterns.check_pattern(pattern)
        except InvalidPattern as why:
            raise _wrong(key, pattern, why.reason, "Write it as 'sensor.*.>'") from None
        if pattern[0] == "$":
            remedy = "Leave it out"
            raise _wrong(key, pattern, "what begins with '$' never leaves its bus", remedy)


def _renames(key: str, found: Iterable[Rename]) -> None:
    for each in found:
        for which, prefix in (("local", each.local), ("space", each.space)):
            try:
                patterns.check_type(prefix)
            except InvalidType as why:
                raise _wrong(f"{key}.{which}", prefix, why.reason, "Write it as 'sensor'") from None
    for which in ("local", "space"):
        prefixes = [getattr(each, which) for each in found]
        twice = next((p for p in prefixes if prefixes.count(p) > 1), None)
        if twice is not None:
            raise _wrong(f"{key}.{which}", twice, "it stands there twice", "Leave one out")


def _within(key: str, value: object, least: float, most: float, unit: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]
        raise _wrong(key, value, "out of range", f"Give {least:g} to {most:g} {unit}")
