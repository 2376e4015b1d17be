"""What the fields of a public struct or error mean, for `help()`.

A field is explained once, by the string below it in the source: editors show that, and so do the
pages of the documentation. Python itself does not keep it, so `help()` of a struct would say
nothing of its fields. A class that is explained here has a docstring that reads those strings
from the source, when somebody asks for it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import itertools
import sys
import textwrap
from types import ModuleType
from typing import Any, SupportsIndex


def meanings(owner: type) -> dict[str, str]:
    """What is said in the source of each annotated field of a class, inherited ones first. Empty
    where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        definition = _classes(base.__module__).get(base.__qualname__)
        for field, text in itertools.pairwise(definition.body if definition else ()):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                meaning = ast.literal_eval(text.value)
                found[ast.unparse(field.target)] = inspect.cleandoc(meaning)
    return found


@functools.lru_cache(maxsize=8)
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes at the top of a module, or of the modules of a package, by name, as they stand
    in the source."""
    found: dict[str, ast.ClassDef] = {}
    if module.partition(".")[0] != __package__:
        return found
    for name, one in list(sys.modules.items()):
        if f"{name}.".startswith(f"{module}."):
            with contextlib.suppress(OSError):
                body = ast.parse(inspect.getsource(one)).body
                found |= {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    return found


def explain(*modules: ModuleType) -> None:
    """Let `help()` tell the fields of all structs and errors that these modules offer."""
    for module in modules:
        for name in getattr(module, "__all__", vars(module)):
            offered = vars(module).get(name)  # what is imported later is explained then
            if isinstance(offered, type) and any(hasattr(offered, name) for name in _KEPT):
                about = vars(offered).get("__doc__")
                if isinstance(about, str) and not isinstance(about, _Docstring):
                    offered.__doc__ = made = _Docstring(about)
                    made.owner = offered


_KEPT = ("__struct_fields__", "__dataclass_fields__")
"""By which a class with fields is known, of msgspec and of dataclasses."""


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
    about = meanings(owner)
    if not about:
        return ""
    parts = ["Fields:"]
    for name, parameter in inspect.signature(owner).parameters.items():
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        kind = inspect.get_annotations(owner).get(name, parameter.annotation)
        meaning = textwrap.indent(about.get(name, ""), "    ")
        parts.append(f"{name}: {_written(kind)}{default}\n{meaning}".strip())
    return "\n\n".join(parts)


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
