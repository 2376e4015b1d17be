"""Frames of requests that are lost on the way while both sites stay."""

from __future__ import annotations

import pytest

import shmbus
from shmbus import errors
from shmbus.links import ends, keys
from shmbus.links.session import Session
from shmbus.shared.frames import Bytes
from shmbus.testing import eventually
from tests.links.stage import Stage, meet, mesh


class Hole:
    """Swallows the next frames of a lane."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lanes: list[str] = []
        put = Session.put

        def put_or_not(session: Session, key: str, head: bytes, payload: Bytes) -> None:
            lane = key.split("/")[6]
            if lane in self.lanes:
                self.lanes.remove(lane)
            else:
                put(session, key, head, payload)

        monkeypatch.setattr(Session, "put", put_or_not)
        monkeypatch.setattr(ends, "LONGEST", 0.05)


@pytest.fixture
def hole(monkeypatch: pytest.MonkeyPatch) -> Hole:
    return Hole(monkeypatch)


@pytest.fixture
def asker(stage: Stage, hole: Hole) -> shmbus.Endpoint:
    """An endpoint at one site; one at another handles what it asks."""
    here, there = stage.sites("here", "there")
    mesh(here, there)
    meet(here, there)
    worker, asker = there.attach("worker"), here.attach("asker")
    for type in ("lost", "other"):
        worker.handle(type, lambda m: m.payload)
    worker.start()
    for type in ("lost", "other"):
        asker.wait_for(type, timeout=60)
    return asker


@pytest.mark.parametrize(
    ("lane", "error"),
    [
        (
            "request",
            errors.EndpointDied(
                type="lost",
                endpoint="@link@there",
                reason="the request was lost on its way there",
                begun=False,
            ),
        ),
        (
            "reply",
            errors.ReplyLost(
                type="lost", endpoint="worker@there", reason="it was lost between the sites"
            ),
        ),
    ],
)
def test_what_is_lost_ends_a_request_once_that_is_known(
    asker: shmbus.Endpoint, hole: Hole, lane: str, error: errors.BusError
) -> None:
    hole.lanes = [lane]
    with pytest.raises(error.__class__) as caught:  # though no frame follows
        asker.request("lost", 1, timeout=60)
    assert caught.value.data == error.data
    assert asker.request("other", 2, timeout=60).payload == 2


def test_a_request_to_a_site_that_lost_sight_of_the_other_for_a_moment_ends(stage: Stage) -> None:
    here, there = stage.sites("here", "there")
    mesh(here, there)
    meet(here, there)
    worker, asker = there.attach("worker"), here.attach("asker")
    kept = list[shmbus.Message]()

    def keep(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    worker.handle("kept", keep)
    worker.start()
    asker.wait_for("kept", timeout=60)
    waiting = asker.request_async("kept", None, timeout=60)
    eventually(lambda: kept)
    assert here.link is not None
    assert there.link is not None
    token = keys.token(stage.space, "here", here.link.status().run)
    there.link._call(lambda node: node.space.take_signs([(token, False), (token, True)]))
    with pytest.raises(errors.EndpointDied) as caught:
        waiting.result()
    assert caught.value.endpoint == "@link@there"
    assert here.sees() == {"there"}
