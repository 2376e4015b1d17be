"""zenoh's configuration, from a link's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from . import access
from .config import LinkConfig

_THREADS = (
    "(net: (worker_threads: 1), acc: (handover: net), rx: (handover: net), tx: (handover: net))"
)


def use_one_thread() -> None:
    """Have zenoh, in this process, do all that goes over the network in one thread, unless the
    environment says how many it uses. As a rule it has several, and hands each frame from one to
    another: waking them takes longer than what they do. Before its first session."""
    os.environ.setdefault("ZENOH_RUNTIME", _THREADS)


def settings(config: LinkConfig, listening: Sequence[str]) -> dict[str, Any]:
    """Values by their keys; what the user gave for zenoh overrides. `listening`: in place of
    `LinkConfig.listen`, with the ports that were chosen."""
    lease = int(config.detection * 1000)
    values: dict[str, Any] = {
        "mode": config.mode,
        "listen/endpoints": list(listening),
        "connect/endpoints": list(config.connect),
        "connect/exit_on_failure": False,
        "connect/timeout_ms": 0 if config.mode == "client" else -1,  # else it tries once alone
        "connect/retry": {
            "period_init_ms": 100,
            "period_max_ms": max(1000, lease),
            "period_increase_factor": 2,
        },
        "scouting/multicast/enabled": config.scout,
        "transport/link/tx/lease": lease,
        "transport/shared_memory/enabled": False,
    }
    if config.private and not config.insecure:
        # Others tell of nodes that it then connects to: to none in plain.
        values["transport/link/protocols"] = ["tls", "quic"]
    if config.tls is not None:
        tls = config.tls
        values["transport/link/tls"] = {
            "root_ca_certificate": tls.ca,
            "enable_mtls": True,  # who connects shows a certificate, too
            "listen_certificate": tls.certificate,
            "listen_private_key": tls.key,
            "connect_certificate": tls.certificate,
            "connect_private_key": tls.key,
            "close_link_on_expiration": True,
        }
    if config.auth is not None:
        values["transport/auth/usrpwd"] = {
            "user": config.auth.user,
            "password": config.auth.password,
            "dictionary_file": config.auth.users,
        }
    if config.access:
        by = "usernames" if config.tls is None else "cert_common_names"
        values["access_control"] = access.control(config.space, config.access, by)
    return values | config.zenoh
