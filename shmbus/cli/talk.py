"""Commands that attach and exchange messages: pub, send, request, sub, tap, reply."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from shmbus import Endpoint, Message, attach, errors, observe

from .common import (
    Pace,
    bus_option,
    complete_type,
    envelope,
    flush,
    json_option,
    payload_options,
    payloads,
    pretty,
    print_json,
    raw,
    tapped,
    write,
)

_SIDE_BY_SIDE = 256  # messages that are printed before the output is flushed
_ASKED = 10_000  # requests whose replies a tap waits for
_DOZE = 0.2  # seconds; also how long a pipe that was closed goes unnoticed


def _timeout(default: float, text: str) -> Callable[[Any], Any]:
    return click.option(
        "--timeout",
        type=click.FloatRange(0.0, 3e7),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


def _common(command: Any) -> Any:
    """What pub, send and request have in common."""
    for option in (
        json_option,
        click.option(
            "--wait",
            type=click.FloatRange(0.0, 3e7),
            metavar="SECONDS",
            help="First wait so long at most until somebody would get it.",
        ),
        click.option("--rate", type=click.FloatRange(0.001), metavar="N", help="So many a second."),
        click.option(
            "--count",
            "-n",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Send each payload so often.",
        ),
        payload_options,
        click.argument("type", shell_complete=complete_type),
        bus_option,
    ):
        command = option(command)
    return command


_PAYLOAD = """PAYLOAD is JSON (or, with --as, text or bytes): itself, @FILE for the content of a
    file, or - for the standard input, of which every line is a message of its own (with --as bytes
    all of it is one). Without it the message has none."""


def _with_payload(command: Callable[..., Any]) -> Callable[..., Any]:
    command.__doc__ = (command.__doc__ or "").replace("{PAYLOAD}", _PAYLOAD)
    return command


@click.command()
@_common
@_timeout(5.0, "For which a full ring is waited for.")
@_with_payload
def pub(bus: str | None, type: str, **how: Any) -> None:
    """Publish an event of TYPE, to all who subscribe to it.

    {PAYLOAD}
    """
    with _attach(bus, "pub") as endpoint:
        _post(endpoint, endpoint.publish, "published", type, **how)


@click.command()
@_common
@_timeout(5.0, "For which a full ring is waited for.")
@_with_payload
def send(bus: str | None, type: str, **how: Any) -> None:
    """Send a command of TYPE to the one endpoint that handles it.

    {PAYLOAD}
    """
    with _attach(bus, "send") as endpoint:
        _post(endpoint, endpoint.send, "sent", type, **how)


def _post(
    endpoint: Endpoint,
    post: Callable[..., None],
    done: str,
    type: str,
    *,
    payload: str | None,
    kind: str,
    count: int,
    rate: float | None,
    wait: float | None,
    timeout: float,
    as_json: bool,
) -> None:
    if wait is not None:
        endpoint.wait_for(type, timeout=wait)
    number, pace, began = 0, Pace(rate), time.monotonic()
    for value in payloads(payload, kind):
        for _ in range(count):
            pace.wait()
            post(type, value, timeout=timeout)
            number += 1
    if as_json:
        print_json({done: number, "seconds": time.monotonic() - began})


@click.command()
@_common
@_timeout(5.0, "For which each reply is waited for.")
@click.option("--raw", "as_raw", is_flag=True, help="Print the payload alone, bytes as they are.")
@_with_payload
def request(
    bus: str | None,
    type: str,
    payload: str | None,
    kind: str,
    count: int,
    rate: float | None,
    wait: float | None,
    timeout: float,
    as_json: bool,
    as_raw: bool,
) -> None:
    """Make a request of TYPE and print the payload of the reply.

    {PAYLOAD}

    Exit code 4 where no reply comes in time, 1 where nobody handles it or its handler fails.
    """
    with _attach(bus, "request") as endpoint:
        if wait is not None:
            endpoint.wait_for(type, timeout=wait)
        pace = Pace(rate)
        for value in payloads(payload, kind):
            for _ in range(count):
                pace.wait()
                began = time.monotonic()
                reply = endpoint.request(type, value, timeout=timeout)
                if as_json:
                    print_json({**envelope(reply), "seconds": time.monotonic() - began})
                else:
                    write(_payload_alone(reply, as_raw))
                flush()


def _payload_alone(message: Message[Any], as_raw: bool) -> bytes:
    if as_raw or isinstance(message.payload, bytes | str):
        return raw(message.payload)
    return b"" if message.payload is None else raw(message.payload)


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=complete_type)
@bus_option
@click.option("--count", "-n", type=click.IntRange(1), help="End after so many messages.")
@click.option("--timeout", type=click.FloatRange(0.0), help="End after so many seconds.")
@click.option("--group", "-g", help="Be one of this queue group, and get a share.")
@click.option(
    "--lossless",
    is_flag=True,
    help="Let who publishes wait for us. By default what we do not read in time is lost to us.",
)
@click.option("--rate", is_flag=True, help="Each second, how many came and how far apart.")
@click.option("--raw", "as_raw", is_flag=True, help="Print payloads alone, bytes as they are.")
@click.option("--reconnect", is_flag=True, help="Wait for the next dispatcher where one dies.")
@json_option
def sub(
    patterns: tuple[str, ...],
    bus: str | None,
    count: int | None,
    timeout: float | None,
    group: str | None,
    lossless: bool,
    rate: bool,
    as_raw: bool,
    reconnect: bool,
    as_json: bool,
) -> None:
    """Subscribe and print the events that come, until Ctrl-C.

    PATTERN is a type of message in which a token may be * (any one) and the last > (one or more);
    by default >, which is everything but what the bus itself says ('$bus.>').
    """
    meter = Meter(as_json) if rate else None

    def each(message: Message[Any]) -> None:
        if meter is not None:
            meter.count(message)
        elif as_json:
            print_json(envelope(message))
        else:
            write(_payload_alone(message, True) if as_raw else pretty(message))

    with _attach(bus, "sub", reconnect=reconnect) as endpoint:
        for pattern in patterns or (">",):
            endpoint.subscribe(
                pattern, group=group, overflow="block" if lossless else "drop_newest"
            )
        _say("sub", f"listening on {endpoint.bus.name}")
        _stream("sub", endpoint, count, timeout, each, meter.tick if meter else None)
        if meter is not None:
            meter.report()
            flush()


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=complete_type)
@bus_option
@click.option("--count", "-n", type=click.IntRange(1), help="End after so many.")
@click.option("--timeout", type=click.FloatRange(0.0), help="End after so many seconds.")
@click.option("--reconnect", is_flag=True, help="Wait for the next dispatcher where one dies.")
@json_option
def tap(
    patterns: tuple[str, ...],
    bus: str | None,
    count: int | None,
    timeout: float | None,
    reconnect: bool,
    as_json: bool,
) -> None:
    """Watch what passes between others: events, commands, requests, replies and errors.

    Each is shown with where it came from and went to, what became of it, and how long the bus took;
    a reply also with the time since its request. An event to several is shown once for each. What
    is shown are copies: a tap is never in the way, and what it does not read in time it misses
    alone.
    """
    asked: dict[Any, int] = {}

    def each(message: Message[Any]) -> None:
        seen = message.tap
        if seen is None:
            return
        took = (seen.forwarded_ns - seen.sent_ns) / 1e9
        after = None
        if message.correlation_id is not None:
            if seen.kind == "request":
                asked[message.correlation_id] = seen.sent_ns
                if len(asked) > _ASKED:
                    asked.pop(next(iter(asked)))
            elif message.correlation_id in asked:
                after = (seen.forwarded_ns - asked.pop(message.correlation_id)) / 1e9
        if as_json:
            facts = {"kind": seen.kind, "outcome": seen.outcome, "target": seen.target}
            times = {"routing_seconds": took, "seconds_since_request": after}
            print_json({**envelope(message), **facts, **times})
        else:
            write(tapped(message, seen, took, after))

    with _attach(bus, "tap", reconnect=reconnect) as endpoint:
        for pattern in patterns or (">", "$bus.>"):
            endpoint.tap(pattern)
        _say("tap", f"watching {endpoint.bus.name}")
        _stream("tap", endpoint, count, timeout, each)


def _stream(
    who: str,
    endpoint: Endpoint,
    count: int | None,
    timeout: float | None,
    each: Callable[[Message[Any]], None],
    tick: Callable[[], None] | None = None,
) -> None:
    """What comes, until there are ``count``, ``timeout`` seconds have passed, or Ctrl-C."""
    left = count
    end = None if timeout is None else time.monotonic() + timeout
    try:
        while left != 0 and (end is None or time.monotonic() < end):
            most = _SIDE_BY_SIDE if left is None else min(left, _SIDE_BY_SIDE)
            for message in endpoint.receive_many(most, _doze(end)):
                left = None if left is None else left - 1
                if message.lost:
                    _say(who, f"{message.lost} lost here")
                try:
                    each(message)
                except errors.DecodeError as problem:
                    _say(who, str(problem))
            if tick is not None:
                tick()
            flush()
    except KeyboardInterrupt:
        pass  # how it ends
    flush()


def _say(who: str, text: str) -> None:
    click.echo(f"shmbus {who}: {text}", err=True)


def _doze(end: float | None) -> float:
    return _DOZE if end is None else max(min(_DOZE, end - time.monotonic()), 0.0)


class Meter:
    """How many came, how large, and how far apart."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._messages = self._bytes = self._lost = 0
        self._gaps: list[float] = []
        self._last: int | None = None

    def count(self, message: Message[Any]) -> None:
        self._messages += 1
        self._bytes += message.size
        self._lost += message.lost
        if self._last is not None:
            self._gaps.append((message.sent_ns - self._last) / 1e9)
        self._last = message.sent_ns

    def tick(self) -> None:
        if time.monotonic() - self._began >= 1.0:
            self.report()

    def report(self) -> None:
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        gaps = self._gaps or [0.0]
        found = {
            "rate": self._messages / seconds,
            "bytes_per_second": self._bytes / seconds,
            "gap_min": min(gaps),
            "gap_max": max(gaps),
            "gap_deviation": statistics.pstdev(gaps),
            "lost": self._lost,
        }
        if self._as_json:
            print_json(found)
        else:
            gap = "  ".join(f"{word} {found[f'gap_{word}'] * 1e3:.3f}" for word in ("min", "max"))
            write(
                f"{found['rate']:.1f} messages/s  {found['bytes_per_second'] / 1024:.1f} KiB/s  "
                f"apart in ms: {gap}  deviation {found['gap_deviation'] * 1e3:.3f}  "
                f"lost {self._lost}".encode()
            )
        self._began, self._messages, self._bytes, self._lost, self._gaps = now, 0, 0, 0, []


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("pattern")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@bus_option
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--count", "-n", type=click.IntRange(1), help="End after so many requests.")
@click.option("--quiet", "-q", is_flag=True, help="Do not print what comes.")
@json_option
def reply(
    pattern: str,
    command: tuple[str, ...],
    bus: str | None,
    threads: int,
    count: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Answer the requests that match PATTERN, until Ctrl-C.

    Without a COMMAND the reply is the payload of the request. With one it is run for each request
    and gets the payload (JSON, bytes as they are) on its standard input, the type and the source in
    SHMBUS_TYPE and SHMBUS_SOURCE. What it prints is the reply: JSON if it is that, else text. If it
    ends with another exit code than 0, the request fails with what it printed on standard error.
    Options of the COMMAND come after --.
    """
    answered = 0
    lock = threading.Lock()
    with _attach(bus, "reply") as endpoint:

        def answer(message: Message[Any]) -> Any:
            nonlocal answered
            with lock:
                answered += 1
                last = answered == count
                if not quiet:
                    if as_json:
                        print_json(envelope(message))
                    else:
                        write(pretty(message))
                    flush()
            if last:
                threading.Thread(target=endpoint.drain, daemon=True).start()
            return _run(command, message) if command else message.payload

        endpoint.handle(pattern, answer)
        _say("reply", f"answering {pattern} on {endpoint.bus.name}")
        try:
            endpoint.run(threads=threads, reconnect=False)
        except KeyboardInterrupt:
            pass  # how it ends


class CommandFailed(Exception):
    """The command that was to answer did not."""


def _run(command: tuple[str, ...], message: Message[Any]) -> Any:
    given = {**os.environ, "SHMBUS_TYPE": message.type, "SHMBUS_SOURCE": message.source}
    done = subprocess.run(command, input=raw(message.payload), capture_output=True, env=given)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise CommandFailed(f"{command[0]} ended with {done.returncode}: {said}")
    try:
        return msgspec.json.decode(done.stdout)
    except msgspec.DecodeError:
        return done.stdout.decode(errors="replace").removesuffix("\n")


def _attach(bus: str | None, role: str, *, reconnect: bool = False) -> Endpoint:
    """Unlike a program, which waits for its bus, a command says at once that there is none."""
    with observe(bus) as view:
        bus, info = view.name, view.info()
    if not info.alive:
        raise errors.BusDown(bus=bus, reason="its dispatcher is dead", pid=info.pid)
    return attach(bus, name=f"shmbus-{role}-{os.getpid()}", reconnect=reconnect)
