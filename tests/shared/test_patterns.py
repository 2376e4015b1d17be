"""Patterns: which types they match, which of them is most specific, and who gets a message.

The models here are independent of the code: regular expressions for matching, enumeration of all
short types for what two patterns have in common.
"""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmbus.errors import InvalidPattern, InvalidType
from shmbus.shared import patterns
from shmbus.shared.patterns import (
    Interest,
    Receiver,
    Route,
    covers,
    matches,
    overlaps,
    route,
    specificity,
)

TOKENS = ["a", "b"]
FIRST = [*TOKENS, "$a"]
UNIVERSE = [
    ".".join(tokens)
    for length in range(1, 6)
    for tokens in itertools.product(FIRST, *[[*TOKENS, "c"]] * (length - 1))
] + ["c", "c.a", "$c", "c.c.c"]

token = st.sampled_from(TOKENS)
types = st.builds(
    lambda first, rest: ".".join([first, *rest]),
    st.sampled_from(FIRST),
    st.lists(token, max_size=4),
)
some_patterns = st.builds(
    lambda first, rest, tail: ".".join([first, *rest, *tail]),
    st.sampled_from([*FIRST, "*"]),
    st.lists(st.sampled_from([*TOKENS, "*"]), max_size=3),
    st.sampled_from([[], [">"]]),
) | st.just(">")


