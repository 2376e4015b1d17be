"""A class served on a bus, and called through it with the same signatures."""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import shmbus
from shmbus.errors import HandlerConflict, InvalidArguments, InvalidResult, InvalidService
from shmbus.testing import Attach, StartWorker


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Calculator:
    """Computes."""

    calls = 0

    def add(self, a: int, b: int = 2) -> int:
        """The sum of two numbers.

        Really."""
        return a + b

    def move(self, point: Point, *, by: list[int] = [1, 1], back: bool = False) -> Point:  # noqa: B006
        sign = -1 if back else 1
        return Point(point.x + sign * by[0], point.y + sign * by[1])

    def echo(self, value=None):  # type: ignore[no-untyped-def]
        return value

    def reset(self) -> None:
        self.calls = 0

    def fail(self) -> None:
        raise KeyError("it")

    def wrong(self) -> dict[str, int]:
        return {"total": "many"}  # type: ignore[dict-item]  # on purpose

    @staticmethod
    def version() -> str:
        return "1"

    @classmethod
    def name(cls, upper: bool = False) -> str:
        return cls.__name__.upper() if upper else cls.__name__

    @functools.lru_cache  # noqa: B019
    def cached(self, n: int) -> int:
        return n

    @property
    def precision(self) -> int:
        raise AssertionError("nobody asks")

    def _hidden(self) -> None: ...


class Exact(Calculator):
    def add(self, a: int, b: int = 2) -> int:
        return 10 * super().add(a, b)

    def extra(self) -> int:
        return 1


Server = shmbus.Endpoint
Client = shmbus.Endpoint


@pytest.fixture
def server(bus: shmbus.Bus, attach: Attach) -> Server:
    return attach("server")


@pytest.fixture
def client(bus: shmbus.Bus, attach: Attach) -> Client:
    return attach("client")


@pytest.fixture
def calculator(server: Server, client: Client) -> Calculator:
    server.offer(Calculator(), "calc")
    server.start()
    return client.client(Calculator, "calc", timeout=60)


@pytest.mark.smoke
def test_a_method_is_called_as_if_the_object_were_here(calculator: Calculator) -> None:
    assert calculator.add(1) == 3
    assert calculator.add(1, 4) == 5
    assert calculator.add(b=1, a=1) == 2
    assert calculator.move(Point(1), by=[2, 3]) == Point(3, 3)
    assert calculator.move(point=Point(1, 1), back=True) == Point(0, 0)
    assert calculator.reset() is None  # type: ignore[func-returns-value]
    assert (calculator.version(), calculator.name(upper=True)) == ("1", "CALCULATOR")
    assert calculator.cached(3) == 3


def test_without_annotations_plain_values_pass(calculator: Calculator) -> None:
    for value in (None, 1, "text", b"bytes", [1, {"a": None}], 2.5, True):
        assert calculator.echo(value) == value  # type: ignore[no-untyped-call]
    assert calculator.echo(Point(1)) == {"x": 1, "y": 0}  # type: ignore[no-untyped-call]


def test_what_a_method_raises_reaches_the_caller(calculator: Calculator) -> None:
    with pytest.raises(shmbus.RemoteError) as caught:
        calculator.fail()
    assert (caught.value.type, caught.value.error) == ("calc.fail", "KeyError")
    assert type(caught.value) is shmbus.RemoteError


def test_only_public_methods_are_there(calculator: Calculator) -> None:
    assert dir(calculator) == [
        *("add", "cached", "echo", "fail", "move", "name", "reset", "version", "wrong")
    ]
    for name in ("precision", "_hidden", "calls", "nothing"):
        with pytest.raises(AttributeError, match=rf"service 'calc' has no method '{name}': Calc"):
            getattr(calculator, name)
    assert calculator.add.__doc__ == inspect.getdoc(Calculator.add)
    assert "calc" in repr(calculator)


class Adds(Protocol):
    def add(self, a: int, b: int = 2) -> int: ...


class Moves(abc.ABC):
    @abc.abstractmethod
    def move(self, point: Point, *, back: bool = False) -> Point: ...


