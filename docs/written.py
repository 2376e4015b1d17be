"""Parts of the pages that are made from the code and stand in them, for those who read them in a
checkout: `python docs/written.py` writes them again, and a test says when that is due.

A part stands between `<!-- made: NAME -->` and `<!-- end -->`; NAME is in `MAKERS`.
"""

from __future__ import annotations

import dataclasses
import html
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

import shmbus
import shmbus.aio
from shmbus import fields

DOCS = Path(__file__).resolve().parent
sys.path.append(str(DOCS.parent))  # for whoever runs this as a program

from docs.payload_types import payload_types  # noqa: E402

_PART = re.compile(r"^<!-- made: (\w+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def rewritten(text: str) -> str:
    """A page with its parts made anew."""
    return _PART.sub(
        lambda part: f"<!-- made: {part[1]} -->\n{MAKERS[part[1]]().strip()}\n<!-- end -->", text
    )


# Settings ---------------------------------------------------------------------------------------


def settings() -> str:
    """A table of the fields of `Settings`."""
    return _table_of(shmbus.Settings)


def batch_limits() -> str:
    """A table of the fields of `BatchLimits`."""
    return _table_of(shmbus.BatchLimits)


def _table_of(struct: type[msgspec.Struct]) -> str:
    rows = ["| setting | default | meaning, and when to change it |", "|---|---|---|"]
    defaults = {field.name: field.default for field in msgspec.structs.fields(struct)}
    for name, meaning in fields.meanings(struct).items():
        default = _size(defaults[name]) if name.endswith("_bytes") else str(defaults[name])
        rows.append(f"| `{name}` | {default} | {_in_table(meaning)} |")
    return "\n".join(rows)


def _size(size: int | None) -> str:
    return "None" if size is None else f"{size // 1024} KiB"


def _in_table(docstring: str) -> str:
    text = " ".join(docstring.split()).replace("``", "`")
    return text.replace("|", "\\|")


# The names of the API ---------------------------------------------------------------------------

_CLASSES: dict[str, type] = {
    "Bus": shmbus.Bus,
    "BusView": shmbus.BusView,
    "Endpoint": shmbus.Endpoint,
    "Executor": shmbus.Executor,
    "Link": shmbus.Link,
    "Loan": shmbus.Loan,
    "Message": shmbus.Message,
    "Queue": shmbus.Queue,
    "Subscription": shmbus.Subscription,
    "Supervisor": shmbus.Supervisor,
    "shmbus.aio.Endpoint": shmbus.aio.Endpoint,
    "shmbus.aio.Loan": shmbus.aio.Loan,
    "shmbus.aio.Stream": shmbus.aio.Stream,
    "shmbus.aio.Subscription": shmbus.aio.Subscription,
}
"""By what they are called in the reference."""

_OF_INSTANCES = {
    "BusView": ["name"],
    "Subscription": ["pattern", "group"],
    "Supervisor": ["bus"],
    "shmbus.aio.Subscription": ["pattern", "group"],
}
"""What only an instance has, and the docstring of its class explains."""

_EXPLAINED = {
    "howto/embed.md": "serve",
    "howto/embed.md#hand-it-over": "Bus.close Endpoint.reconnect",
    "howto/embed.md#the-hosts-own-endpoint": "Bus.attach",
    "tutorial.md#a-bus-and-who-attaches-to-it": "attach",
    "howto/observe.md": "observe buses BusView.info BusView.endpoints BusView.find BusView.route "
    "BusView.health BusView.losses BusView.requests BusView.has_begun BusView.beyond "
    "BusView.waiting BusView.look BusView.close BusView.name Endpoint.bus",
    "howto/observe.md#other-sites": "BusView.sites",
    "howto/observe.md#who-holds-large-payloads": "BusView.pools",
    "howto/observe.md#end-an-endpoint": "Bus.evict",
    "howto/share.md#what-waits": "BusView.backlogs",
    "howto/send.md#events-and-commands": "Endpoint.publish Endpoint.send",
    "howto/send.md#the-first-message": "Endpoint.wait_for",
    "howto/send.md#is-anybody-there": "Endpoint.matched Endpoint.on_match",
    "howto/send.md#many-at-once": "Endpoint.publish_many Endpoint.batch",
    "howto/send.md#without-a-copy": "Endpoint.loan Endpoint.loan_array Loan.data Loan.array "
    "Loan.type Loan.nbytes Loan.lent Loan.published Loan.publish Loan.discard",
    "howto/send.md#leaving": "Endpoint.close Endpoint.drain",
    "howto/receive.md#callbacks": "Endpoint.subscribe Endpoint.run Endpoint.start "
    "Subscription.close Subscription.pattern Subscription.group",
    "howto/receive.md#asking": "Endpoint.receive Endpoint.receive_many",
    "howto/loops.md": "Endpoint.fileno",
    "howto/receive.md#what-a-message-says": "Message.type Message.payload Message.source "
    "Message.kind Message.size Message.sent_ns Message.site Message.sent_error_ns Message.lost "
    "Message.attempt Message.redelivered Message.retained Message.urgent "
    "Message.correlation_id Message.done Endpoint.name",
    "payloads.md#how-long-a-large-payload-stays": "Message.release",
    "howto/receive.md#last-values": "BusView.retained",
    "howto/receive.md#see-everything": "Endpoint.tap Message.tap",
    "howto/receive.md#deaths-of-others": "Endpoint.on_death",
    "howto/executor.md": "Executor.submit Executor.shutdown",
    "howto/executor.md#when-a-worker-dies": "Executor.submit_with",
    "howto/executor.md#many": "Executor.map",
    "howto/queue.md": "Queue JoinableQueue Queue.put Queue.put_nowait Queue.put_many Queue.get "
    "Queue.get_nowait Queue.get_many Queue.qsize Queue.empty Queue.full Queue.close "
    "Queue.task_done Queue.join Queue.maxsize Queue.closed",
    "howto/queue.md#what-is-different": "Queue.join_thread Queue.cancel_join_thread",
    "howto/queue.md#when-a-process-dies": "Queue.lost Queue.redeliver Queue.unfinished",
    "howto/queue.md#what-is-in-devshm": "Queue.name",
    "howto/request.md#a-request-and-its-reply": "Endpoint.handle Endpoint.request",
    "howto/request.md#many-at-a-time": "Endpoint.request_async Endpoint.request_many",
    "howto/request.md#to-all-from-all": "Endpoint.gather",
    "howto/request.md#replies-in-parts": "Endpoint.stream",
    "howto/request.md#answer-later": "Message.defer Message.reply Message.fail",
    "howto/request.md#how-long-the-caller-waits": "Message.deadline_ns deadline within",
    "howto/services.md#a-class-served": "Endpoint.offer Endpoint.client",
    "howto/services.md#see-what-is-offered": "BusView.services",
    "howto/request.md#when-nobody-waits-any-more": "Message.cancelled",
    "howto/share.md#jobs-that-fail": "Message.nack",
    "howto/across.md": "link",
    "howto/across.md#see-how-it-is": "Link.status Link.ping Link.wait Link.close Link.closed",
    "howto/supervise.md": "supervise Supervisor.bus",
    "howto/supervise.md#see-it-and-order": "Supervisor.status Supervisor.start Supervisor.stop "
    "Supervisor.restart Supervisor.reload Supervisor.logs Supervisor.wait "
    "Supervisor.wait_started Supervisor.kill Supervisor.close",
} | {
    f"howto/asyncio.md#{section}": " ".join(f"shmbus.aio.{name}" for name in names.split())
    for section, names in {
        "attach-ask-answer": "attach Endpoint.publish Endpoint.publish_many Endpoint.send "
        "Endpoint.request Endpoint.tap Endpoint.receive Endpoint.receive_many Endpoint.wait_for "
        "Endpoint.request_many Endpoint.gather Endpoint.matched Endpoint.on_match "
        "Endpoint.batch Endpoint.loan Endpoint.loan_array Endpoint.on_death Endpoint.offer "
        "Endpoint.client Loan.type Loan.nbytes Loan.data Loan.array Loan.lent Loan.published "
        "Loan.publish Loan.discard "
        "Endpoint.name Endpoint.reconnect",
        "replies-in-parts": "Endpoint.stream Stream.aclose Stream.close Stream.ended Stream.type",
        "events-to-a-browser": "Endpoint.subscribe Subscription.close Subscription.pattern "
        "Subscription.group",
        "tasks-and-how-many": "Endpoint.handle",
        "run-and-end": "Endpoint.start Endpoint.run Endpoint.drain Endpoint.close",
        "what-the-loop-waits-for": "Endpoint.bus",
        "uvloop-and-several-loops": "Endpoint.request_async",
    }.items()
}
"""Where the guide explains each name, with an example."""


def public() -> Iterator[tuple[str, Any]]:
    """All functions of `shmbus` and `shmbus.aio`, and what users call or read of its classes."""
    for name in shmbus.__all__:
        if inspect.isfunction(offered := getattr(shmbus, name)):
            yield name, offered
    yield "shmbus.aio.attach", shmbus.aio.attach
    for called, owner in _CLASSES.items():
        for name in dir(owner):
            member = inspect.getattr_static(owner, name)
            known = any(
                member is vars(other).get(name)
                for other in owner.__mro__
                if other in _CLASSES.values() and other is not owner
            )
            if not (name.startswith("_") or known or name == "native_address"):
                yield f"{called}.{name}", member
        for name in _OF_INSTANCES.get(called, ()):
            yield f"{called}.{name}", None


def api() -> str:
    """Every public name, what it is for, and where it is explained."""
    parts, before = [], None
    places = {name: place for place, names in _EXPLAINED.items() for name in names.split()}
    for name, member in public():
        owner = name.rpartition(".")[0] or "shmbus"
        if owner != before:
            parts += ["", f"**{owner}**\n", "| name | | explained in |", "|---|---|---|"]
            before = owner
        called = f"`{name.rpartition('.')[2]}{'()' if callable(member) else ''}`"
        if name not in places:
            raise LookupError(f"{name} has no place in the guide: _EXPLAINED, here")
        parts.append(f"| {called} | {_first(name, member)} | {explained(name, places[name])} |")
    return "\n".join(parts)


def _first(name: str, member: Any) -> str:
    """The first sentence of its docstring, or what its class says of it."""
    owner, _, attribute = name.rpartition(".")
    about = inspect.getdoc(member) if member is not None else None
    if not about:
        said = inspect.getdoc(_CLASSES[owner]) or ""
        found = re.search(rf"^`{attribute}`: (.+)$", said, re.MULTILINE)
        if found is None:
            raise LookupError(f"{name} has no docstring, and that of {owner} does not explain it")
        about = found[1]
    return re.split(r"(?<=[.:;]) ", _in_table(about), maxsplit=1)[0].rstrip(".:;")


def explained(name: str, place: str) -> str:
    """A link to the section at that place, which must name it."""
    page, _, anchor = place.partition("#")
    for section in re.split(r"^(?=#+ )", (DOCS / page).read_text(), flags=re.MULTILINE):
        title = section.partition("\n")[0].lstrip("# ")
        if section.startswith("#") and anchor_of(title) == (anchor or anchor_of(title)):
            word = name.rpartition(".")[2]
            if not re.search(rf"(?:[.`]|\bas )`?{word}\b", section):
                raise LookupError(f"{place} does not explain {name}")
            return f"[{title.replace('`', '')}](../{place})"
    raise LookupError(f"there is no {place}")


def anchor_of(heading: str) -> str:
    """The anchor that sites which show a checkout, and mkdocs, give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# The bus's own events ---------------------------------------------------------------------------


def events() -> str:
    """What the bus publishes: a table of the fields of each."""
    from shmbus.events import EVENTS

    parts = []
    for type, event in EVENTS.items():
        about = (inspect.getdoc(event) or "").partition("\n\nFields:")[0]
        parts += [f"### {type}\n", f"`shmbus.events.{event.__name__}`: {about}\n"]
        parts.append("| field | | |\n|---|---|---|")
        parameters = inspect.signature(event).parameters
        for name, meaning in fields.meanings(event).items():
            kind = _in_table(inspect.formatannotation(parameters[name].annotation))
            parts.append(f"| `{name}` | `{kind}` | {_in_table(meaning)} |")
        parts.append("")
    return "\n".join(parts)


# The errors -------------------------------------------------------------------------------------


def errors() -> str:
    """Every class: what it means, and the facts that it carries."""
    from shmbus.errors import BusError

    return "\n".join(_error(BusError, 0))


def _error(error: type[BaseException], depth: int) -> Iterator[str]:
    about = fields.meanings(error)
    names = [field.name for field in dataclasses.fields(error)] if depth else []  # type: ignore[arg-type]
    facts = (f"`{name}` ({_fact(about[name])})" if name in about else f"`{name}`" for name in names)
    known = f" Facts: {', '.join(facts)}." if names else ""
    meaning = (inspect.getdoc(error) or "").partition("\n\n")[0].replace("\n", " ")
    yield f"{'    ' * depth}- **`{error.__name__}`**: {meaning}{known}"
    for child in error.__subclasses__():
        yield from _error(child, depth + 1)


def _fact(meaning: str) -> str:
    text = _in_table(meaning).rstrip(".")
    return text[:1].lower() + text[1:]


# shmtop -----------------------------------------------------------------------------------------


def shmtop() -> str:
    """A table of the keys of each page, one of the columns, one of the states."""
    from shmtop.help import sections

    parts = []
    for title, facts in sections():
        parts += [f"## {title}\n", "| | |\n|---|---|"]
        parts += [f"| `{word}` | {_in_table(meaning)} |" for word, meaning in facts]
        parts.append("")
    return "\n".join(parts)


# Pictures of terminals, in characters ------------------------------------------------------------


def demo_screen() -> str:
    """What `shmbus demo` shows at its end."""
    return _screen("demo.svg")


def shmtop_screen() -> str:
    """shmtop's first page."""
    return _screen("shmtop.svg")


_COLUMN = 12.2
"""Units of such a picture that a character is wide."""


def _screen(name: str) -> str:
    """A picture that rich made, as text: a picture that shows wherever README does."""
    placed = r'<text[^>]* x="([\d.]+)"[^>]*-line-(\d+)\)">([^<]*)</text>'
    lines: dict[int, dict[int, str]] = {}
    for x, line, text in re.findall(placed, (DOCS / "images" / name).read_text()):
        characters = html.unescape(text).replace("\xa0", " ")
        lines.setdefault(int(line), {}).update(enumerate(characters, round(float(x) / _COLUMN)))
    rows = (lines.get(number, {}) for number in range(max(lines) + 1))
    shown = ("".join(row.get(at, " ") for at in range(max(row, default=-1) + 1)) for row in rows)
    text = re.sub(r"\n{2,}", "\n", "\n".join(line.rstrip() for line in shown))
    text = re.sub(r"(?<=\d)[▀-█]$", "", text, flags=re.MULTILINE)  # where a scroll bar ends
    return f"```text\n{text.strip(chr(10))}\n```"


MAKERS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "batch_limits": batch_limits,
    "api": api,
    "payload_types": payload_types,
    "events": events,
    "errors": errors,
    "shmtop": shmtop,
    "demo_screen": demo_screen,
    "shmtop_screen": shmtop_screen,
}


def main() -> None:
    for page in (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))):
        text = page.read_text()
        if (made := rewritten(text)) != text:
            page.write_text(made)
            print(page)


if __name__ == "__main__":
    main()
