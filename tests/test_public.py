"""The public interface: what is offered where, with whole signatures."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
import types

import msgspec
import pytest

import shmbus
from shmbus import fields


@pytest.mark.smoke
def test_an_endpoint_of_a_served_bus_is_attached_with_the_same_arguments() -> None:
    alone = inspect.signature(shmbus.attach)
    served = inspect.signature(shmbus.Bus.attach)
    parameters = dict(alone.parameters)
    del parameters["bus"]
    mine = {name: p for name, p in served.parameters.items() if name != "self"}
    assert list(mine) == list(parameters)
    for name, parameter in parameters.items():
        assert mine[name].default == parameter.default
        assert mine[name].annotation == parameter.annotation
        assert name == "name" or mine[name].kind == parameter.kind
    assert served.return_annotation == alone.return_annotation


@pytest.mark.parametrize(
    "module",
    [
        "shmbus",
        "shmbus.events",
        "shmbus.views",
        "shmbus.host",
        "shmbus.options",
        "shmbus.streams",
        "shmbus.supervisor",
        "ringbuf",
    ],
)
def test_what_a_module_offers_is_there_documented_and_sorted(module: str) -> None:
    offering = importlib.import_module(module)
    assert offering.__all__ == sorted(offering.__all__)
    for name in offering.__all__:
        offered = getattr(offering, name)
        assert inspect.getdoc(offered) or not callable(offered), name


PASSED_ON = {("Executor", "submit"), ("Executor", "submit_with")}
"""What a function of the user's gets."""


@pytest.mark.parametrize(
    "module", ["shmbus", "shmbus.views", "shmbus.host", "shmbus.options", "shmbus.testing"]
)
def test_what_is_offered_takes_named_arguments_only_where_their_names_are_listed(
    module: str,
) -> None:
    offering = importlib.import_module(module)
    for name in offering.__all__:
        offered = getattr(offering, name)
        functions = [(name, offered)] if inspect.isfunction(offered) else []
        if inspect.isclass(offered):
            functions += inspect.getmembers(offered, inspect.isfunction)
        for what, function in functions:
            if what.startswith("_") and what != "__call__":
                continue
            for parameter in inspect.signature(function).parameters.values():
                if parameter.kind == inspect.Parameter.VAR_KEYWORD:
                    listed = str(parameter.annotation).startswith("Unpack[")
                    assert listed or (name, what) in PASSED_ON


STRUCTS = [
    getattr(module, name)
    for module in (shmbus, shmbus.events, shmbus.views)
    for name in module.__all__
    if hasattr(getattr(module, name), "__struct_fields__")
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_help_explains_every_field_of_a_struct(struct: type[msgspec.Struct]) -> None:
    helped = re.sub(r"^ \|(?:  )?", "", pydoc.plain(pydoc.render_doc(struct)), flags=re.MULTILINE)
    shown = inspect.getdoc(struct)
    assert shown is not None
    assert shown in helped
    for field in msgspec.structs.fields(struct):
        assert re.search(rf"^{field.name}: .+\n    \S.+", shown, re.MULTILINE), field.name


def test_help_explains_the_facts_of_an_error_and_its_message_does_not_need_it() -> None:
    shown = inspect.getdoc(shmbus.QueueFull) or ""
    assert "\ndepth: int\n    Bytes waiting in it; of a pool: in use.\n" in shown
    assert "\nseconds: float\n" in shown
    assert str(shmbus.errors.RequestError(type="x")) == "A request ended without a reply."
    assert (
        str(shmbus.errors.NotAccepted()) == "A message was not accepted: no endpoint will get it."
    )


def test_help_of_a_setting_has_its_default_and_all_of_its_explanation() -> None:
    shown = inspect.getdoc(shmbus.Settings) or ""
    assert "Sizes, limits and times" in shown
    assert "\nblock_timeout: float = 1.0\n    Seconds for which a receiver" in shown
    assert "must lose nothing.\n" in shown


def test_a_struct_whose_source_is_not_there_says_what_it_is() -> None:
    module = types.ModuleType("made")
    module.__all__ = ["Made"]  # type: ignore[attr-defined]
    made = msgspec.defstruct("Made", [("one", int)], namespace={"__doc__": "What it is."})
    module.Made = made  # type: ignore[attr-defined]
    fields.explain(module)
    assert inspect.getdoc(made) == "What it is."
