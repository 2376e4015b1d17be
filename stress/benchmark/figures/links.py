"""Buses joined by links, over loopback: against zenoh itself doing the same, and NATS; and what a
link costs a bus's own traffic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmark.claims import Bench, Claim, Figure, Sample, ratio, within
from benchmark.peers import PEERS
from benchmark.peers.row import ONE_WAY, REQUEST
from benchmark.roles import ends, links
from benchmark.roles.program import free_port
from benchmark.stage import Role, perform

HERE, THERE = "here", "there"
BATCH = 100
MESSAGES = 1_000_000


def _two_sites(bench: Bench, congestion: str = "drop_newest") -> tuple[str, str, list[Role]]:
    """Two buses, each with a link to the other, which takes and gives all; who plays them."""
    here, there, port = bench.bus(), bench.bus(), free_port()
    ways: dict[str, dict[str, Any]] = {
        HERE: {"connect": [f"tcp/127.0.0.1:{port}"]},
        THERE: {"listen": [f"tcp/127.0.0.1:{port}"]},
    }
    roles = []
    for site, bus, peer in ((HERE, here, THERE), (THERE, there, HERE)):
        config = {
            "site": site,
            "space": here,
            "export": [">"],
            "import": [">"],
            "congestion": congestion,
            **ways[site],
        }
        roles += [
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
            Role(links.linked, (bus, config, peer), supporting=True),
        ]
    return here, there, roles


def link_flood(bench: Bench, batch: int | None = None) -> Sample:
    """Nothing is lost: where the other side is behind, the sender waits, as at the others."""
    here, there, roles = _two_sites(bench, "block")
    flood = bench.flood(MESSAGES)
    cpu, rate = perform(
        [
            Role(ends.sender, (here, flood, batch)),
            Role(ends.receiver, (there, flood)),
            *roles,
        ]
    )
    return {"rate": rate, "cpu": cpu}


def link_requests(bench: Bench) -> Sample:
    here, there, roles = _two_sites(bench)
    (latency,) = perform(
        [
            *roles,
            Role(ends.replier, (there,), supporting=True),
            Role(ends.requester, (here, bench.scale.seconds)),
        ]
    )
    sample: Sample = latency._asdict()
    return sample


def _linked_and_alone(bench: Bench) -> tuple[tuple[str, str], list[Role]]:
    """A bus with a link, and one without; who plays them."""
    linked, _, roles = _two_sites(bench)
    alone = bench.bus()
    roles.append(Role(ends.dispatcher, (alone, bench.settings), supporting=True))
    return (linked, alone), roles


def local_flood(bench: Bench) -> Sample:
    buses, roles = _linked_and_alone(bench)
    flood = bench.flood(2_000_000)
    (linked, alone), _ = perform(
        [
            Role(links.turning_sender, (buses, flood)),
            Role(links.turning_receiver, (buses, flood)),
            *roles,
        ]
    )
    return {"linked": linked, "alone": alone}


def local_requests(bench: Bench) -> Sample:
    buses, roles = _linked_and_alone(bench)
    ((linked, alone),) = perform(
        [
            *roles,
            Role(links.turning_replier, (buses,), supporting=True),
            Role(links.turning_requester, (buses, bench.scale.seconds)),
        ]
    )
    return {"linked": linked, "alone": alone}


def _zenoh(bench: Bench, figure: str) -> Sample:
    """Two sessions in two processes, over loopback."""
    from benchmark.peers import zenoh

    where = f"tcp/127.0.0.1:{free_port()}"
    if figure == REQUEST:
        return zenoh.requests(bench, where)
    return zenoh.one_way(bench, where, MESSAGES)


def _others(bench: Bench, figure: str) -> dict[str, Callable[[], Sample]]:
    """Those that are there: what links are made of, and a server in the middle."""
    there = {peer.name: peer for peer in PEERS if peer.absent() is None}
    others: dict[str, Callable[[], Sample]] = {}
    if "zenoh" in there:
        others["zenoh"] = partial(_zenoh, bench, figure)
    if "nats" in there:
        others["nats"] = partial(there["nats"].rows()[0].figures[figure], bench)
    return others


def _oneway(bench: Bench) -> Figure:
    return Figure(
        "link_oneway",
        {
            "link": partial(link_flood, bench),
            "link, batches": partial(link_flood, bench, BATCH),
            **_others(bench, ONE_WAY),
        },
        [
            Claim(
                "one-way rate through two buses and their links / zenoh itself",
                ratio("link", "zenoh", "rate"),
                0.7,
            ),
            Claim(
                f"one-way rate through two buses and their links, batches of {BATCH} / zenoh "
                "itself, single messages",
                ratio("link, batches", "zenoh", "rate"),
                1.0,
            ),
        ],
    )


def _requests(bench: Bench) -> Figure:
    return Figure(
        "link_requests",
        {"link": partial(link_requests, bench), **_others(bench, REQUEST)},
        [
            Claim(
                "request p50 through two buses and their links / a query of zenoh itself",
                ratio("link", "zenoh", "p50"),
                1.6,
                at_most=True,
            )
        ],
    )


def _local(bench: Bench) -> Figure:
    """Two runs differ by more than what is claimed; turns in one run do not."""
    claims = []
    for variant, what in (("one-way", "one-way rate"), ("requests", "request p50")):
        text = f"{what} on a bus with a link / without, in turns (equal within 3 % of noise)"
        measured = within(variant, "linked", "alone")
        claims += [
            Claim(text, measured, 0.97),
            Claim(text, measured, 1.03, at_most=True),
        ]
    return Figure(
        "link_local",
        {"one-way": partial(local_flood, bench), "requests": partial(local_requests, bench)},
        claims,
    )


def figures(bench: Bench) -> list[Figure]:
    if all(peer.name != "zenoh" or peer.absent() for peer in PEERS):
        return []  # links need it
    return [_oneway(bench), _requests(bench), _local(bench)]
