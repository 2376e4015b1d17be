"""Commands that attach and exchange messages: pub, send, request, sub, tap, reply."""

from __future__ import annotations

import logging
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from shmbus_console.messages import envelope, pretty, raw, tapped
from shmbus_console.options import bus_option, complete_type, json_option, seconds_option
from shmbus_console.output import flush, print_json, write
from shmbus_console.run import TIMED_OUT

from shmbus import BusView, Endpoint, Message, attach, errors, observe

from .payloads import Pace, payload_options, payloads

_SIDE_BY_SIDE = 256  # messages that are printed before the output is flushed
_ASKED = 10_000  # requests whose replies a tap waits for
_DOZE = 0.2  # seconds; also how long a pipe that was closed goes unnoticed


def _common(command: Any) -> Any:
    """What pub, send and request have in common."""
    for option in (
        json_option,
        seconds_option(
            "--wait",
            help="First wait so long at most until the bus runs and somebody would get it.",
        ),
        click.option("--rate", type=click.FloatRange(0.001), metavar="N", help="So many a second."),
        click.option(
            "--count",
            "-n",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            metavar="N",
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
@seconds_option("--timeout", 5.0, help="For which a full ring is waited for.")
@_with_payload
def pub(bus: str | None, type: str, wait: float | None, **how: Any) -> None:
    """Publish an event of TYPE, to all who subscribe to it.

    {PAYLOAD}
    """
    with _attach_to(bus, "pub", type, "subscribe", wait) as endpoint:
        _post(endpoint.publish, "published", type, **how)


@click.command()
@_common
@seconds_option("--timeout", 5.0, help="For which a full ring is waited for.")
@_with_payload
def send(bus: str | None, type: str, wait: float | None, **how: Any) -> None:
    """Send a command of TYPE to the one endpoint that handles it.

    {PAYLOAD}
    """
    with _attach_to(bus, "send", type, "handle", wait) as endpoint:
        _post(endpoint.send, "sent", type, **how)


def _post(
    post: Callable[..., None],
    done: str,
    type: str,
    *,
    payload: str | None,
    kind: str,
    count: int,
    rate: float | None,
    timeout: float,
    as_json: bool,
) -> None:
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
@seconds_option("--timeout", 5.0, help="For which each reply is waited for.")
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
    with _attach_to(bus, "request", type, "handle", wait) as endpoint:
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


_wait_for_bus = seconds_option("--wait", help="First wait so long at most until the bus runs.")


def _listening(command: Any) -> Any:
    """What sub and tap have in common."""
    for option in (
        json_option,
        click.option(
            "--reconnect", is_flag=True, help="Wait for the next dispatcher where one dies."
        ),
        _wait_for_bus,
        seconds_option(
            "--timeout",
            help="End after so long; with exit code 4 if --count is given and fewer came.",
        ),
        click.option(
            "--count", "-n", type=click.IntRange(1), metavar="N", help="End after so many."
        ),
        bus_option,
        click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=complete_type),
    ):
        command = option(command)
    return command


@click.command()
@_listening
@click.option("--group", "-g", metavar="NAME", help="Be one of this queue group, and get a share.")
@click.option(
    "--lossless",
    is_flag=True,
    help="Let who publishes wait for us. By default what we do not read in time is lost to us.",
)
@click.option("--rate", is_flag=True, help="Each second, how many came and how far apart.")
@click.option("--raw", "as_raw", is_flag=True, help="Print payloads alone, bytes as they are.")
def sub(
    patterns: tuple[str, ...],
    bus: str | None,
    count: int | None,
    timeout: float | None,
    wait: float | None,
    group: str | None,
    lossless: bool,
    rate: bool,
    as_raw: bool,
    reconnect: bool,
    as_json: bool,
) -> None:
    """Subscribe and print the events that come, until Ctrl-C.

    PATTERN is a type of message in which a token may be * (any one) and the last > (one or more);
    by default >, which is everything but the bus's own events ('$bus.>').
    """
    meter = Meter(as_json) if rate else None

    def each(message: Message[Any]) -> None:
        if meter is not None:
            meter.count(message)
        elif as_json:
            print_json(envelope(message))
        else:
            write(_payload_alone(message, True) if as_raw else pretty(message))

    with _attach(bus, "sub", wait, reconnect=reconnect) as endpoint:
        for pattern in patterns or (">",):
            endpoint.subscribe(
                pattern, group=group, overflow="block" if lossless else "drop_newest"
            )
        _note("sub", f"listening on {endpoint.bus.name}")
        try:
            _stream("sub", endpoint, count, timeout, each, meter.tick if meter else None)
        finally:
            if meter is not None:
                meter.report()
                flush()


@click.command(short_help="Watch what passes between others.")
@_listening
def tap(
    patterns: tuple[str, ...],
    bus: str | None,
    count: int | None,
    timeout: float | None,
    wait: float | None,
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

    with _attach(bus, "tap", wait, reconnect=reconnect) as endpoint:
        for pattern in patterns or (">", "$bus.>"):
            endpoint.tap(pattern)
        _note("tap", f"watching {endpoint.bus.name}")
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
                    _note(who, f"{message.lost} lost here")
                try:
                    each(message)
                except errors.DecodeError as problem:
                    _note(who, str(problem))
            if tick is not None:
                tick()
            flush()
        if left:
            click.get_current_context().exit(TIMED_OUT)
    except KeyboardInterrupt:
        pass  # how it ends
    flush()


def _note(who: str, text: str) -> None:
    """A line for people, beside the output."""
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
@_wait_for_bus
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Answer so many at a time.",
)
@click.option(
    "--count", "-n", type=click.IntRange(1), metavar="N", help="End after so many requests."
)
@click.option("--quiet", "-q", is_flag=True, help="Do not print what comes.")
@json_option
def reply(
    pattern: str,
    command: tuple[str, ...],
    bus: str | None,
    wait: float | None,
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
    logging.getLogger("shmbus").addFilter(_brief)
    with _attach(bus, "reply", wait) as endpoint:

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
        _note("reply", f"answering {pattern} on {endpoint.bus.name}")
        try:
            endpoint.run(threads=threads, reconnect=False)
        except KeyboardInterrupt:
            pass  # how it ends


class CommandFailed(Exception):
    """The command that a request was answered with failed."""


def _brief(record: logging.LogRecord) -> bool:
    """Log a failed command without this process's traceback: what it printed says it all."""
    if record.exc_info and isinstance(record.exc_info[1], CommandFailed):
        record.exc_info = None
    return True


def _run(command: tuple[str, ...], message: Message[Any]) -> Any:
    given = {**os.environ, "SHMBUS_TYPE": message.type, "SHMBUS_SOURCE": message.source}
    done = subprocess.run(command, input=raw(message.payload), capture_output=True, env=given)
    if done.returncode:
        printed = done.stderr.decode(errors="replace").strip()
        raise CommandFailed(f"{command[0]} ended with {done.returncode}: {printed}")
    try:
        return msgspec.json.decode(done.stdout)
    except msgspec.DecodeError:
        return done.stdout.decode(errors="replace").removesuffix("\n")


def _attach(
    bus: str | None, role: str, wait: float | None = None, *, reconnect: bool = False
) -> Endpoint:
    """Attach. Unlike `shmbus.attach`, which waits for the bus, fail at once where there is none,
    unless ``wait`` is given."""
    end = time.monotonic() + (wait or 0.0)
    while True:
        problem: errors.BusError
        try:
            with observe(bus) as view:
                info = view.info()
            if info.alive:
                break
            problem = errors.BusDown(bus=info.name, reason="its dispatcher is dead", pid=info.pid)
        except errors.NoSuchBus as missing:
            problem = missing
            if bus is None and missing.running:  # several
                raise
        if time.monotonic() >= end:
            raise problem
        time.sleep(0.05)
    return attach(info.name, name=f"shmbus-{role}-{os.getpid()}", reconnect=reconnect)


def _received(bus: BusView, type: str, role: str) -> bool:
    """Whether somebody has this role for the type, and the dispatcher knows it."""
    routed = {endpoint.name for endpoint in bus.find(type) if endpoint.routed}
    return any(r.role == role and r.endpoint in routed for r in bus.route(type).receivers)


@contextmanager
def _attach_to(
    bus: str | None, role: str, type: str, wanted: str, wait: float | None
) -> Iterator[Endpoint]:
    """An endpoint; with ``wait``, once somebody subscribes to the type or handles it."""
    end = time.monotonic() + (wait or 0.0)
    with _attach(bus, role, wait) as endpoint:
        while wait is not None and not _received(endpoint.bus, type, wanted):
            if time.monotonic() >= end:
                raise errors.WaitTimeout(pattern=type, receivers=1, found=0, seconds=wait)
            time.sleep(0.005)
        yield endpoint
