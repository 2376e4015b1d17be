"""The stand-in core, command by command, seen from a front-end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xi_bridge import core
from xi_bridge.rpc import RpcError

from .front import Front


@pytest.fixture
def front() -> Front:
    return Front()


def holding(text: str) -> Front:
    front = Front()
    front.edit("scroll", [0, 100])
    front.edit("paste", {"chars": text})
    front.edit("move_to_beginning_of_document")
    return front


def test_a_new_view_is_told_its_settings_its_plugins_and_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "hello.py"
    file.write_text("one\ntwo\n")
    front = Front(str(file))
    assert front.view == "view-id-1"
    assert front.cache.text == "one\ntwo\n"
    assert front.is_pristine()
    assert [name for name, _ in front.told] == [
        "available_themes",
        "available_languages",
        "theme_changed",
        "config_changed",
        "available_plugins",
        "language_changed",
        "update",
    ]
    assert front.heard("language_changed") == [{"view_id": "view-id-1", "language_id": "Python"}]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, front: Front) -> None:
    (tmp_path / "latin").write_bytes(b"\xe4")
    for path, code in ((tmp_path, 5), (tmp_path / "latin", 6)):
        with pytest.raises(RpcError) as raised:
            front.ask("new_view", {"file_path": str(path)})
        assert raised.value.code == code
    assert front.ask("new_view", {"file_path": str(tmp_path / "new")}) == "view-id-2"


def test_what_is_saved_is_pristine_and_again_after_an_undo_to_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    front = Front(str(file))
    front.type("a\nb")
    assert not front.is_pristine()
    front.peer.notify("save", {"view_id": front.view, "file_path": str(file)})
    assert file.read_text() == "a\nb\n"
    assert front.is_pristine()
    front.type("c")
    assert not front.is_pristine()
    front.edit("undo")
    assert front.is_pristine()
    assert list(tmp_path.iterdir()) == [file]


def test_a_save_that_fails_is_an_alert_and_the_view_is_not_pristine(front: Front) -> None:
    front.type("a")
    front.peer.notify("save", {"view_id": front.view, "file_path": "/nowhere/file"})
    assert "/nowhere/file could not be saved" in front.heard("alert")[0]["msg"]
    assert not front.is_pristine()


def test_an_edit_sends_only_what_it_changed() -> None:
    front = holding("".join(f"{n}\n" for n in range(1000)))
    front.edit("scroll", [0, 1001])
    front.edit("goto_line", {"line": 500})
    front.told.clear()
    front.type("x")
    ops = front.heard("update")[-1]["update"]["ops"]
    assert [(op["op"], op["n"]) for op in ops] == [
        ("copy", 500),
        ("ins", 1),
        ("skip", 1),
        ("copy", 500),
    ]
    assert front.heard("scroll_to") == [{"view_id": "view-id-1", "line": 500, "col": 1}]
    front.edit("move_up")
    ops = front.heard("update")[-1]["update"]["ops"]
    assert [(op["op"], op["n"]) for op in ops] == [("copy", 499), ("update", 2), ("copy", 500)]
    assert front.cache.carets == [(499, 1)]


def test_lines_beyond_the_window_are_sent_when_they_are_asked_for() -> None:
    front = Front()
    front.edit("paste", {"chars": "\n".join(map(str, range(5000)))})
    front.edit("scroll", [0, 20])
    assert front.cache.missing() == [(22, 5000)]
    front.edit("request_lines", [100, 110])
    assert front.cache.missing() == [(22, 100), (110, 5000)]
    front.edit("scroll", [4000, 4020])
    assert front.cache.missing() == [(0, 3998), (4022, 5000)]


def test_columns_on_the_wire_are_bytes() -> None:
    front = holding("äöü€x")
    front.edit("move_to_end_of_document")
    assert front.cache.carets == [(0, 10)]
    front.select(0, 4)
    front.type("-")
    assert front.contents == "äö-ü€x"
    front.select(0, 3)  # in the middle of ö: before it
    front.type("-")
    assert front.contents == "ä-ö-ü€x"


MOVES = {
    "move_right": (0, 1),
    "move_forward": (0, 1),
    "move_left": (0, 0),
    "move_down": (1, 0),
    "move_word_right": (0, 3),
    "move_to_right_end_of_line": (0, 7),
    "move_to_end_of_paragraph": (0, 7),
    "move_to_end_of_document": (2, 3),
    "scroll_page_down": (2, 3),
}


@pytest.mark.parametrize(("method", "caret"), MOVES.items())
def test_a_movement_leads_there_and_selects_where_it_modifies_the_selection(
    method: str, caret: tuple[int, int]
) -> None:
    front = holding("one two\n\nend")
    front.edit(method)
    assert front.cache.carets == [caret]
    front.edit("move_to_beginning_of_document")
    if method not in ("move_forward", "scroll_page_down"):
        front.edit(f"{method}_and_modify_selection")
        assert front.selected == [[0, 0, *caret]]


def test_up_and_down_keep_to_the_column_across_shorter_lines() -> None:
    front = holding("long line\nx\nanother")
    front.select(0, 5)
    front.edit("move_down")
    assert front.cache.carets == [(1, 1)]
    front.edit("move_down")
    assert front.cache.carets == [(2, 5)]


EDITS = [
    ("ab", "delete_forward", "b"),
    ("one two", "delete_word_forward", " two"),
    ("one\ntwo", "delete_to_end_of_paragraph", "\ntwo"),
    ("one", "insert_tab", "    one"),
    ("one", "insert_newline", "\none"),
    ("one", "indent", "    one"),
    ("    one", "outdent", "one"),
    ("one\ntwo", "duplicate_line", "one\none\ntwo"),
    ("7 x", "increase_number", "8 x"),
    ("-7 x", "decrease_number", "-8 x"),
]


@pytest.mark.parametrize(("before", "method", "after"), EDITS)
def test_an_edit_at_the_beginning_is_made_and_undone(before: str, method: str, after: str) -> None:
    front = holding(before)
    front.edit(method)
    assert front.contents == front.cache.text == after
    front.edit("undo")
    assert front.contents == front.cache.text == before
    front.edit("redo")
    assert front.contents == front.cache.text == after


TAIL_EDITS = [
    ("ab", "delete_backward", "a"),
    ("x\n", "delete_backward", "x"),
    ("      ", "delete_backward", "    "),
    ("one two", "delete_word_backward", "one "),
    ("one two", "delete_to_beginning_of_line", ""),
    ("ab", "transpose", "ba"),
]


@pytest.mark.parametrize(("before", "method", "after"), TAIL_EDITS)
def test_an_edit_at_the_end(before: str, method: str, after: str) -> None:
    front = holding(before)
    front.edit("move_to_end_of_document")
    front.edit(method)
    assert front.contents == front.cache.text == after


@pytest.mark.parametrize(
    ("method", "after"),
    [("uppercase", "ONE two"), ("lowercase", "one two"), ("capitalize", "One two")],
)
def test_what_is_selected_is_transformed_and_stays_selected(method: str, after: str) -> None:
    front = holding("oNe two")
    front.select(0, 1, granularity="word")
    front.edit(method)
    assert front.contents == after
    assert front.selected == [[0, 0, 0, 3]]


def test_copy_and_cut_give_what_is_selected_and_paste_goes_line_by_line_to_many_carets() -> None:
    front = holding("one\ntwo\n")
    assert front.edit_request("copy") is None
    front.edit("add_selection_below")
    front.edit("move_word_right_and_modify_selection")
    assert front.edit_request("copy") == "one\ntwo"
    assert front.edit_request("cut") == "one\ntwo"
    assert front.contents == "\n\n"
    front.edit("paste", {"chars": "1\n2"})
    assert front.contents == "1\n2\n"
    front.edit("collapse_selections")
    front.edit("paste", {"chars": "3\n4"})
    assert front.contents == "13\n4\n2\n"


def test_many_carets_type_at_once_and_undo_restores_them() -> None:
    front = holding("a\nb\nc")
    front.edit("select_all")
    front.edit("selection_into_lines")
    assert len(front.selected) == 3
    front.type("x")
    assert front.contents == "x\nx\nx"
    front.edit("undo")
    assert front.contents == "a\nb\nc"
    assert len(front.selected) == 3


def test_carets_in_one_line_each_type_at_their_own_place() -> None:
    front = holding("abc\nd")
    front.select(0, 1)
    front.select(0, 2, multi=True)
    front.select(1, 1, multi=True)
    front.edit("insert_newline")
    front.type("x")
    assert front.contents == "a\nxb\nxc\nd\nx"
    assert front.cache.carets == [(1, 1), (2, 1), (4, 1)]


def test_a_quote_is_put_around_what_is_selected() -> None:
    front = holding("one")
    front.edit("select_all")
    front.type('"')
    assert front.contents == '"one"'


def test_what_is_typed_in_a_row_is_undone_as_one_and_a_movement_ends_the_row() -> None:
    front = Front()
    for letter in "abc":
        front.type(letter)
    front.edit("move_left")
    front.type("x")
    front.edit("undo")
    assert front.contents == "abc"
    front.edit("undo")
    assert front.contents == ""
    front.edit("undo")
    front.edit("redo")
    assert front.contents == "abc"
    front.type("!")
    front.edit("redo")  # what was undone is no more
    assert front.contents == "abc!"
    front.type("?")
    front.edit("undo")
    assert front.contents == "abc!"


def test_gestures_select_points_words_and_lines_and_drag_extends_by_them() -> None:
    front = holding("one two\nthree four\n")
    front.select(1, 2, granularity="word")
    assert front.selected == [[1, 0, 1, 5]]
    front.edit("gesture", {"line": 1, "col": 8, "ty": "drag"})
    assert front.selected == [[1, 0, 1, 10]]
    front.select(0, 2, granularity="line")
    assert front.selected == [[0, 0, 1, 0]]
    front.select(0, 2)
    front.extend(1, 3)
    assert front.selected == [[0, 2, 1, 3]]
    front.select(0, 0)
    front.select(1, 1, multi=True)
    assert front.cache.carets == [(0, 0), (1, 1)]
    front.select(1, 1, multi=True)
    assert front.cache.carets == [(0, 0)]
    front.edit("click", [0, 1, 0, 2])
    assert front.selected == [[0, 0, 0, 3]]
    front.edit("gesture", {"line": 9, "col": 9, "ty": "point_select"})
    assert front.cache.carets == [(2, 0)]


def test_matches_are_told_kept_up_to_date_and_selected_one_after_the_other() -> None:
    front = holding("one two one\nOne")
    front.edit("find", {"chars": "one", "case_sensitive": False})
    (status,) = front.heard("find_status")[-1]["queries"]
    assert (status["matches"], status["lines"]) == (3, [1, 1, 2])
    assert front.cache.annotations[1]["ranges"] == [[0, 0, 0, 3], [0, 8, 0, 11], [1, 0, 1, 3]]
    front.edit("find_next", {"wrap_around": True})
    assert front.selected == [[0, 0, 0, 3]]
    front.edit("find_next", {"wrap_around": True})
    assert front.selected == [[0, 8, 0, 11]]
    front.edit("find_previous", {})
    assert front.selected == [[0, 0, 0, 3]]
    front.edit("find_previous", {"wrap_around": True})
    assert front.selected == [[1, 0, 1, 3]]
    front.type("none")
    (status,) = front.heard("find_status")[-1]["queries"]
    assert status["lines"] == [1, 1, 2]
    front.edit("find_all")
    assert len(front.selected) == 3
    front.edit("highlight_find", {"visible": False})
    assert len(front.cache.annotations) == 1


def test_words_cases_and_patterns_are_searched_for_and_replaced() -> None:
    front = holding("cat Cat concat")
    front.edit("find", {"chars": "cat", "case_sensitive": True, "whole_words": True})
    front.edit("replace", {"chars": "dog"})
    front.edit("replace_next")
    assert front.contents == "dog Cat concat"
    front.edit(
        "multi_find", {"queries": [{"chars": "[cC]at", "case_sensitive": True, "regex": True}]}
    )
    front.edit("replace_all")
    assert front.contents == "dog dog condog"
    front.edit("find", {"chars": "(", "case_sensitive": True, "regex": True})
    assert front.heard("find_status")[-1]["queries"][0]["matches"] == 0


def test_settings_are_for_all_for_a_language_or_for_a_view(front: Front) -> None:
    front.peer.notify("modify_user_config", {"domain": "general", "changes": {"tab_size": 2}})
    assert front.heard("config_changed")[-1] == {
        "view_id": front.view,
        "changes": {"tab_size": 2},
    }
    override = {"user_override": front.view}
    front.peer.notify("modify_user_config", {"domain": override, "changes": {"tab_size": 8}})
    front.edit("insert_tab")
    assert front.contents == " " * 8
    front.peer.notify("modify_user_config", {"domain": override, "changes": {"tab_size": None}})
    assert front.ask("get_config", {"view_id": front.view})["tab_size"] == 2


def test_the_plugin_colours_lines_in_styles_that_were_defined_before(front: Front) -> None:
    front.type("for ä 12")
    front.peer.notify("plugin", {"command": "start", "view_id": front.view, "plugin_name": "words"})
    assert front.heard("plugin_started") == [{"view_id": front.view, "plugin": "words"}]
    assert [style["id"] for style in front.heard("def_style")] == [2, 3]
    assert front.styles == [(0, 3, 2, 4, 2, 3)]
    params = {"view_id": front.view, "plugin_name": "words"}
    front.peer.notify("plugin", {"method": "stop", "params": params})
    assert front.heard("plugin_stopped") == [{"view_id": front.view, "plugin": "words", "code": 0}]
    assert front.styles == [()]


def test_themes_are_told_and_one_that_is_unknown_is_an_alert(front: Front) -> None:
    front.peer.notify("set_theme", {"theme_name": "base16-eighties.dark"})
    assert front.heard("theme_changed")[-1]["name"] == "base16-eighties.dark"
    front.peer.notify("set_theme", {"theme_name": "nowhere"})
    assert "nowhere" in front.heard("alert")[-1]["msg"]


def test_a_resize_asks_the_front_end_how_wide_characters_are(front: Front) -> None:
    front.edit("resize", {"width": 420, "height": 400})
    assert "8.0 wide" in front.log[-1]
    front.width = 0
    front.edit("resize", {"width": 420, "height": 400})
    assert "no window" in front.heard("alert")[-1]["msg"]


def test_what_was_recorded_is_played_again() -> None:
    front = Front()
    front.edit("toggle_recording", {"recording_name": "greet"})
    front.type("hi")
    front.edit("insert_newline")
    front.edit("toggle_recording", {})
    front.edit("play_recording", {"recording_name": "greet"})
    assert front.contents == "hi\nhi\n"
    front.edit("clear_recording", {"recording_name": "greet"})
    front.edit("play_recording", {"recording_name": "greet"})
    assert front.contents == "hi\nhi\n"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("fly", {}),
        ("edit", {"view_id": "view-id-1", "method": "fly"}),
        ("edit", {"view_id": "view-id-9", "method": "undo"}),
        ("edit", {"view_id": "view-id-1", "method": "insert", "params": {"chars": 5}}),
        ("edit", {"view_id": "view-id-1", "method": "gesture", "params": [1]}),
        ("close_view", {}),
    ],
)
def test_a_call_that_it_does_not_know_is_an_alert_and_an_error_to_who_asks(
    front: Front, method: str, params: dict[str, Any]
) -> None:
    front.peer.notify(method, params)
    assert len(front.heard("alert")) == 1
    with pytest.raises(RpcError) as raised:
        front.ask(method, params)
    assert raised.value.code == -32600
    front.type("still there")
    assert front.cache.text == "still there"


def test_a_view_that_was_closed_is_unknown(front: Front) -> None:
    front.peer.notify("close_view", {"view_id": front.view})
    with pytest.raises(RpcError):
        front.ask("get_config", {"view_id": front.view})


# As a process ------------------------------------------------------------------------------------


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        core.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


@pytest.mark.smoke
def test_it_complains_of_malformed_lines_goes_on_and_ends_with_its_input(
    process: subprocess.Popen[bytes],
) -> None:
    lines = b'nonsense\n[]\n\xff\n{"id":0,"method":"new_view","params":{}}\n'
    answers, complaints = process.communicate(lines, timeout=60)
    assert answers.startswith(b'{"id":0,"result":"view-id-1"}\n')
    assert complaints.count(b"malformed line") == 3
    assert process.returncode == 0


def test_it_ends_quietly_when_nobody_reads_it(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(b'{"method":"client_started","params":{}}\n')
    process.stdin.flush()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""


def test_ctrl_c_ends_it_without_a_traceback(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(b'{"method":"client_started","params":{}}\n')
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT
    assert process.stderr.read() == b""


def test_it_is_started_as_a_module_too() -> None:
    folder = Path(core.__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "xi_bridge.core"], cwd=folder, input=b"", timeout=60, check=True
    )
    assert ran.returncode == 0
