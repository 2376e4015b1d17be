"""The table of careless changes, changes.toml, and what must be true of it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = Path(__file__).with_name("changes.toml")


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One careless change of one file."""

    name: str
    file: str
    before: str
    """Text that occurs exactly once in the file."""
    after: str
    breaks: str
    """The promise that it breaks."""
    tests: tuple[str, ...] = ()
    """Those that notice it: files, or tests as pytest names them."""
    harmless: str = ""
    """Why nobody could notice it; empty: somebody must."""

    def applied(self, text: str) -> str:
        """The text of its file with the change."""
        return text.replace(self.before, self.after)


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    change: list[Change]


def changes(table: Path = TABLE) -> list[Change]:
    """All of the table. Raises `msgspec.ValidationError` where it is malformed."""
    return msgspec.toml.decode(table.read_bytes(), type=_Table).change


def faults(change: Change, root: Path = ROOT) -> Iterator[str]:
    """What is wrong with an entry: mend it, or delete it where the code has gone."""
    path = root / change.file
    times = path.read_text().count(change.before) if path.is_file() else 0
    if times != 1:
        yield f"its text `before` occurs {times} times in {change.file}, not once"
    if change.before == change.after:
        yield "it changes nothing"
    if not change.tests and not change.harmless:
        yield "it names no test, and no reason why it is harmless"
    for test in change.tests:
        if not there(test, root):
            yield f"there is no test {test}"


def there(test: str, root: Path = ROOT) -> bool:
    """Whether a test is there, as far as its source shows. Those of the C programs are named
    `...::test_promise[plain-NAME]`."""
    file, _, name = test.partition("::")
    if not (root / file).exists():
        return False
    if promise := re.search(r"\[(?:plain|sanitized|threads)-(\w+)\]$", name):
        return promise[1] in _promises(root)
    function = name.partition("[")[0]
    return not name or re.search(rf"\bdef {function}\(", (root / file).read_text()) is not None


@functools.cache
def _promises(root: Path) -> frozenset[str]:
    sources = (root / "tests" / "native").glob("*.c")
    return frozenset(
        name
        for source in sources
        for name in re.findall(r"^TEST\((\w+)\)", source.read_text(), re.M)
    )
