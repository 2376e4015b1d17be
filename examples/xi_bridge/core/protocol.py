"""The parameters of the calls that a front-end makes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Granularity = Literal["point", "word", "line"]
Lines = tuple[int, int]
"""A range of lines, the last one excluded."""


class Nothing(msgspec.Struct):
    """No parameters; those that are sent all the same are passed over."""


class Chars(msgspec.Struct):
    chars: str


class Select(msgspec.Struct):
    granularity: Granularity
    multi: bool


class SelectExtend(msgspec.Struct):
    granularity: Granularity


class GestureKind(msgspec.Struct):
    select: Select | None = None
    select_extend: SelectExtend | None = None


class Gesture(msgspec.Struct):
    line: int
    col: int
    ty: str | GestureKind


class GotoLine(msgspec.Struct):
    line: int


class Size(msgspec.Struct):
    """In the front-end's units."""

    width: float
    height: float


class FindQuery(msgspec.Struct):
    chars: str
    case_sensitive: bool = False
    regex: bool = False
    whole_words: bool = False
    id: int | None = None


class Queries(msgspec.Struct):
    queries: list[FindQuery]


class FindNext(msgspec.Struct):
    wrap_around: bool = False
    allow_same: bool = False
    modify_selection: Literal["none", "set", "add", "add_removing_current"] = "set"


class CaseSensitive(msgspec.Struct):
    case_sensitive: bool = False


class Visible(msgspec.Struct):
    visible: bool


class Replace(msgspec.Struct):
    chars: str
    preserve_case: bool = False


class Recording(msgspec.Struct):
    recording_name: str | None = None


class EditCall(msgspec.Struct):
    """What `edit` has: a method within a view, and its parameters."""

    view_id: str
    method: str
    params: Any = None


class ClientStarted(msgspec.Struct):
    config_dir: str | None = None
    client_extras_dir: str | None = None


class NewView(msgspec.Struct):
    file_path: str | None = None


class OfView(msgspec.Struct):
    view_id: str


class Save(msgspec.Struct):
    view_id: str
    file_path: str


class SetTheme(msgspec.Struct):
    theme_name: str


class SetLanguage(msgspec.Struct):
    language_id: str
    view_id: str


class ModifyUserConfig(msgspec.Struct):
    domain: str | dict[str, str]
    changes: dict[str, Any]


class Plugin(msgspec.Struct):
    """`start`, `stop` or `plugin_rpc`, named as the documentation does or as XI's source does."""

    method: str | None = None
    command: str | None = None
    params: dict[str, Any] = {}
    view_id: str | None = None
    plugin_name: str | None = None
