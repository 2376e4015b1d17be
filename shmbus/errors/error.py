"""What an error of the bus is: its facts, and the message that is built from them."""

from __future__ import annotations

import dataclasses
from typing import Any, dataclass_transform

from .wording import Wording


@dataclass_transform(kw_only_default=True, eq_default=False)
class BusError(Exception):
    """Anything that went wrong on a bus. Subclasses declare their facts as fields."""

    _by = Wording()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # eq=False keeps exceptions hashable and compared by identity, as `raise ... from` and
        # loggers expect.
        dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)

    def __post_init__(self) -> None:
        self.args = (self._explain(),)

    def _explain(self) -> str:
        """The message: what happened, to whom, and what to do."""
        return str(vars(type(self)).get("__doc__") or type(self).__name__).splitlines()[0]

    def told(self, by: Wording) -> str:
        """The message in other words than those of this package's calls."""
        if type(self) is BusError:  # made by hand, with a plain message
            return str(self)
        self._by = by
        try:
            return self._explain()
        finally:
            del self._by

    @property
    def data(self) -> dict[str, Any]:
        """The facts by name, for logs and JSON."""
        return {name: getattr(self, name) for name in getattr(self, "__dataclass_fields__", ())}

    def __reduce__(self) -> tuple[Any, ...]:
        if type(self) is BusError:  # made by hand, with a plain message
            return BusError, self.args
        return _restore, (type(self), self.data), self.__dict__  # the notes, too


def _restore(error: type[BusError], data: dict[str, Any]) -> BusError:
    return error(**data)
