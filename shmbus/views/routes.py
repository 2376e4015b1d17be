"""Whom on other sites a link would pass a message on to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from shmbus.shared.patterns import Interest, Receiver, Route, covers, specificity

from .facts import EndpointInfo
from .sites import Noted

FAR = float("inf")


class _Candidate(NamedTuple):
    """An interest of an endpoint of another site, by which it may get the message."""

    site: str
    interest: Interest


def across(route: Route, links: Mapping[str, Noted]) -> Route:
    """The route with the endpoints of other sites in the place of the links that would pass the
    message on to them. ``links``: what each notes, by its name.

    An event goes to each of them with a plain subscription. What one of several gets goes to the
    nearest site with somebody who takes it; there it goes to whom that bus chooses.
    """
    found: list[Receiver] = []
    done: set[tuple[str, str, str | None]] = set()
    joined = {r.group for r in route.receivers if r.endpoint in links}
    for receiver in route.receivers:
        noted = links.get(receiver.endpoint)
        if noted is None:
            found.append(receiver)
            continue
        this = receiver.endpoint, receiver.role, receiver.group
        if this not in done:  # else it matches by another pattern, too
            done.add(this)
            found += list(_beyond(receiver, noted, route.type, joined)) or [receiver]
    return replace(route, receivers=tuple(found))


def handlers(noted: Noted, type: str) -> list[EndpointInfo]:
    """The endpoints of other sites of which one gets a request of this type, those of the nearest
    site first: of each site those that handle it by the most specific pattern there."""
    able: dict[str, dict[tuple[int, ...], list[EndpointInfo]]] = {}
    for endpoint in noted.endpoints():
        found = [i for i in endpoint.interests if i.role == "handle" and covers(i.pattern, type)]
        if found:
            best = min(specificity(i.pattern) for i in found)
            able.setdefault(endpoint.site or "", {}).setdefault(best, []).append(endpoint)
    far = _far(noted)
    sites = sorted(able, key=lambda site: (far.get(site, FAR), site))
    return [e for site in sites for e in sorted(able[site][min(able[site])], key=lambda e: e.name)]


def _far(noted: Noted) -> dict[str, float]:
    """Seconds to each site and back."""
    return {
        site.name: FAR if site.round_trip is None else site.round_trip for site in noted.sites()
    }


def _beyond(link: Receiver, noted: Noted, type: str, joined: set[str | None]) -> Iterator[Receiver]:
    """Who gets a message elsewhere that the link gets as this receiver."""
    matching = [
        _Candidate(e.site or "", i)
        for e in noted.endpoints()
        for i in e.interests
        if i.role == link.role and covers(i.pattern, type)
    ]
    far = _far(noted)
    if link.role == "subscribe" and link.group is None:
        for each in matching:
            if each.interest.group is None:
                yield _receiver(each, link, link.chosen, f"subscribes, over {link.endpoint}")
        for site, group in sorted({(m.site, m.interest.group or "") for m in matching}):
            if group and group not in joined:  # each site's has its own copy
                alike = [m for m in matching if (m.site, m.interest.group) == (site, group)]
                yield from _one_of(alike, link, {site: far.get(site, FAR)}, f"group {group}: ")
        return
    taking = [m for m in matching if m.interest.group == link.group]
    yield from _one_of(taking, link, far, f"group {link.group}: " if link.group else "")


def _one_of(
    candidates: list[_Candidate], link: Receiver, far: Mapping[str, float], what: str
) -> Iterator[Receiver]:
    """These, of whom one gets it if the link does."""
    near = sorted({each.site for each in candidates}, key=lambda site: (far.get(site, FAR), site))
    ranked = sorted(
        candidates,
        key=lambda c: (near.index(c.site), specificity(c.interest.pattern), c.interest.endpoint),
    )
    for each in ranked:
        first, chosen = ranked[0], each is ranked[0]
        if not link.chosen:
            reason = link.reason
        elif chosen:
            reason = f"{what}{_nearest(near, far)}, over {link.endpoint}"
        elif each.site != first.site:
            reason = f"{what}{first.site} is nearer"
        elif each.interest.group or each.interest.pattern == first.interest.pattern:
            reason = f"{what}in turn after {first.interest.endpoint}"
        else:
            reason = f"{first.interest.pattern} is more specific"
        yield _receiver(each, link, link.chosen and chosen, reason)


def _nearest(near: list[str], far: Mapping[str, float]) -> str:
    if len(near) == 1:
        return "the only site"
    away = far.get(near[0], FAR)
    return f"the nearest of {len(near)} sites" + ("" if away == FAR else f", {away * 1e3:.3g} ms")


def _receiver(each: _Candidate, link: Receiver, chosen: bool, reason: str) -> Receiver:
    return Receiver(
        endpoint=each.interest.endpoint,
        pattern=each.interest.pattern,
        role=link.role,
        group=each.interest.group,
        chosen=chosen,
        reason=reason,
        waits=link.waits,
        site=each.site,
    )
