"""Who has what of a pool, in words."""

from __future__ import annotations

from shmbus.options import sized
from shmbus.views import Pool


def held_by(pool: Pool) -> str:
    """Who looks at payloads in a pool, and who has not taken those for it."""
    holders, untaken = (", ".join(map(str, found)) for found in (pool.holders, pool.untaken))
    waits = f"not taken by {untaken}" if untaken else ""
    kept = f"values that are kept ({sized(pool.kept)})" if pool.kept else ""
    return "; ".join(filter(None, (holders, kept, waits)))