def test_a_protocol_or_an_abstract_class_is_enough_to_call(
    calculator: Calculator, client: Client
) -> None:
    adds: Adds = client.client(Adds, "calc", timeout=60)
    moves: Moves = client.client(Moves, "calc", timeout=60)
    assert adds.add(1) == 3
    assert moves.move(Point(1)) == Point(2, 1)


def test_inherited_methods_are_served_as_the_object_has_them(
    server: Server, client: Client
) -> None:
    server.offer(Exact(), "calc")
    server.start()
    assert client.client(Calculator, "calc").add(1) == 30
    assert client.client(Exact, "calc").extra() == 1


def test_a_service_ends_when_what_offered_it_is_closed(server: Server, client: Client) -> None:
    server.start()
    calculator = client.client(Calculator, "calc", timeout=60)
    with server.offer(Calculator(), "calc") as offered:
        assert offered.pattern == "calc"
        assert calculator.add(1) == 3
        with pytest.raises(HandlerConflict):
            server.offer(Calculator(), "calc")
    with pytest.raises(shmbus.NoRoute):
        calculator.add(1)
    server.offer(Exact(), "calc")
    assert calculator.add(1) == 30


def test_an_object_with_a_method_that_is_handled_is_not_offered_in_part(
    server: Server, client: Client
) -> None:
    server.handle("calc.name", lambda message: "me")
    server.start()
    with pytest.raises(HandlerConflict, match=r"calc\.name"):
        server.offer(Calculator(), "calc")
    with pytest.raises(shmbus.NoRoute):
        client.client(Calculator, "calc").add(1)
    assert client.client(Calculator, "calc").name() == "me"


def test_a_method_may_be_a_command_that_is_handed_on(server: Server, client: Client) -> None:
    done: list[int] = []

    class Jobs:
        def work(self, n: int) -> None:
            done.append(n)

    server.offer(Jobs(), "jobs", redeliver=True)
    server.start()
    client.send("jobs.work", {"n": 7})
    client.client(Jobs, "jobs").work(8)
    assert done == [7, 8]


def test_a_call_may_be_made_again_and_a_method_may_have_a_limit(
    server: Server, client: Client
) -> None:
    tried: list[int] = []
    hang = threading.Event()

    class Flaky:
        def work(self) -> int:
            tried.append(1)
            if len(tried) == 1:
                hang.wait(60)
            return len(tried)

    server.offer(Flaky(), "flaky", limit=0.05)
    server.start(threads=2)
    again = shmbus.Retry(attempts=2, on=(shmbus.HandlerTimeout,))
    assert client.client(Flaky, "flaky", timeout=60, retry=again).work() == 2
    hang.set()
    with pytest.raises(shmbus.errors.InvalidSetting):
        client.client(Flaky, "flaky", retry=3)  # type: ignore[arg-type]


def test_a_method_may_see_the_message_that_calls_it(server: Server, client: Client) -> None:
    class Asked:
        def who(self, a: int, message: shmbus.Message | None = None, *, b: int = 2) -> str:
            assert message is not None
            return f"{message.source} {message.attempt} {a} {b}"

        def later(self, message: shmbus.Message) -> int:
            message.defer()
            message.reply(7)
            return 0

    class Asks(Protocol):
        def who(self, a: int, *, b: int = 2) -> str: ...
        def later(self) -> int: ...

    server.offer(Asked(), "asked")
    server.start()
    asks: Asks = client.client(Asks, "asked", timeout=60)
    assert asks.who(1, b=3) == "client 1 1 3"
    assert asks.later() == 7
    same = client.client(Asked, "asked", timeout=60)
    assert same.who(1) == "client 1 1 2"
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'message'"):
        same.who(1, message=None)
    (service,) = client.bus.services()
    for method in service.methods:
        assert "message" not in method.arguments["properties"]