def model(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression."""
    parts = []
    for i, piece in enumerate(pattern.split(".")):
        any_token = r"[^.$][^.]*" if i == 0 else r"[^.]+"
        if piece == "*":
            parts.append(any_token)
        elif piece == ">":
            parts.append(rf"{any_token}(?:\.[^.]+)*")
        else:
            parts.append(re.escape(piece))
    return re.compile(r"\.".join(parts) + r"\Z")


@given(some_patterns, types)
def test_a_pattern_matches_what_its_regular_expression_matches(pattern: str, type: str) -> None:
    assert matches(pattern, type) == bool(model(pattern).match(type))


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("pattern", "type", "expected"),
    [
        ("buffer.12.changed", "buffer.12.changed", True),
        ("buffer.*.changed", "buffer.12.changed", True),
        ("buffer.*", "buffer.12.changed", False),
        ("buffer.>", "buffer.12.changed", True),
        ("buffer.>", "buffer", False),
        ("*", "buffer", True),
        (">", "buffer.12", True),
        (">", "$bus.endpoint.up", False),
        ("*.endpoint.up", "$bus.endpoint.up", False),
        ("$bus.>", "$bus.endpoint.up", True),
        ("$bus.*.up", "$bus.endpoint.up", True),
    ],
)
def test_the_documented_examples(pattern: str, type: str, expected: bool) -> None:
    assert matches(patterns.check_pattern(pattern), type) is expected


@given(some_patterns, some_patterns)
def test_overlap_means_that_some_type_is_matched_by_both(one: str, two: str) -> None:
    both = any(model(one).match(t) and model(two).match(t) for t in UNIVERSE)
    assert overlaps(one, two) == overlaps(two, one) == both


@given(some_patterns, some_patterns)
def test_cover_means_that_every_type_of_the_other_is_matched(one: str, two: str) -> None:
    every = all(model(one).match(t) for t in UNIVERSE if model(two).match(t))
    assert covers(one, two) == every


@given(types, st.lists(some_patterns, min_size=2, max_size=6, unique=True))
def test_of_all_that_match_one_is_the_most_specific(type: str, candidates: list[str]) -> None:
    found = [p for p in candidates if model(p).match(type)]
    keys = [specificity(p) for p in found]
    assert len(set(keys)) == len(keys)
    for one, two in itertools.combinations(found, 2):
        a, b = one.split("."), two.split(".")
        i = next(i for i in range(min(len(a), len(b))) if a[i] != b[i])
        rank = ["*", ">"]
        first = (
            one
            if (rank.index(a[i]) + 1 if a[i] in rank else 0)
            < (rank.index(b[i]) + 1 if b[i] in rank else 0)
            else two
        )
        assert min((one, two), key=specificity) == first


@given(st.from_regex(r"[A-Za-z0-9_-]{1,9}(\.[A-Za-z0-9_-]{1,9}){0,9}", fullmatch=True))
def test_tokens_between_dots_are_a_type_and_a_pattern(type: str) -> None:
    assert patterns.check_type(type) == patterns.check_pattern(type) == type
    assert matches(type, type)


@given(some_patterns)
def test_wildcards_in_their_places_are_a_pattern(pattern: str) -> None:
    assert patterns.check_pattern(pattern) == pattern


@given(st.text(max_size=300) | st.text("ab.*>$", max_size=8))
def test_whatever_is_refused_is_told_why(text: str) -> None:
    sound = re.compile(r"[A-Za-z0-9_-]+\Z")
    tokens = text.split(".")
    is_type = len(text) <= 255 and all(sound.match(t) for t in tokens)
    if is_type:
        assert patterns.check_type(text) == text
    else:
        with pytest.raises(InvalidType) as bad_type:
            patterns.check_type(text)
        assert bad_type.value.type == text
        assert bad_type.value.reason
    tokens[0] = tokens[0].removeprefix("$")
    if text[:2] in ("$*", "$>"):
        tokens[0] = "$"
    body, last = tokens[:-1], tokens[-1]
    is_pattern = (
        len(text) <= 255
        and all(t == "*" or sound.match(t) for t in body)
        and (last in ("*", ">") or bool(sound.match(last)))
    )
    if is_pattern:
        assert patterns.check_pattern(text) == text
    else:
        with pytest.raises(InvalidPattern) as bad_pattern:
            patterns.check_pattern(text)
        assert bad_pattern.value.pattern == text
        assert bad_pattern.value.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("a..b", "it has an empty token"),
        ("a.>.b", "'>' stands only at the end"),
        ("a.b*", "it has the character '*' in the token 'b*'"),
        ("a.$b", "it has the character '$' in the token '$b'"),
        ("a.b c", "it has the character ' ' in the token 'b c'"),
        ("a\n", "it has the character '\\n' in the token 'a\\n'"),
        ("ä", "it has the character 'ä' in the token 'ä'"),
        ("$", "'$' needs a name"),
        ("x" * 256, "it has 256 characters, the limit is 255"),
        (None, "it is of type NoneType"),
    ],
)
def test_a_bad_pattern_is_told_why(text: str, reason: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        patterns.check_pattern(text)
    assert caught.value.reason == reason


def test_nobody_publishes_a_wildcard_or_for_the_bus() -> None:
    with pytest.raises(InvalidType, match="'\\*' is for patterns"):
        patterns.check_type("buffer.*")
    with pytest.raises(InvalidType, match="only the bus publishes"):
        patterns.check_type("$bus.endpoint.up")


def subscription(endpoint: str, pattern: str, group: str | None = None) -> Interest:
    return Interest(endpoint=endpoint, pattern=pattern, group=group)


def handler(endpoint: str, pattern: str) -> Interest:
    return Interest(endpoint=endpoint, pattern=pattern, role="handle")


def reasons(found: Route) -> dict[tuple[str, str], tuple[bool, str]]:
    return {(r.endpoint, r.pattern): (r.chosen, r.reason) for r in found.receivers}


def test_an_event_reaches_every_plain_subscriber_once() -> None:
    found = route(
        "a.b", [subscription("x", "a.*"), subscription("y", "a.b"), subscription("x", "a.>")]
    )
    assert found.subscribers == ("x", "y")
    assert found.handler is None
    assert [r.chosen for r in found.receivers] == [True, True, True]


def test_a_group_gets_an_event_once_whatever_pattern_matched() -> None:
    interests = [
        subscription("x", "a.*", "g"),
        subscription("y", "a.b", "g"),
        subscription("x", "a.b", "other"),
    ]
    found = route("a.b", interests, load={"x": 3, "y": 1}.__getitem__)
    assert found.subscribers == ("y", "x")
    assert reasons(found)["y", "a.b"] == (True, "group g: the least loaded free one")
    assert reasons(found)["x", "a.*"] == (False, "group g: more loaded than y")
    assert reasons(found)["x", "a.b"] == (True, "group other: the only one")


def test_a_request_goes_to_the_most_specific_pattern_though_it_is_busier() -> None:
    interests = [handler("x", "a.>"), handler("y", "a.*"), handler("z", "a.b"), handler("w", "a.b")]
    load = {"x": 0, "y": 0, "z": 5, "w": 9}
    found = route("a.b", interests, load=load.__getitem__)
    assert found.handler == "z"
    assert reasons(found) == {
        ("z", "a.b"): (True, "most specific pattern: the least loaded free one"),
        ("w", "a.b"): (False, "more loaded than z"),
        ("y", "a.*"): (False, "a.b is more specific"),
        ("x", "a.>"): (False, "a.b is more specific"),
    }
    assert found.receivers[0].chosen


def test_who_is_not_free_is_not_chosen_and_where_nobody_is_the_message_waits() -> None:
    interests = [handler("x", "a.b"), handler("y", "a.b"), subscription("z", "a.b", "g")]
    load = {"x": 0, "y": 7, "z": 0}
    busy = {"x": "not fit: stalled or slow"}
    found = route("a.b", interests, load=load.__getitem__, why_not_free=lambda n: busy.get(n, ""))
    assert found.handler == "y"
    assert reasons(found)["x", "a.b"] == (False, "not fit: stalled or slow")
    assert not any(r.waits for r in found.receivers)
    busy |= {"y": "not free: much to do", "z": "not free"}
    found = route("a.b", interests, load=load.__getitem__, why_not_free=lambda n: busy.get(n, ""))
    assert (found.handler, found.subscribers) == (None, ())
    assert all(r.waits for r in found.receivers)
    waits = "waits in the backlog until one is free; "
    assert reasons(found)["y", "a.b"] == (False, f"{waits}not free: much to do")
    assert reasons(found)["z", "a.b"] == (False, f"group g: {waits}not free")


def test_a_single_handler_is_chosen_whatever_it_has_to_do() -> None:
    found = route("a.b", [handler("x", "a.b")], why_not_free=lambda name: "not free")
    assert found.handler == "x"


@pytest.mark.parametrize("names", [("x",), ("x", "y")])
def test_behind_others_that_wait_for_the_same_endpoints_a_message_waits(
    names: tuple[str, ...],
) -> None:
    handlers = [handler(name, "a.b") for name in names]
    found = route("a.b", handlers, waiting={(None, names)})
    assert found.handler is None
    assert all(r.waits and r.reason.endswith("others wait already") for r in found.receivers)
    assert route("a.b", handlers, waiting={("g", names)}).handler == "x"
    assert route("a.b", handlers, waiting={(None, ("w", *names))}).handler == "x"


def test_those_alike_take_turns() -> None:
    found = route("a.b", [handler("x", "a.b"), handler("y", "a.b")])
    assert [r.reason for r in found.receivers] == [
        "most specific pattern: in turn with its likes",
        "in turn after x",
    ]


def test_who_is_here_comes_before_links_and_these_before_keepers() -> None:
    interests = [
        *(handler(name, pattern) for name, pattern in (("x", ">"), ("@l", "a.b"), ("@@l", "a.b"))),
        *(subscription(name, "a.b", "g") for name in ("x", "@l", "@@l")),
        *(subscription(name, "a.*") for name in ("x", "@l", "@@l")),
    ]
    for name in ("x", "@l"):
        found = route("a.b", interests)
        assert found.handler == name
        plain = [r.endpoint for r in found.receivers if r.chosen and r.pattern == "a.*"]
        assert plain == [n for n in ("x", "@l") if n in {i.endpoint for i in interests}]
        assert [r.endpoint for r in found.receivers if r.chosen and r.group] == [name]
        assert reasons(found)["@@l", "a.b"] == (False, f"{name} comes first")
        assert reasons(found)["@@l", "a.*"] == (False, "keeps only what one of several gets")
        interests = [i for i in interests if i.endpoint != name]
    found = route("a.b", interests)
    assert (found.handler, found.subscribers) == ("@@l", ("@@l",))
    assert route("a.b", interests, relayed=True).receivers == ()


names_of_all = st.sampled_from(["v", "w", "x", "@y", "@z", "@@y"])
interest_lists = st.lists(
    st.builds(
        Interest,
        endpoint=names_of_all,
        pattern=some_patterns,
        role=st.sampled_from(["subscribe", "handle"]),
        group=st.sampled_from([None, "g", "h"]),
    ).map(lambda i: handler(i.endpoint, i.pattern) if i.role == "handle" else i),
    max_size=8,
)


@given(types, interest_lists, st.dictionaries(names_of_all, st.integers(0, 3)), st.booleans())
def test_a_route_keeps_the_rules(
    type: str, interests: list[Interest], loads: dict[str, int], relayed: bool
) -> None:
    def load(name: str) -> int:
        return loads.get(name, 0)

    found = route(type, interests, load=load, relayed=relayed)
    matching = [
        i for i in interests if model(i.pattern).match(type) and not (relayed and "@" in i.endpoint)
    ]
    assert sorted((r.endpoint, r.pattern, r.role, r.group or "") for r in found.receivers) == (
        sorted((i.endpoint, i.pattern, i.role, i.group or "") for i in matching)
    )
    for r in found.receivers:
        if r.role == "subscribe" and r.group is None:
            assert r.chosen == (r.endpoint != "@@y")

    def lowest(of: list[Receiver]) -> list[Receiver]:
        rank = min((r.endpoint.count("@") for r in of), default=0)
        return [r for r in of if r.endpoint.count("@") == rank]

    def chosen(of: list[Receiver]) -> set[str]:
        return {r.endpoint for r in of if r.chosen}

    for group in ("g", "h"):
        members = lowest([r for r in found.receivers if r.group == group])
        if members:
            (best,) = chosen(members)
            assert load(best) == min(load(r.endpoint) for r in members)
    handlers = lowest([r for r in found.receivers if r.role == "handle"])
    assert (found.handler is None) == (not handlers)
    if handlers:
        (best,) = chosen(handlers)
        top = min((r.pattern for r in handlers), key=specificity)
        rivals = [r for r in handlers if r.pattern == top]
        assert load(best) == min(load(r.endpoint) for r in rivals)
        assert best in {r.endpoint for r in rivals}
