"""Source files and an index of the words in them, by which the bus's result is checked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_SUFFIXES = {".c", ".cc", ".cpp", ".cs", ".go", ".h", ".hpp", ".java", ".js", ".kt", ".lua"}
_SUFFIXES |= {".php", ".pl", ".py", ".pyi", ".pyx", ".rb", ".rs", ".sh", ".swift", ".ts"}
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "dist-packages"}
_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")


def find(root: Path) -> Iterator[Path]:
    """The source files below a directory, always in the same order; hidden directories and
    installed packages are left out."""
    for directory, below, files in os.walk(root):
        below[:] = sorted(b for b in below if b not in _SKIPPED and not b.startswith("."))
        for file in sorted(files):
            path = Path(directory, file)
            if path.suffix in _SUFFIXES and path.is_file() and os.access(path, os.R_OK):
                yield path


def tokenise(content: bytes) -> list[str]:
    """The words of a source file, each once, sorted."""
    return sorted(word.decode("ascii") for word in set(_WORD.findall(content)))


class Index:
    """Which word is in which files. Idempotent by file: adding it again changes nothing."""

    def __init__(self) -> None:
        self.files: dict[str, list[str]] = {}
        self._of: dict[str, set[str]] = {}

    def add(self, path: str, words: list[str]) -> None:
        for word in self.files.get(path, ()):
            self._of[word].discard(path)
        self.files[path] = words
        for word in words:
            self._of.setdefault(word, set()).add(path)

    def search(self, text: str) -> list[str]:
        """The files that have all of these words."""
        found = [self._of.get(word, set()) for word in text.split()]
        return sorted(set.intersection(*found)) if found else []

    def words(self) -> list[str]:
        return sorted(word for word, files in self._of.items() if files)

    def digest(self) -> str:
        """A hash, equal for two indexes that have the same words in the same files."""
        whole = hashlib.sha256()
        for path in sorted(self.files):
            whole.update(f"{path}\n{' '.join(self.files[path])}\n".encode())
        return whole.hexdigest()
