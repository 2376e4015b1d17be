"""One end of a conversation with a core: calls both ways, answers, and lines that are none."""

from __future__ import annotations

from typing import Any

import pytest
from xi_bridge.rpc import INVALID_REQUEST, Malformed, Peer, RpcError


class Ends:
    """Two ends that talk with each other, and what each is told and asked."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.answers: list[tuple[Any, RpcError | None]] = []
        self.lines: list[bytes] = []
        self.front = Peer(self.to_core, self.hear, self.serve)
        self.core = Peer(self.to_front, self.hear, self.serve)

    def to_core(self, line: bytes) -> None:
        self.lines.append(line)
        self.core.receive(line)

    def to_front(self, line: bytes) -> None:
        self.lines.append(line)
        self.front.receive(line)

    def hear(self, method: str, params: Any) -> None:
        self.told.append((method, params))

    def serve(self, number: int, method: str, params: Any) -> None:
        if method == "fail":
            raise RpcError(7, "cannot", {"why": params})
        if method == "new_view":
            self.core.answer(number, "view-id-1")
        if method == "measure_width":
            self.front.answer(number, [[8.0]])

    def answered(self, result: Any, error: RpcError | None) -> None:
        self.answers.append((result, error))


def test_both_ends_tell_and_ask_each_other() -> None:
    ends = Ends()
    ends.front.notify("client_started", {})
    ends.core.notify("available_themes", {"themes": ["plain"]})
    ends.front.request("new_view", {}, ends.answered)
    ends.core.request("measure_width", [{"id": 0, "strings": ["m"]}], ends.answered)
    assert ends.told == [("client_started", {}), ("available_themes", {"themes": ["plain"]})]
    assert ends.answers == [("view-id-1", None), ([[8.0]], None)]
    assert ends.lines[0] == b'{"method":"client_started","params":{}}\n'
    assert ends.lines[2:4] == [
        b'{"id":0,"method":"new_view","params":{}}\n',
        b'{"id":0,"result":"view-id-1"}\n',
    ]


def test_an_error_has_its_code_its_message_and_its_data() -> None:
    ends = Ends()
    ends.front.request("fail", 3, ends.answered)
    ((result, error),) = ends.answers
    assert result is None
    assert error is not None
    assert (error.code, error.message, error.data) == (7, "cannot", {"why": 3})
    assert str(error) == "cannot: {'why': 3}"


def test_answers_are_matched_by_number_in_whatever_order_they_come() -> None:
    lines: list[bytes] = []
    peer = Peer(lines.append, lambda *call: None, lambda *call: None)
    got: list[tuple[str, Any]] = []
    for name in ("first", "second"):
        peer.request(name, None, lambda result, error, name=name: got.append((name, result)))  # type: ignore[misc]
    assert peer.open == {0: "first", 1: "second"}
    peer.receive(b'{"id":1,"result":null}')
    peer.receive(b'{"id":0,"result":5}')
    assert got == [("second", None), ("first", 5)]
    assert peer.open == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "malformed"),
        (b'"text"', "Expected `object`, got `str`"),
        (b"{}", "neither a method nor an id"),
        (b'{"id":9,"result":1}', "no request 9 is open"),
        (b'{"id":0}', "either a result or an error"),
        (b'{"id":0,"result":1,"error":2}', "either a result or an error"),
        (b'{"method":5}', "Expected `str`, got `int`"),
        (b'{"method":"\xff"}', "UTF-8"),
    ],
)
def test_a_malformed_line_says_what_is_wrong_and_changes_nothing(line: bytes, reason: str) -> None:
    peer = Peer(lambda line: None, lambda *call: None, lambda *call: None)
    answers: list[Any] = []
    peer.request("get_config", {}, lambda result, error: answers.append(result))
    with pytest.raises(Malformed, match=reason):
        peer.receive(line)
    assert answers == []
    peer.receive(b'{"id":0,"result":1}')
    assert answers == [1]


def test_an_error_that_is_no_object_is_an_error_all_the_same() -> None:
    peer = Peer(lambda line: None, lambda *call: None, lambda *call: None)
    errors: list[RpcError | None] = []
    peer.request("new_view", {}, lambda result, error: errors.append(error))
    peer.receive(b'{"id":0,"error":"no"}')
    assert [str(error) for error in errors] == ["no"]


def test_when_the_other_end_is_gone_what_is_open_ends_with_the_error() -> None:
    peer = Peer(lambda line: None, lambda *call: None, lambda *call: None)
    errors: list[RpcError | None] = []
    peer.request("new_view", {}, lambda result, error: errors.append(error))
    gone = RpcError(INVALID_REQUEST, "the core has ended")
    peer.close(gone)
    peer.request("new_view", {}, lambda result, error: errors.append(error))
    assert errors == [gone, gone]


def test_an_answer_that_nobody_waits_for_any_more_is_passed_over() -> None:
    peer = Peer(lambda line: None, lambda *call: None, lambda *call: None)
    answers: list[Any] = []
    number = peer.request("new_view", {}, lambda result, error: answers.append(result))
    peer.forget(number)
    peer.receive(b'{"id":0,"result":"late"}')
    assert answers == []