# What does not fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda c: c.add("1"), "calc.add: argument a: Expected int, got str"),
        (lambda c: c.add(1, b=None), "calc.add: argument b: Expected int, got"),
        (lambda c: c.move({"y": 1}), "calc.move: argument point: Object missing required field x"),
        (lambda c: c.move({"x": "a"}), "calc.move: argument point.x: Expected int, got str"),
        (lambda c: c.move(Point(1), by=[1, "2"]), "calc.move: argument by[1]: Expected int"),
    ],
)
def test_wrong_arguments_are_refused_by_method_and_name(
    calculator: Any, call: Callable[[Any], object], text: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        call(calculator)
    assert text in str(caught.value)
    assert isinstance(caught.value, shmbus.RemoteError)
    assert caught.value.endpoint == "server"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({}, "argument a is missing"),
        (None, "the arguments: Expected object, got null"),
        (b"garbage", "the arguments: Expected object, got bytes"),
        ([1, 2], "the arguments: Expected object, got array"),
    ],
)
def test_requests_made_by_hand_are_checked_as_well(
    calculator: Calculator, client: Client, payload: object, text: str
) -> None:
    with pytest.raises(InvalidArguments, match=text):
        client.request("calc.add", payload)
    assert client.request("calc.add", {"a": 1}).payload == 3
    assert client.request("calc.version").payload == "1"


def test_arguments_that_do_not_fit_the_signature_are_a_type_error_here(calculator: Any) -> None:
    for call, text in (
        (lambda: calculator.add(), r"calc.add\(\): missing a required argument: 'a'"),
        (lambda: calculator.add(1, 2, 3), r"calc.add\(\): too many positional arguments"),
        (lambda: calculator.add(1, c=2), r"calc.add\(\): .*unexpected keyword argument 'c'"),
        (lambda: calculator.add(1, a=2), r"calc.add\(\): multiple values for argument 'a'"),
        (lambda: calculator.move(Point(1), [1, 1]), r"calc.move\(\): too many positional"),
    ):
        with pytest.raises(TypeError, match=text):
            call()  # type: ignore[no-untyped-call]


def test_a_wrong_result_is_told_by_method_and_field(calculator: Calculator) -> None:
    with pytest.raises(InvalidResult) as caught:
        calculator.wrong()
    assert "calc.wrong: result[...]: Expected int, got str" in str(caught.value)
    assert isinstance(caught.value, shmbus.errors.DecodeError)
    assert caught.value.endpoint == "server"


def test_a_service_that_calls_another_wrongly_is_not_taken_for_a_wrong_call_of_itself(
    calculator: Any, server: Server, client: Client, attach: Attach
) -> None:
    class Outer:
        def ask(self) -> int:
            found: int = calculator.add("one")
            return found

    outer = attach("outer")
    outer.offer(Outer(), "outer")
    outer.start()
    with pytest.raises(shmbus.RemoteError) as caught:
        client.client(Outer, "outer", timeout=60).ask()
    assert type(caught.value) is shmbus.RemoteError
    assert "InvalidArguments: calc.add: argument a" in str(caught.value)


# What cannot be served --------------------------------------------------------------------------


class Any_:
    def f(self, *args: int) -> None: ...


class Named:
    def f(self, **named: int) -> None: ...


class Nameless:
    def f(self, a: int, /) -> None: ...


class Selfless:
    def f() -> None: ...  # type: ignore[misc]


class LaterParts:
    async def f(self) -> AsyncIterator[int]:
        yield 1


