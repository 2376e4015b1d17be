"""The public interface: what is offered where, with whole signatures."""

from __future__ import annotations

import importlib
import inspect

import pytest

import shmbus


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
    ["shmbus", "shmbus.events", "shmbus.views", "shmbus.host", "shmbus.options", "ringbuf"],
)
def test_what_a_module_offers_is_there_documented_and_sorted(module: str) -> None:
    offering = importlib.import_module(module)
    assert offering.__all__ == sorted(offering.__all__)
    for name in offering.__all__:
        offered = getattr(offering, name)
        assert inspect.getdoc(offered) or not callable(offered), name


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
                    assert str(parameter.annotation).startswith("Unpack["), (name, what)
