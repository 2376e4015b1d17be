"""Types of one's own: the hooks of `attach(encode=, decode=)`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus import Message
from shmbus.errors import BusError, DecodeError, EncodeError, InvalidSetting, RemoteError
from shmbus.testing import Attach


class Reading(msgspec.Struct):
    """Holds what msgspec does not know."""

    value: Fraction


def encode(value: Any) -> Any:
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    raise NotImplementedError(f"{type(value).__name__} is no number of ours")


def decode(wanted: Any, sent: Any) -> Any:
    assert wanted is Fraction
    return Fraction(*sent)


@pytest.fixture
def endpoint(bus: shmbus.Bus, attach: Attach) -> shmbus.Endpoint:
    return attach("e", encode=encode, decode=decode)


HALF = Fraction(1, 2)


@pytest.mark.smoke
def test_a_type_of_one_s_own_comes_as_it_was_sent(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("value", payload_type=Fraction)
    endpoint.subscribe("reading", payload_type=Reading)
    endpoint.subscribe("plain")
    endpoint.publish("value", HALF)
    endpoint.publish("reading", Reading(HALF))
    endpoint.publish_many([("value", Fraction(2, 3))])
    with endpoint.batch() as batch:
        batch.publish("value", Fraction(3, 4))
    endpoint.publish("plain", {"value": HALF})
    messages = [endpoint.receive(timeout=5.0) for _ in range(5)]
    came = [message.payload for message in messages if message is not None]
    assert came == [HALF, Reading(HALF), Fraction(2, 3), Fraction(3, 4), {"value": [1, 2]}]


def test_requests_and_commands_and_their_replies_go_through_the_hooks(
    endpoint: shmbus.Endpoint,
) -> None:
    done: list[Fraction] = []
    endpoint.handle("half", lambda message: message.payload / 2, payload_type=Fraction)
    endpoint.handle("keep", lambda message: done.append(message.payload), payload_type=Fraction)
    endpoint.start()
    endpoint.send("keep", HALF)
    assert endpoint.request("half", HALF, reply_type=Fraction).payload == Fraction(1, 4)
    assert done == [HALF]
    reply = endpoint.request_async("half", HALF, reply_type=Fraction).result()
    assert reply.payload == Fraction(1, 4)
    for each in endpoint.request_many([("half", HALF)] * 3, reply_type=Fraction):
        assert not isinstance(each, BusError)
        assert each.payload == Fraction(1, 4)


def test_types_that_attach_registers_and_annotations_name_are_given_to_the_hook(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach("e", encode=encode, decode=decode, types={"registered": Fraction})
    came: list[Fraction] = []

    def annotated(message: Message[Fraction]) -> None:
        came.append(message.payload)

    endpoint.subscribe("annotated", annotated)
    endpoint.subscribe("registered")
    endpoint.publish("annotated", HALF)
    endpoint.publish("registered", HALF)
    message = endpoint.receive(5.0)
    assert message is not None
    assert message.payload == HALF
    assert came == [HALF]


def test_an_endpoint_s_hooks_are_its_own(endpoint: shmbus.Endpoint, attach: Attach) -> None:
    other = attach("other")
    other.subscribe("value", payload_type=Fraction)
    with pytest.raises(EncodeError, match="encode="):
        other.publish("value", HALF)
    endpoint.publish("value", HALF)
    message = other.receive(5.0)
    assert message is not None
    with pytest.raises(DecodeError, match="Fraction"):
        message.payload  # noqa: B018


def test_a_tap_sees_what_was_sent_in_place_of_the_value(
    endpoint: shmbus.Endpoint, attach: Attach
) -> None:
    observer = attach("observer")
    observer.tap("value")
    endpoint.publish("value", HALF)
    message = observer.receive(5.0)
    assert message is not None
    assert message.payload == [1, 2]


def test_what_a_hook_raises_is_told_with_the_message_s_type_and_only_asked_once(
    bus: shmbus.Bus, attach: Attach
) -> None:
    asked: list[Any] = []

    def refuse(wanted: Any, sent: Any) -> Any:
        asked.append(sent)
        raise LookupError(f"no {wanted.__name__} today")

    endpoint = attach("e", encode=encode, decode=refuse)
    endpoint.subscribe("value", payload_type=Fraction)
    with pytest.raises(EncodeError, match=r"'value'.*NotImplementedError: object is no number"):
        endpoint.publish("value", object())
    endpoint.publish("value", HALF)
    message = endpoint.receive(5.0)
    assert message is not None
    with pytest.raises(DecodeError, match=r"'value'.*LookupError: no Fraction today") as failed:
        message.payload  # noqa: B018
    assert isinstance(failed.value.__cause__, LookupError)
    assert asked == [[1, 2]]


def test_a_reply_that_the_hook_refuses_fails_the_request(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("bad", lambda message: object())
    endpoint.start()
    with pytest.raises(RemoteError, match="no number of ours"):
        endpoint.request("bad")


def _interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_ctrl_c_in_a_hook_ends_the_call_and_nothing_else(bus: shmbus.Bus, attach: Attach) -> None:
    interrupt = True

    def encode_now(value: Any) -> Any:
        return _interrupted() if interrupt else encode(value)

    def decode_now(wanted: Any, sent: Any) -> Any:
        return _interrupted() if interrupt else decode(wanted, sent)

    endpoint = attach("e", encode=encode_now, decode=decode_now)
    endpoint.subscribe("value", payload_type=Fraction)
    for send in (endpoint.publish, endpoint.send, endpoint.request):
        with pytest.raises(KeyboardInterrupt):
            send("value", HALF)
    interrupt = False
    endpoint.publish("value", HALF)
    message = endpoint.receive(5.0)
    assert message is not None
    interrupt = True
    with pytest.raises(KeyboardInterrupt):
        message.payload  # noqa: B018
    interrupt = False
    assert message.payload == HALF


def test_ctrl_c_while_a_reply_is_encoded_fails_the_request(bus: shmbus.Bus, attach: Attach) -> None:
    server = attach("server", encode=_interrupted)
    server.handle("half", lambda message: HALF)
    reply = attach("client").request_async("half", timeout=20.0)
    with pytest.raises(KeyboardInterrupt):
        server.run()
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        reply.result()


def test_a_hook_may_use_the_endpoint(bus: shmbus.Bus, attach: Attach) -> None:
    def tell(value: Any) -> Any:
        worker.publish("told", [str(value)])
        return encode(value)

    worker = attach("e", encode=tell, decode=decode)
    worker.subscribe("told")
    worker.subscribe("value", payload_type=Fraction)
    worker.publish("value", HALF)
    assert [m.payload for m in worker.receive_many(2, timeout=5.0)] == [["1/2"], HALF]


async def _later(value: Any) -> Any:
    return value


@pytest.mark.parametrize("hook", [3, _later])
@pytest.mark.parametrize("which", ["encode", "decode"])
def test_what_is_no_hook_is_refused(bus: shmbus.Bus, which: str, hook: Callable[..., Any]) -> None:
    with pytest.raises(InvalidSetting, match=which):
        shmbus.attach(bus.name, **{which: hook})  # type: ignore[arg-type]
