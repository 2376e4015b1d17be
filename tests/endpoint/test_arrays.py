"""Arrays of numpy as payloads."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import shmbus
from shmbus.errors import DecodeError, EncodeError
from shmbus.testing import Attach


class Scene(msgspec.Struct):
    image: NDArray[np.uint8]
    name: str
    masks: list[np.ndarray[Any, np.dtype[Any]]] = []


@pytest.fixture
def ends(bus: shmbus.Bus, attach: Attach) -> tuple[shmbus.Endpoint, shmbus.Endpoint]:
    sender, receiver = attach("sender"), attach("receiver")
    receiver.subscribe("plain")
    return sender, receiver


Ends = tuple[shmbus.Endpoint, shmbus.Endpoint]


def sent(ends: Ends, payload: Any, type: str = "plain") -> Any:
    """What arrives."""
    sender, receiver = ends
    sender.publish(type, payload)
    message = receiver.receive(60)
    assert message is not None
    return message.payload


@pytest.mark.smoke
def test_an_array_comes_as_it_was_sent_aligned_and_read_only(ends: Ends) -> None:
    array = np.arange(24, dtype=">f4").reshape(2, 3, 4)
    found = sent(ends, array)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert found.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        found.flags.writeable = True


def test_arrays_lie_within_structs_lists_and_dicts(ends: Ends) -> None:
    ends[1].subscribe("scene", payload_type=Scene)
    scene = Scene(np.eye(3, dtype=np.uint8), "eye", [np.zeros(2), np.ones((2, 1), order="F")])
    found = sent(ends, scene, "scene")
    assert isinstance(found, Scene)
    assert np.array_equal(found.image, scene.image)
    assert [mask.tolist() for mask in found.masks] == [[0, 0], [[1], [1]]]
    found = sent(ends, {"images": [scene.image], "n": np.int64(3)})
    assert found["n"] == 3
    assert np.array_equal(found["images"][0], scene.image)


def test_objects_in_an_array_are_refused_with_the_remedy(ends: Ends) -> None:
    with pytest.raises(EncodeError, match=r"tolist\(\)"):
        ends[0].publish("plain", np.array([None, {}]))


def test_an_array_of_another_dtype_than_the_receiver_names_is_refused(ends: Ends) -> None:
    ends[1].subscribe("floats", payload_type=NDArray[np.float32])
    assert sent(ends, np.zeros(2, np.float32), "floats").tolist() == [0, 0]
    ends[0].publish("floats", np.zeros(2))
    message = ends[1].receive(60)
    assert message is not None
    with pytest.raises(DecodeError, match="float32"):
        message.payload  # noqa: B018
