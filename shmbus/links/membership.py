"""Which sites are up: by their tokens. No input or output, and no clock: signs go in, changes come
out."""

from __future__ import annotations

from typing import NamedTuple

from . import keys


class Up(NamedTuple):
    """A link of another site is there."""

    site: str
    run: str


class Down(NamedTuple):
    """It is not there any more."""

    site: str
    run: str
    reason: str
    """``restarted`` where another run of it is, else ``gone``."""


class Rival(NamedTuple):
    """Another link has this site's name."""

    run: str
    there: bool
    """False: it has ended."""


Change = Up | Down | Rival


class Membership:
    """As one link sees it."""

    def __init__(self, site: str, run: str) -> None:
        self._site, self._run = site, run
        self._runs: dict[str, list[str]] = {}
        self.refused: dict[str, str] = {}
        """Sites whose links speak another version of the wire, with that."""

    def sign(self, key: str, there: bool) -> list[Change]:
        """A token has come, or has gone."""
        token = keys.read_token(key)
        if token is None:
            return []
        if token.wire != str(keys.WIRE):
            if there:
                self.refused[token.site] = token.wire
            else:
                self.refused.pop(token.site, None)
            return []
        if token.site == self._site:
            return [] if token.run == self._run else [Rival(token.run, there)]
        return self._come(token) if there else self._gone(token)

    def _come(self, token: keys.Token) -> list[Change]:
        """The run that came last counts."""
        runs = self._runs.setdefault(token.site, [])
        if token.run in runs:
            return []
        changes: list[Change] = [Down(token.site, runs[-1], "restarted")] if runs else []
        runs.append(token.run)
        return [*changes, Up(token.site, token.run)]

    def _gone(self, token: keys.Token) -> list[Change]:
        runs = self._runs.get(token.site, [])
        if token.run not in runs:
            return []
        counted = runs[-1] == token.run
        runs.remove(token.run)
        if not runs:
            del self._runs[token.site]
        if not counted:
            return []
        changes: list[Change] = [Down(token.site, token.run, "gone")]
        return [*changes, Up(token.site, runs[-1])] if runs else changes


def rival(site: str, run: str, found: list[str]) -> str | None:
    """Another run of this site among these keys of tokens."""
    tokens = (keys.read_token(key) for key in found)
    return next((t.run for t in tokens if t and t.site == site and t.run != run), None)
