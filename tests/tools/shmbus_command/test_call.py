"""Methods of services, called and described from the shell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shmbus_command import arguments
from shmbus_console import schemas

import shmbus
from shmbus.views import MethodInfo

from .conftest import Ran

Command = Callable[..., Ran]


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    name: str


class Calculator:
    def add(self, a: int, b: Annotated[int, msgspec.Meta(ge=0)] = 2) -> int:
        """The sum of two numbers."""
        return a + b

    def move(self, point: Point, *, by: list[int] = [1, 2], far: bool = False) -> Point:  # noqa: B006
        return Point(point.x + by[0] * (10 if far else 1), point.y + by[1])

    def show(self, value: Any = None) -> str:
        return repr(value)

    def text(self, text: str, other: str | None = None) -> str:
        return f"{text!r} {other!r}"

    def raw(self, data: bytes) -> bytes:
        return data[::-1]

    def level(self, level: Literal["low", "high"]) -> str:
        return level

    def count(self, up_to: int) -> Iterator[int]:
        yield from range(up_to)

    def known(self, id: UUID, price: Decimal = Decimal(1), at: datetime | None = None) -> str:
        return f"{id} {price} {at}"

    def pet(self, pet: Cat | Dog, where: dict[str, tuple[int, str]] = {}) -> Cat | Dog:  # noqa: B006
        return pet

    def fail(self) -> None:
        raise ValueError("no")


@pytest.fixture
def server(bus: shmbus.Bus) -> Iterator[shmbus.Endpoint]:
    with bus.attach("server") as server:
        server.offer(Calculator(), "calc")
        server.handle("plain.one", lambda message: 1)
        server.start()
        yield server


@pytest.fixture
def call(bus: shmbus.Bus, server: shmbus.Endpoint, shmbus_command: Command) -> Command:
    return lambda *words: shmbus_command("call", "-b", bus.name, *words)


def test_a_method_that_yields_prints_each_part(call: Command) -> None:
    assert call("calc.count", "up_to=3") == Ran(0, "0\n1\n2\n", "")
    assert call("calc.count", "up_to=0").out == ""


@pytest.mark.smoke
def test_a_method_is_called_with_arguments_by_name(call: Command) -> None:
    assert call("calc.add", "a=1") == Ran(0, "3\n", "")
    assert call("calc.add", "a=1", "b=5").out == "6\n"
    assert call("calc.add", '{"a": 1, "b": 5}').out == "6\n"
    assert call("calc.move", 'point={"x": 1}', "by=[2,3]").json == {"x": 3, "y": 3}
    assert call("calc.move", 'point={"x":1}', "far=true").json == {"x": 11, "y": 2}
    assert call("calc.level", "level=high").out == "high\n"
    found = call("calc.add", "a=1", "--json").json
    assert (found["type"], found["source"], found["payload"]) == ("calc.add", "server", 3)


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["calc.text", "text=5"], "'5' None"),
        (["calc.text", "text=null", "other=null"], "'null' None"),
        (["calc.text", 'text="x"', 'other="null"'], "'\"x\"' 'null'"),
        (["calc.text", "text=a=b", "other=5"], "'a=b' '5'"),
        (["calc.show", "value=5"], "5"),
        (["calc.show", "value=five"], "'five'"),
        (["calc.show", "value=[true]"], "[True]"),
        (["calc.show"], "None"),
        (["calc.raw", "data=YWJj"], "cba"),
        (["calc.known", f"id={UUID(int=5)}", "price=1.50"], f"{UUID(int=5)} 1.50 None"),
        (["calc.pet", 'pet={"type":"Cat","lives":9}'], '{"type":"Cat","lives":9}'),
        (["calc.pet", '{"pet":{"type":"Dog","name":"x"},"where":{"a":[1,"b"]}}'], '{"type":"Dog"'),
    ],
)
def test_what_is_typed_is_read_by_its_schema(call: Command, words: list[str], out: str) -> None:
    ran = call(*words)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(out)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["calc.add"], "calc.add: argument a is missing (integer)"),
        (["calc.add", "a=x"], 'calc.add: argument a: expected integer, got "x"'),
        (["calc.add", "a=true"], "calc.add: argument a: expected integer, got true"),
        (["calc.add", "a=1", "b=-1"], "calc.add: argument b: expected integer (>= 0), got -1"),
        (["calc.add", "a=1", "c=2"], "calc.add has no argument 'c': there is a, b"),
        (["calc.move", "pint=1"], "calc.move has no argument 'pint': perhaps point"),
        (["calc.add", '{"a":1,"c":2}'], "calc.add has no argument 'c'"),
        (["calc.add", "1", "2"], "'1' is neither NAME=VALUE nor a JSON object"),
        (["calc.add", "a=1", "a=2"], "argument a is given twice"),
        (["calc.add", '{"a":1}', "b=2"], "give one JSON object, or arguments as NAME=VALUE"),
        (["calc.add", '{"a"'], "is not JSON"),
        (["calc.move", "point=1"], "argument point: expected {x: integer, y: integer = 0}, got 1"),
        (["calc.move", 'point={"y":1}'], "argument point.x is missing (integer)"),
        (["calc.move", 'point={"x":"a"}'], 'argument point.x: expected integer, got "a"'),
        (["calc.move", 'point={"x":1}', 'by=[1,"2"]'], 'argument by[1]: expected integer, got "2"'),
        (["calc.level", "level=middle"], 'argument level: expected "high" | "low", got "middle"'),
        (["calc.raw", "data=%%"], "argument data: expected base64 string"),
        (["calc.known", "id=5"], "argument id: expected uuid, got"),
        (
            ["calc.known", f"id={UUID(int=5)}", "at=soon"],
            "argument at: Invalid RFC3339",
        ),
        (["calc.pet", 'pet={"type":"Cow"}'], "argument pet: expected Cat | Dog, got"),
        (["calc.pet", 'pet={"type":"Cat","lives":"x"}'], "argument pet.lives: expected integer"),
        (["calc.pet", 'pet={"type":"Dog","name":"x","n":1}'], "argument pet has no field 'n'"),
        (["calc.pet", 'pet={"type":"Cat","lives":9}', 'where={"a":[1]}'], "argument where.a: expe"),
        (["calc.ad", "a=1"], "no endpoint offers 'calc.ad': perhaps calc.add"),
        (
            ["plain.one"],
            "server handles 'plain.one' and does not say what it takes",
        ),
        (
            ["nothing.at.all"],
            "no endpoint offers 'nothing.at.all': there is calc.add, calc.count, calc.fail",
        ),
        (["calc.*"], "'calc.*' is not a message type"),
    ],
)
def test_what_does_not_fit_is_named_and_ends_with_2(
    call: Command, words: list[str], why: str
) -> None:
    ran = call(*words)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert ran.err.count("\n") == 1


def test_nothing_is_sent_that_does_not_fit(call: Command, server: shmbus.Endpoint) -> None:
    call("calc.add", "a=x")
    (mine,) = [e for e in server.bus.endpoints() if e.name == "server"]
    assert mine.received.requests == 0


def test_a_method_that_fails_ends_with_1(call: Command) -> None:
    ran = call("calc.fail")
    assert ran.code == 1
    assert "ValueError: no" in ran.err
    assert call("calc.fail", "--json").json["error"]["class"] == "RemoteError"


# fmt: off
WORDS = [
    "type", "properties", "required", "items", "prefixItems", "$ref", "$defs", "anyOf", "enum",
    "const", "minimum", "pattern", "multipleOf", "format", "default", "discriminator", "a",
]
# fmt: on
ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            below | st.sampled_from(["object", "array", "#/$defs/a"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


def read_all(schema: Any) -> None:
    """Read it in every way."""
    method = MethodInfo(
        service="calc", name="add", interface="", arguments=schema, result=schema, summary="x"
    )
    assert schemas.signature(method).startswith("calc.add(")
    schemas.definitions(method)
    for words in (["a=1"], ["a=x"], ['{"a": {"a": [1]}}'], []):
        with suppress(arguments.Unfit):
            arguments.read(method, words)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=4))
def test_no_schema_that_another_program_wrote_does_harm(schema: Any) -> None:
    read_all(schema)
    read_all({"type": "object", "properties": {"a": schema}, "required": "ab"})


def test_neither_do_schemas_that_have_no_end() -> None:
    deep: Any = {"type": "integer"}
    for _ in range(900):
        deep = {"type": "array", "items": deep}
    circle = {"a": {"$ref": "#/$defs/a"}}
    for one in (deep, circle["a"]):
        read_all({"type": "object", "properties": {"a": one}, "$defs": circle})


def test_methods_and_their_arguments_are_completed(
    bus: shmbus.Bus, server: shmbus.Endpoint, complete: Callable[..., str]
) -> None:
    assert complete("call", "-b", bus.name, "calc.a").split() == ["plain,calc.add"]
    words = ("call", "-b", bus.name, "calc.move")
    assert complete(*words, "").split() == ["plain,point=", "plain,by=", "plain,far="]
    assert complete(*words, "by=[1,2]", "").split() == ["plain,point=", "plain,far="]
    assert complete(*words, "far=").split() == ["plain,far=true", "plain,far=false"]
    assert complete("call", "-b", bus.name, "calc.level", "level=l") == "plain,level=low\n"
    assert complete("call", "-b", bus.name, "calc.nothing", "").strip() == ""
    assert complete("call", "-b", "no-such-bus", "calc").strip() == ""


def test_describe_tells_what_is_offered(
    bus: shmbus.Bus, server: shmbus.Endpoint, shmbus_command: Command
) -> None:
    for words in (["describe", "-b", bus.name], ["describe", "-b", bus.name, "server"]):
        out = shmbus_command(*words).out
        for line in (
            "    calc.add(a: integer, b: integer (>= 0) = 2) -> integer  The sum of two numbers.\n",
            "    calc.move(point: Point, by: array of integer = [1,2], far: boolean = false) -> ",
            "    calc.pet(pet: Cat | Dog, where: object of [integer, string] = {}) -> Cat | Dog\n",
            '      Cat: {type: "Cat", lives: integer}\n',
            "      Point: {x: integer, y: integer = 0}\n",
        ):
            assert line in out
    found = shmbus_command("describe", "-b", bus.name, "server", "--json").json
    (add,) = [i["method"] for i in found["interests"] if i["pattern"] == "calc.add"]
    assert add["summary"] == "The sum of two numbers."
    assert add["arguments"]["properties"]["b"] == {"type": "integer", "minimum": 0, "default": 2}
    assert add["arguments"]["required"] == ["a"]
