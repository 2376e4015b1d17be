"""What kinds of calls XI's core knows, as far as it matters to who stands between."""

LOOKS = {"find", "multi_find", "highlight_find", "selection_for_find", "replace", "copy"}
LOOKS |= {"selection_for_replace", "request_lines", "request_hover", "toggle_recording"}
"""Edits that change neither text nor selection: they are in no journal."""
OWN = {"scroll", "resize"}
"""Edits that the core is not told of: its window is the whole file, since it serves many."""
BY_TEXT = {"insert", "insert_newline", "insert_tab", "paste", "gesture", "goto_line", "transpose"}
BY_TEXT |= {"select_all", "collapse_selections", "duplicate_line", "selection_into_lines"}
BY_TEXT |= {"uppercase", "lowercase", "capitalize", "indent", "outdent"}
BY_TEXT |= {"increase_number", "decrease_number", "add_selection_above", "add_selection_below"}
ANSWERED_EDITS = {"copy", "cut"}

ANSWERED = {"get_config", "debug_get_contents"}
KEPT = {"set_theme", "modify_user_config"}
"""What a new core is told again."""
PASSED = ANSWERED | KEPT | {"plugin", "set_language"}
"""Calls that the host passes on as they are."""
RETAINED = {"theme_changed", "available_themes", "available_languages"}
"""What late front-ends get, too."""


def by_text(method: str) -> bool:
    """Whether an edit's outcome depends on nothing but text and selection. Only these are done
    again from a journal; after any other, such as `undo`, the journal has a new base."""
    return method in BY_TEXT or method.startswith(("move_", "delete_"))