class Lost:
    def f(self, a: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Hook:
    def f(self, a: int) -> list[Fraction]:
        return []


class Two:
    def f(self, a: Point | Calculator) -> None: ...


class Both:
    def f(self, a: Point | Other) -> None: ...


class Other(msgspec.Struct):
    x: int


class Task:
    async def f(self) -> None: ...


class Accents:
    def größe(self) -> None: ...


class Nothing:
    f = 1


@pytest.mark.parametrize(
    ("offered", "text"),
    [
        (Any_(), "svc.f cannot be offered or called: *args stands for any arguments"),
        (Named(), "svc.f cannot be offered or called: **named stands for any arguments"),
        (Nameless(), "its argument a has no name for callers"),
        (Selfless(), "it takes no self. Make it a staticmethod"),
        (LaterParts(), "it is async, and nothing here would run it. Offer it with an endpoint of"),
        (Lost(), "its annotations cannot be resolved (NameError"),
        (Hook(), "msgspec does not know the type of its result: Fraction. Attach with encode="),
        (Two(), "svc.f cannot be offered or called: its argument a: Type unions containing"),
        (Both(), "svc.f cannot be offered or called: its argument a: If a type union contains"),
        (Task(), "it is async, and nothing here would run it. Offer it with an endpoint of"),
        (Accents(), "svc.größe cannot be offered or called: 'svc.größe' is not a message type"),
        (Nothing(), "svc cannot be offered or called: Nothing has no public methods"),
        (Point, "Point is a class. Give an instance, such as Point()"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_cannot_be_served_is_refused_with_the_remedy(
    server: Server, offered: object, text: str
) -> None:
    with pytest.raises(InvalidService) as caught:
        server.offer(offered, "svc")
    assert text in str(caught.value)


def test_what_cannot_be_called_is_refused_with_the_remedy(client: Client) -> None:
    with pytest.raises(InvalidService, match=r"result: Fraction. Attach with decode="):
        client.client(Hook, "svc")
    with pytest.raises(InvalidService, match="is no class"):
        client.client(Point(1), "svc")  # type: ignore[arg-type]
    with pytest.raises(shmbus.errors.InvalidType, match="has an empty token"):
        client.client(Adds, "svc.")
    with pytest.raises(shmbus.errors.InvalidSetting):
        client.client(Adds, "svc", timeout="soon")  # type: ignore[arg-type]


# Types ------------------------------------------------------------------------------------------


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Tree:
    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: tuple[str, ...] = ()


class Types:
    """Each returns what it gets."""

    def integer(self, value: int) -> int:
        return value

    def floating(self, value: float) -> float:
        return value

    def text(self, value: str) -> str:
        return value

    def raw(self, value: bytes) -> bytes:
        return value

    def optional(self, value: int | None = 5) -> int | None:
        return value

    def literal(self, value: Literal["a", "b"]) -> Literal["a", "b"]:
        return value

    def color(self, value: Color) -> Color:
        return value

    def when(self, value: datetime) -> datetime:
        return value

    def span(self, value: timedelta) -> timedelta:
        return value

    def identifier(self, value: UUID) -> UUID:
        return value

    def money(self, value: Decimal) -> Decimal:
        return value

    def positive(self, value: Annotated[int, msgspec.Meta(gt=0)]) -> int:
        return value

    def table(self, value: dict[str, list[int]]) -> dict[str, list[int]]:
        return value

    def numbers(self, value: dict[int, set[str]]) -> dict[int, set[str]]:
        return value

    def pair(self, value: tuple[int, str]) -> tuple[int, str]:
        return value

    def tree(self, value: Tree) -> Tree:
        return value

    def animal(self, value: Cat | Dog | None) -> Cat | Dog | None:
        return value


INTEGERS = st.integers(-(2**63), 2**64 - 1)
TREES = st.recursive(
    st.builds(Tree, st.text()), lambda below: st.builds(Tree, st.text(), st.lists(below))
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "integer": INTEGERS,
    "floating": st.floats(allow_nan=False),
    "text": st.text(),
    "raw": st.binary(),
    "optional": st.none() | INTEGERS,
    "literal": st.sampled_from(["a", "b"]),
    "color": st.sampled_from(Color),
    "when": st.datetimes(),
    "span": st.timedeltas(timedelta(-1000), timedelta(1000)),
    "identifier": st.uuids(),
    "money": st.decimals(allow_nan=False, allow_infinity=False),
    "positive": st.integers(1, 2**64 - 1),
    "table": st.dictionaries(st.text(), st.lists(INTEGERS)),
    "numbers": st.dictionaries(INTEGERS, st.sets(st.text())),
    "pair": st.tuples(INTEGERS, st.text()),
    "tree": TREES,
    "animal": st.none() | st.builds(Cat, INTEGERS) | st.builds(Dog, st.tuples(st.text())),
}


def test_values_of_many_types_come_back_equal(server: Server, client: Client) -> None:
    server.offer(Types(), "types")
    server.start()
    types = client.client(Types, "types", timeout=60)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(VALUES)).flatmap(lambda n: st.tuples(st.just(n), VALUES[n])))
    def each(sent: tuple[str, Any]) -> None:
        name, value = sent
        came = getattr(types, name)(value)
        assert came == value
        assert type(came) is type(value)

    each()
    with pytest.raises(InvalidArguments, match=r"types.positive: argument value: Expected `?int"):
        types.positive(0)


def test_types_of_one_s_own_go_through_the_hooks_of_the_endpoint(
    bus: shmbus.Bus, attach: Attach
) -> None:
    def encode(value: Any) -> Any:
        return [value.numerator, value.denominator]

    def decode(wanted: Any, sent: Any) -> Any:
        return Fraction(*sent)

    class Half:
        def half(self, value: Fraction, more: list[Fraction] = []) -> Fraction:  # noqa: B006
            return (value + sum(more)) / 2

    server = attach("server", encode=encode, decode=decode)
    client = attach("client", encode=encode, decode=decode)
    server.offer(Half(), "fraction")
    server.start()
    half = client.client(Half, "fraction", timeout=60)
    assert half.half(Fraction(1, 3), [Fraction(1, 3)]) == Fraction(1, 3)


def test_arrays_need_no_hooks_and_are_shown_by_their_dtype(bus: shmbus.Bus, attach: Attach) -> None:
    class Images:
        def scaled(self, image: NDArray[np.uint8], by: np.float32) -> NDArray[np.float32]:
            return image * by

        def wrong(self) -> NDArray[np.float32]:
            return np.zeros(1)  # type: ignore[return-value]  # on purpose

    server, client = attach("server"), attach("client")
    server.offer(Images(), "images")
    server.start()
    images = client.client(Images, "images", timeout=60)
    assert images.scaled(np.eye(2, dtype=np.uint8), np.float32(2)).tolist() == [[2, 0], [0, 2]]
    with pytest.raises(InvalidResult, match="float32"):
        images.wrong()
    with pytest.raises(InvalidArguments, match="uint8"):
        images.scaled(np.zeros(2), np.float32(2))  # type: ignore[arg-type]  # on purpose
    (service,) = bus.services()
    scaled = next(method for method in service.methods if method.name == "scaled")
    assert scaled.arguments["properties"]["image"] == {"title": "array of uint8"}
    assert scaled.result == {"title": "array of float32"}


# Old and new ------------------------------------------------------------------------------------


class OldJob(msgspec.Struct):
    name: str


class NewJob(msgspec.Struct):
    name: str
    priority: int = 1


class Old:
    def submit(self, job: OldJob) -> OldJob:
        return job

    def count(self, of: str = "all") -> str:
        return of


class New:
    def submit(self, job: NewJob, *, wait: bool = False, labels: tuple[str, ...] = ()) -> NewJob:
        return NewJob(job.name, job.priority + (10 if wait else 0))

    def count(self, of: str = "new", since: datetime | None = None) -> str:
        return of


def serve_jobs(endpoint: shmbus.Endpoint, which: str) -> None:
    endpoint.offer(globals()[which](), "jobs")
    endpoint.run()


@pytest.mark.slow
def test_an_old_and_a_new_process_understand_each_other(
    bus: shmbus.Bus, worker: StartWorker, client: Client
) -> None:
    old = worker(serve_jobs, "Old", name="old")
    client.wait_for("jobs.*")
    new_caller = client.client(New, "jobs", timeout=60)
    assert new_caller.submit(NewJob("a")) == NewJob("a")
    assert new_caller.submit(NewJob("a", 5), wait=True, labels=("x",)) == NewJob("a")
    assert new_caller.count(since=datetime(2020, 1, 1)) == "all"  # the default of who serves
    assert new_caller.count("mine") == "mine"
    old.stop()
    client.wait_for("jobs.*", receivers=0)
    worker(serve_jobs, "New", name="new")
    client.wait_for("jobs.*")
    old_caller = client.client(Old, "jobs", timeout=60)
    assert old_caller.submit(OldJob("b")) == OldJob("b")
    assert old_caller.count() == "new"
    assert new_caller.submit(NewJob("c", 2), wait=True) == NewJob("c", 12)


# Discovery --------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_what_is_offered_can_be_read_without_help_of_the_process(
    server: Server, client: Client
) -> None:
    server.offer(Calculator(), "calc")
    (service,) = client.bus.services()
    assert (service.name, service.endpoint, service.interface) == ("calc", "server", "Calculator")
    methods = {method.name: method for method in service.methods}
    assert list(methods) == dir(client.client(Calculator, "calc"))
    add = methods["add"]
    assert (add.type, add.summary) == ("calc.add", "The sum of two numbers.")
    assert not add.asynchronous
    assert add.arguments == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}},
        "required": ["a"],
    }
    assert add.result == {"type": "integer"}
    move = methods["move"].arguments
    assert move["properties"]["by"]["default"] == [1, 1]
    assert move["$defs"]["Point"]["required"] == ["x"]
    assert methods["echo"].arguments["properties"] == {"value": {"default": None}}
    (some,) = client.bus.services("calc.add")
    assert [method.name for method in some.methods] == ["add"]
    assert client.bus.services("other.>") == []


