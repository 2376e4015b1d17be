"""What the fields of a public struct mean, for `help()`.

A field is explained once, by the string below it in the source: editors show that, and so do the
pages of the documentation. Python itself does not keep it, so `help()` of a struct would say
nothing of its fields. A class that is explained here has a docstring that reads those strings
from the source, when somebody asks for it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from types import ModuleType
from typing import Any, SupportsIndex


def meanings(owner: type) -> dict[str, str]:
    """What is said in the source of each annotated field of a class, inherited ones first. Empty
    where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if not any("__annotations__" in vars(each) for each in (base, type(base))):
            continue
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError):
            continue
        assert isinstance(definition, ast.ClassDef)
        for field, text in itertools.pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                meaning = ast.literal_eval(text.value)
                found[ast.unparse(field.target)] = inspect.cleandoc(meaning)
    return found


def explain(*modules: ModuleType) -> None:
    """Let `help()` tell the fields of all structs that these modules offer."""
    for module in modules:
        for name in module.__all__:
            offered = getattr(module, name)
            if isinstance(offered, type) and hasattr(offered, "__struct_fields__"):
                about = vars(offered).get("__doc__")
                if isinstance(about, str):
                    offered.__doc__ = made = _Docstring(about)
                    made.owner = offered


class _Docstring(str):
    """A class's docstring, and after it the fields, once somebody asks for it: as an attribute of
    the class, or, as `help()` does where the class has a metaclass, from its dictionary, to bring
    the lines into shape."""

    owner: type

    @functools.cached_property
    def whole(self) -> str:
        """The docstring with the fields."""
        return f"{inspect.cleandoc(str(self))}\n\n{_fields(self.owner)}".strip()

    def __get__(self, instance: object, owner: type) -> str:
        return self.whole

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str:
        return self.whole.expandtabs(tabsize)


def _fields(owner: type) -> str:
    parameters = inspect.signature(owner).parameters
    parts = ["Fields:"]
    for name, meaning in meanings(owner).items():
        parameter = parameters[name]
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        kind = inspect.get_annotations(owner).get(name, parameter.annotation)
        parts.append(f"{name}: {_written(kind)}{default}\n{textwrap.indent(meaning, '    ')}")
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
