"""What an endpoint offers, as its interests describe it."""

from __future__ import annotations

from itertools import groupby

from shmbus.shared.patterns import overlaps

from .facts import EndpointInfo, ServiceInfo


def services_of(endpoint: EndpointInfo, pattern: str = ">") -> list[ServiceInfo]:
    """Its services by name, with those methods that the pattern matches."""
    found = [
        interest.method
        for interest in endpoint.interests
        if interest.method is not None and overlaps(pattern, interest.pattern)
    ]
    found.sort(key=lambda method: (method.service, method.interface, method.name))
    return [
        ServiceInfo(name=name, endpoint=endpoint.name, interface=interface, methods=tuple(methods))
        for (name, interface), methods in groupby(found, lambda m: (m.service, m.interface))
    ]
