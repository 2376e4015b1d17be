"""What the sites of a test send each other, and whether the books balance at the end."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Collection
from itertools import pairwise
from typing import Any

import shmbus
from shmbus import Message, errors
from shmbus.testing import eventually
from tests.links.stage import Site

ROOMY = shmbus.Settings(in_bytes=1 << 20)
"""Of an endpoint that loses nothing by itself."""


class Entry:
    """What one site sends, and gets of sites of these names."""

    def __init__(self, site: Site, names: Collection[str]) -> None:
        self.site = site
        self._names = names
        self.writer = site.attach("writer")
        self.reader = site.attach("reader", settings=ROOMY)
        self.published = 0
        self.got: dict[str, list[int]] = defaultdict(list)  # by the site of the writer
        self.lost: Counter[str] = Counter()
        self.asked: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.failed: Counter[str] = Counter()
        self.commanded = 0
        self.done: dict[str, Counter[int]] = defaultdict(Counter)
        self.served: dict[str, Counter[int]] = defaultdict(Counter)
        self.reader.subscribe("news.>", self._hear)
        self.reader.handle(f"ask.{site.name}", self._answer)
        self.reader.handle(f"job.{site.name}", self._do)
        self.reader.start()

    def _hear(self, message: Message) -> None:
        writer = message.type.rpartition(".")[2]
        if message.source not in ("writer", f"writer@{writer}"):
            return  # nobody of ours
        self.got[writer].append(int(message.payload))
        self.lost[writer] += message.lost

    def _answer(self, message: Message) -> Any:
        if message.site not in self._names:
            return None
        self.served[message.source][message.payload] += 1
        return message.payload

    def _do(self, message: Message) -> None:
        if message.site in self._names:
            self.done[message.source][message.payload] += 1

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.writer.publish(f"news.{self.site.name}", self.published)
            self.published += 1

    def ask(self, of: str, timeout: float = 30) -> None:
        """A request to that site, for which one thing comes back: its reply, or one error."""
        number = sum(self.asked.values())
        self.asked[number] += 1
        try:
            reply = self.writer.request(f"ask.{of}", number, timeout=timeout)
        except errors.BusError as why:
            self.failed[type(why).__name__] += 1
        else:
            assert reply.payload == number
            self.answered[number] += 1

    def command(self, of: str) -> None:
        self.writer.send(f"job.{of}", self.commanded)
        self.commanded += 1


class Books:
    """Those of all sites of a test, whose buses are joined later."""

    def __init__(self, *sites: Site) -> None:
        names = {site.name for site in sites}
        self.entries = {site.name: Entry(site, names) for site in sites}
        self._stop = threading.Event()
        self._busy: list[threading.Thread] = []

    def __getitem__(self, site: str) -> Entry:
        return self.entries[site]

    def pairs(self) -> list[tuple[Entry, Entry]]:
        """Each with each other."""
        every = self.entries.values()
        return [(one, two) for one in every for two in every if one is not two]

    def opened(self) -> None:
        """Wait until each site would get what each other one sends."""
        for one, two in self.pairs():
            one.writer.wait_for(f"ask.{two.site.name}", timeout=60)
        for one in self.entries.values():
            one.writer.wait_for(f"news.{one.site.name}", receivers=2, timeout=60)

    def work(self, *, pause: float = 0.002) -> None:
        """From now on all publish, ask and command, each in a thread of its own."""
        for entry in self.entries.values():
            thread = threading.Thread(target=self._work, args=(entry, pause))
            thread.start()
            self._busy.append(thread)

    def _work(self, entry: Entry, pause: float) -> None:
        others = [name for name in self.entries if name != entry.site.name]
        while not self._stop.wait(pause):
            entry.publish(5)
            other = others[entry.published // 5 % len(others)]
            try:
                entry.command(other)
            except errors.NoRoute:
                entry.failed["NoRoute"] += 1
            entry.ask(other)

    def progress(self, *names: str) -> None:
        """Wait until each of these sites, or all, has had something more of each other."""
        pairs = [
            (two, one.site.name)
            for one, two in self.pairs()
            if not names or {one.site.name, two.site.name} <= set(names)
        ]
        before = [len(reader.got[writer]) for reader, writer in pairs]
        for (reader, writer), had in zip(pairs, before, strict=True):
            eventually(
                lambda reader=reader, writer=writer, had=had: len(reader.got[writer]) > had + 9,  # type: ignore[misc]
                f"{reader.site.name} gets more of {writer}",
            )

    def rest(self) -> None:
        """They stop."""
        self._stop.set()
        for thread in self._busy:
            thread.join(90)
            assert not thread.is_alive(), "a call has not ended"
        self._stop.clear()
        self._busy.clear()

    def close(self, *, counted: bool = True) -> None:
        """Publish the last, which all others get, and then check. `counted`: what is missing was
        counted, too."""
        for entry in self.entries.values():
            entry.publish()
        for writer, reader in self.pairs():
            name, last = writer.site.name, writer.published - 1
            eventually(
                lambda name=name, reader=reader, last=last: last in reader.got[name][-1:],  # type: ignore[misc]
                f"{reader.site.name} gets the last of {name}",
            )
        for writer, reader in self.pairs():
            self._check_events(writer, reader, counted)
            self._check_requests(writer, reader)

    def _check_events(self, writer: Entry, reader: Entry, counted: bool) -> None:
        name = writer.site.name
        got, lost = reader.got[name], reader.lost[name]
        where = f"from {name} to {reader.site.name}"
        assert all(a < b for a, b in pairwise(got)), f"doubled {where}: {got}"
        missing = writer.published - len(got)
        assert missing <= lost or not counted, f"{where}: {missing} missing, {lost} counted"
        assert missing >= lost or not counted, f"{where}: {missing} missing, {lost} counted"

    def _check_requests(self, writer: Entry, reader: Entry) -> None:
        source = f"writer@{writer.site.name}"
        assert set(reader.served[source].values()) <= {1}, "a request was served twice"
        assert set(reader.done[source].values()) <= {1}, "a command was done twice"
        assert (
            sum(writer.asked.values())
            == len(writer.answered) + sum(count for name, count in writer.failed.items())
            or "NoRoute" in writer.failed
        )

    def all_well(self) -> None:
        """Nothing was lost, and nothing has failed."""
        for writer, reader in self.pairs():
            assert reader.lost[writer.site.name] == 0
            assert not writer.failed, writer.failed
