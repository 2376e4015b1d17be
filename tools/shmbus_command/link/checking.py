"""What ``shmbus link --check`` shows: what would leave and come in, and what could not work."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from shmbus_console.text import columns, duration

from shmbus.links import LinkConfig, Rename, meet
from shmbus.options import sized

_Crossing = tuple[Sequence[str], Sequence[str], Sequence[Rename]]
_NOTHING = "nothing"


def check(config: LinkConfig, bus: str | None) -> list[str]:
    """Lines about a config."""
    of = "a bus" if bus is None else f"bus {bus}"
    lines = [f"{of} as site {config.site} of space {config.space}"]
    facts = [
        ["listens at", _list(config.listen)],
        ["connects to", _list(config.connect)],
        ["secured by", _secured(config)],
        ["detection", f"a site that fails is seen within {duration(config.detection)}"],
        ["groups", _groups(config)],
        ["delivery", _delivery(config)],
        ["buffer", f"{sized(config.buffer)} for each site; then {_congestion(config)}"],
    ]
    lines += columns(*_headless(facts))
    for site, rules in _towards(config):
        lines += ["", f"towards {site or 'any site'}", *_rules(*rules)]
    return lines


def document(config: LinkConfig, bus: str | None) -> dict[str, object]:
    """The same for scripts."""
    plain = "site space name listen connect detection groups delivery congestion buffer window mode"
    return {
        "bus": bus,
        **{key: getattr(config, key) for key in plain.split()},
        "secured": _secured(config),
        "towards": [
            {"site": site, "export": exports, "import": imports, "rename": renames}
            for site, (exports, imports, renames) in _towards(config)
        ],
        "problems": problems(config),
    }


def _towards(config: LinkConfig) -> Iterable[tuple[str | None, _Crossing]]:
    """The general rules, and those for each site that has its own."""
    yield None, (config.exports, config.imports, config.renames)
    for site, rules in sorted(config.sites.items()):
        yield (
            site,
            (
                config.exports if rules.exports is None else rules.exports,
                config.imports if rules.imports is None else rules.imports,
                config.renames if rules.renames is None else rules.renames,
            ),
        )


def problems(config: LinkConfig) -> list[str]:
    """What does not work, or not as it was meant; a line for each."""
    found = []
    if importlib.util.find_spec("zenoh") is None:
        found.append("Eclipse Zenoh is not installed: pip install 'shmbus[link]'")
    if config.tls is not None:
        files = {"ca": config.tls.ca, "certificate": config.tls.certificate, "key": config.tls.key}
        found += [
            f"[tls] {key}: there is no file {path} that this user can read"
            for key, path in files.items()
            if not (Path(path).is_file() and os.access(path, os.R_OK))
        ]
    each = config.sites.values()
    if not (config.exports or config.imports or any(s.exports or s.imports for s in each)):
        found.append("nothing would leave and nothing come in: give export or import")
    found += _unused(config)
    return found


def _unused(config: LinkConfig) -> Iterable[str]:
    """Renamings of what does not cross, and confirmations of what does not leave."""
    for rename in config.renames:
        both = (rename.local, f"{rename.local}.>")
        crossing = (*config.exports, *config.imports)
        if not any(meet(prefix, pattern) for prefix in both for pattern in crossing):
            yield f"[[rename]] local = {rename.local!r}: nothing that crosses begins so"
    for pattern in config.confirmed:
        if not any(meet(pattern, exported) for exported in config.exports):
            yield f"[confirmed] patterns: nothing that {pattern!r} matches leaves"
    if config.confirmed and config.delivery != "confirmed":
        yield '[confirmed] patterns: they have no effect without delivery = "confirmed"'


def _rules(exports: Sequence[str], imports: Sequence[str], renames: Sequence[Rename]) -> list[str]:
    facts = [["leaves", _list(exports)], ["comes in", _list(imports)]]
    facts += [["is renamed", f"{each.local} here, {each.space} there"] for each in renames]
    return columns(*_headless(facts))


def _headless(facts: list[list[str]]) -> tuple[list[str], list[list[str]], str]:
    return facts[0], facts[1:], "  "


def _list(found: Sequence[str]) -> str:
    return "  ".join(found) or _NOTHING


def _secured(config: LinkConfig) -> str:
    if config.tls is not None:
        who = "" if config.auth is None else f", and as user {config.auth.user}"
        return f"certificates signed by {config.tls.ca}{who}"
    if config.auth is not None:
        return f"a password of user {config.auth.user}, which others on the way can read"
    return _NOTHING if config.insecure else "nothing: this machine alone"


def _groups(config: LinkConfig) -> str:
    if config.groups == "span":
        return "one member of all sites gets each event, one here if there is any"
    return "on each site one member gets each event"


def _delivery(config: LinkConfig) -> str:
    if config.delivery != "confirmed":
        return "at most once"
    what = f" that {_list(config.confirmed)} matches" if config.confirmed else ""
    return f"commands and group messages{what} are kept until they are confirmed"


def _congestion(config: LinkConfig) -> str:
    if config.congestion == "block":
        return "what comes from this bus waits"
    return f"the {config.congestion.removeprefix('drop_')} go, and are counted"
