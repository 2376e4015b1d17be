"""The figures, by kind: each file plays its variants and says what is claimed of them."""

from __future__ import annotations

from benchmark.claims import Bench, Figure

from . import (
    aio,
    events,
    executor,
    frames,
    gathering,
    grants,
    idle,
    late,
    links,
    many,
    newest,
    oneway,
    outstanding,
    queues,
    requests,
    streams,
    supervised,
    typing,
    work,
)

KINDS = (
    requests,
    outstanding,
    gathering,
    streams,
    aio,
    work,
    oneway,
    many,
    grants,
    late,
    events,
    frames,
    newest,
    typing,
    supervised,
    executor,
    queues,
    links,
    idle,
)


def every(bench: Bench) -> list[Figure]:
    return [figure for kind in KINDS for figure in kind.figures(bench)]