def test_large_and_many_descriptions_outgrow_the_log_and_go_with_their_service(
    server: Server, client: Client
) -> None:
    fields = [(f"field_{n}", str, "x" * 50) for n in range(40)]
    wide = msgspec.defstruct("Wide", fields)
    huge = msgspec.defstruct("Huge", [(f"field_{n}", str, "x" * 500) for n in range(200)])

    def method(self: object, value: Any) -> int:
        """Takes much."""
        return 1

    method.__annotations__["value"] = wide
    enormous = functools.wraps(method)(lambda self, value: 1)
    enormous.__annotations__ = {**method.__annotations__, "value": huge}
    del enormous.__wrapped__
    body = {f"method_{n}": method for n in range(50)} | {"enormous": enormous}
    many = type("Many", (), body)()
    server.start()
    for _ in range(3):
        with server.offer(many, "many"):
            (service,) = client.bus.services("many.>")
            assert len(service.methods) == 51
            assert service.methods[1].arguments["$defs"]["Wide"]["properties"].keys() == {
                name for name, *_ in fields
            }
            assert service.methods[0].arguments == {}  # too large to be told
            assert client.request("many.method_7", {"value": {}}).payload == 1
            assert client.request("many.enormous", {"value": {}}).payload == 1
        assert client.bus.services("many.>") == []


