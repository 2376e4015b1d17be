"""What may cross, and under which names, compared with a model that tries every type."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from shmbus.links.rules import Rename, Rules, meet, widest
from shmbus.shared.patterns import covers

TYPES = [".".join(tokens) for n in (1, 2, 3) for tokens in product("ab", repeat=n)]
"""All types of at most three tokens over two letters."""

tokens = st.sampled_from(["a", "b", "*"])
patterns = st.builds(
    lambda first, last: ".".join(first + last),
    st.lists(tokens, min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
) | st.just(">")
prefixes = st.lists(st.sampled_from("ab"), min_size=1, max_size=2).map(".".join)


def renames(draw: st.DrawFn) -> list[Rename]:
    local = draw(st.lists(prefixes, max_size=2, unique=True))
    space = draw(st.lists(prefixes, min_size=len(local), max_size=len(local), unique=True))
    return [Rename(local=one, space=two) for one, two in zip(local, space, strict=True)]


rules = st.builds(
    Rules,
    st.lists(patterns, max_size=2),
    st.lists(patterns, max_size=2),
    st.composite(renames)(),
)


def of(pattern: str) -> set[str]:
    """The types that it matches."""
    return {type for type in TYPES if covers(pattern, type)}


@given(patterns, patterns)
def test_two_patterns_meet_in_the_types_that_both_match(one: str, two: str) -> None:
    both = meet(one, two)
    assert (set() if both is None else of(both)) == of(one) & of(two)


@given(st.lists(patterns))
def test_the_widest_patterns_match_what_all_do(found: list[str]) -> None:
    kept = widest(found)
    assert set().union(*map(of, kept)) == set().union(*map(of, found))
    assert not any(covers(a, b) for a in kept for b in kept if a != b)


@given(rules)
def test_no_two_types_have_one_name_in_the_space(rules: Rules) -> None:
    names = [there for type in TYPES if (there := rules._renamed(type)) is not None]
    assert len(names) == len(set(names))


@given(rules)
def test_what_goes_out_has_its_own_name_when_it_comes_back(rules: Rules) -> None:
    for type in TYPES:
        there = rules.outward(type)
        assert there is None or rules._named_back(there) == type


@given(rules, patterns)
def test_others_are_asked_for_all_that_is_wanted_and_may_come_in(
    rules: Rules, pattern: str
) -> None:
    asked = rules.wanted(pattern)
    for there in TYPES:
        here = rules.inward(there)
        if here is not None and covers(pattern, here):
            assert any(covers(each, there) for each in asked)


@given(rules, patterns)
def test_all_that_others_want_and_may_go_out_is_subscribed_to(rules: Rules, pattern: str) -> None:
    offered = rules.offered(pattern)
    for type in TYPES:
        there = rules.outward(type)
        if there is not None and covers(pattern, there):
            assert any(covers(each, type) for each in offered)


@settings(max_examples=25)  # each tries all types
@given(rules, patterns)
def test_nothing_is_subscribed_to_that_may_not_go_out(rules: Rules, pattern: str) -> None:
    for each in rules.offered(pattern):
        for type in of(each):
            assert any(covers(exported, type) for exported in rules._exports)


def test_the_buss_own_types_never_cross() -> None:
    rules = Rules([">"], [">"])
    assert rules.outward("$bus.lost") is rules.inward("$bus.lost") is None
    assert meet(">", "$bus.lost") is None
