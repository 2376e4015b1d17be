"""Settings of views: defaults, and what users set over them for all, a language or a view."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

DEFAULTS: dict[str, Any] = {
    "tab_size": 4,
    "translate_tabs_to_spaces": True,
    "use_tab_stops": True,
    "plugin_search_path": [],
    "font_face": "InconsolataGo",
    "font_size": 14,
    "line_ending": "\n",
    "auto_indent": False,
    "scroll_past_end": False,
    "wrap_width": 0,
    "word_wrap": False,
    "autodetect_whitespace": False,
    "surrounding_pairs": [['"', '"'], ["'", "'"], ["{", "}"], ["[", "]"]],
    "save_with_newline": True,
}
LANGUAGES = {
    ".c": "C",
    ".h": "C",
    ".json": "JSON",
    ".md": "Markdown",
    ".py": "Python",
    ".rs": "Rust",
    ".toml": "TOML",
}
PLAIN = "Plain Text"


def language_of(path: str | None) -> str:
    return LANGUAGES.get(PurePath(path or "").suffix, PLAIN)


class Settings:
    """The tables that users have changed, by domain."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Any]] = {}

    def change(self, domain: str | dict[str, str], changes: dict[str, Any]) -> None:
        """Set these; what is null goes back to what it was."""
        if isinstance(domain, dict):
            ((kind, of),) = domain.items()
            domain = f"{kind}:{of.lower()}"
        table = self._tables.setdefault(domain, {})
        for key, value in changes.items():
            if value is None:
                table.pop(key, None)
            else:
                table[key] = value

    def of(self, view: str, language: str) -> dict[str, Any]:
        made = dict(DEFAULTS)
        for domain in ("general", f"syntax:{language.lower()}", f"user_override:{view}"):
            made |= self._tables.get(domain, {})
        return made