class Search:
    """Finds points."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def points(self, count: int, *, start: int = 0) -> Iterator[Point]:
        try:
            for x in range(start, start + count):
                yield Point(x)
        finally:
            self.closed.set()

    def letters(self, word: str) -> Iterator[str]:
        return iter(word)

    def wrong(self) -> Iterator[int]:
        yield 1
        yield "two"  # type: ignore[misc]  # on purpose

    def failing(self) -> Iterator[int]:
        yield 1
        raise KeyError("it")


class FindsPoints(Protocol):
    def points(self, count: int) -> Iterator[Point]: ...


@pytest.fixture
def search(server: Server, client: Client) -> Search:
    server.offer(Search(), "search")
    server.start()
    return client.client(Search, "search", timeout=60)


@pytest.mark.smoke
def test_a_method_that_yields_is_an_iterator_of_its_values(search: Search) -> None:
    points = search.points(3, start=5)
    assert next(points) == Point(5)
    assert list(points) == [Point(6), Point(7)]
    assert list(search.points(0)) == []
    assert "".join(search.letters("shared")) == "shared"


def test_a_protocol_says_enough_of_a_method_that_yields(search: Search, client: Client) -> None:
    finds = client.client(FindsPoints, "search")
    assert list(finds.points(2)) == [Point(0), Point(1)]


@pytest.mark.parametrize("drop", [False, True])
def test_closing_or_dropping_the_iterator_closes_the_method(
    server: Server, client: Client, drop: bool
) -> None:
    served = Search()
    server.offer(served, "search")
    server.start()
    points: Any = client.client(Search, "search").points(10_000_000)
    assert next(points) == Point(0)
    if not drop:
        points.close()
    del points
    assert served.closed.wait(10.0)


def test_what_is_wrong_with_a_part_comes_after_those_before_it(search: Search) -> None:
    for parts, error in (
        (search.wrong(), InvalidResult),
        (search.failing(), shmbus.RemoteError),
    ):
        assert next(parts) == 1
        with pytest.raises(error):
            next(parts)
        assert list(parts) == []
    with pytest.raises(InvalidArguments):
        next(search.points("many"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing"):
        search.points()  # type: ignore[call-arg]


def test_the_description_says_that_a_method_yields(server: Server, bus: shmbus.Bus) -> None:
    server.offer(Search(), "search")
    (service,) = bus.services()
    about = {method.name: method for method in service.methods}
    assert about["letters"].streams
    assert about["letters"].result == {"type": "string"}
    assert not about["letters"].asynchronous
