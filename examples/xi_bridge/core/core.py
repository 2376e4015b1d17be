"""The core: its views, what it is told and asked, and what it tells."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from xi_bridge.rpc import INTERNAL_ERROR, INVALID_REQUEST, Malformed, Peer, RpcError

from . import config, styles
from .commands import COMMANDS, REQUESTS, Command
from .protocol import (
    ClientStarted,
    EditCall,
    ModifyUserConfig,
    NewView,
    Nothing,
    OfView,
    Plugin,
    Recording,
    Save,
    SetLanguage,
    SetTheme,
)
from .view import View

FILE_ERROR = 5
ENCODING_ERROR = 6


@dataclass
class Open:
    """A view with what the core alone knows of it."""

    view: View
    language: str
    coloured: bool = False
    recording: str | None = None
    recorded: list[EditCall] = field(default_factory=list)


class Core:
    """Takes lines of its front-end's, and gives `write` its own; `log` takes complaints."""

    def __init__(self, write: Callable[[bytes], object], log: Callable[[str], object]) -> None:
        self._peer = Peer(write, self._notified, self._requested)
        self._log = log
        self._settings = config.Settings()
        self._theme = styles.DEFAULT
        self._views: dict[str, Open] = {}
        self._opened = 0
        self._recordings: dict[str, list[EditCall]] = {}

    def receive(self, line: bytes) -> None:
        """Take a line. One that is malformed or fails is complained of, and no more than that."""
        try:
            self._peer.receive(line)
        except Malformed as error:
            self._log(f"malformed line: {error}")
        except Exception:
            self._log(traceback.format_exc())

    # Calls ---------------------------------------------------------------------------------------

    def _notified(self, method: str, params: Any) -> None:
        try:
            do, takes = _NOTIFICATIONS[method]
            do(self, msgspec.convert({} if params is None else params, takes))
        except KeyError:
            self._complain(f"there is no notification {method!r}")
        except (RpcError, msgspec.ValidationError) as error:
            self._complain(f"{method}: {error}")

    def _requested(self, number: int, method: str, params: Any) -> None:
        try:
            do, takes = _REQUESTS[method]
        except KeyError:
            raise RpcError(INVALID_REQUEST, "Invalid request", f"unknown {method!r}") from None
        try:
            do(self, number, msgspec.convert({} if params is None else params, takes))
        except msgspec.ValidationError as error:
            raise RpcError(INVALID_REQUEST, "Invalid request", str(error)) from None
        except RpcError:
            raise
        except Exception as error:
            self._log(traceback.format_exc())
            raise RpcError(INTERNAL_ERROR, f"{type(error).__name__}: {error}") from None

    def _complain(self, message: str) -> None:
        self._log(message)
        self._peer.notify("alert", {"msg": message})

    def _open(self, name: str) -> Open:
        try:
            return self._views[name]
        except KeyError:
            raise RpcError(INVALID_REQUEST, "Invalid request", f"no view {name!r}") from None

    # Views ---------------------------------------------------------------------------------------

    def new_view(self, number: int, params: NewView) -> None:
        content = "" if params.file_path is None else _content(params.file_path)
        self._opened += 1
        name, language = f"view-id-{self._opened}", config.language_of(params.file_path)
        settings = self._settings.of(name, language)
        view = View(name, content, settings, self._peer.notify, styles.plain)
        opened = self._views[name] = Open(view, language)
        self._peer.answer(number, name)
        self._peer.notify("config_changed", {"view_id": name, "changes": settings})
        self._tell_plugins(opened)
        self._peer.notify("language_changed", {"view_id": name, "language_id": language})
        view.show()

    def close_view(self, params: OfView) -> None:
        self._open(params.view_id)
        del self._views[params.view_id]

    def save(self, params: Save) -> None:
        """Beside the file first, then in its place: it is the old one or the new one, whole."""
        view = self._open(params.view_id).view
        if view.config["save_with_newline"]:
            view.end_with_newline()
        path = Path(params.file_path)
        beside = path.with_name(f".{path.name}.{os.getpid()}.xi")
        try:
            beside.write_text(str(view.text), encoding="utf-8", newline="")
            beside.replace(path)
        except (OSError, ValueError) as error:
            self._complain(f"{path} could not be saved: {error}")
        else:
            view.saved_now()
        view.show()

    def get_config(self, number: int, params: OfView) -> None:
        self._peer.answer(number, self._open(params.view_id).view.config)

    def debug_get_contents(self, number: int, params: OfView) -> None:
        self._peer.answer(number, str(self._open(params.view_id).view.text))

    # Editing -------------------------------------------------------------------------------------

    def edit(self, call: EditCall) -> None:
        opened = self._open(call.view_id)
        if call.method in _RECORDING:
            params = msgspec.convert(call.params or {}, Recording)
            _RECORDING[call.method](self, opened, params.recording_name)
        else:
            self._do(opened.view, call, COMMANDS)
            if opened.recording is not None:
                opened.recorded.append(call)
        opened.view.show()
        if call.method == "resize":
            self._measure(opened.view)

    def edit_request(self, number: int, call: EditCall) -> None:
        view = self._open(call.view_id).view
        self._peer.answer(number, self._do(view, call, REQUESTS))
        view.show()

    def _do(self, view: View, call: EditCall, commands: dict[str, Command]) -> object:
        try:
            command = commands[call.method]
        except KeyError:
            raise RpcError(INVALID_REQUEST, "Invalid request", f"unknown {call.method!r}") from None
        params = {} if call.params is None or call.params == [] else call.params
        if command.takes is not Nothing:
            return command.do(view, msgspec.convert(params, command.takes))
        return command.do(view, None)

    def _toggle_recording(self, opened: Open, name: str | None) -> None:
        """Begin one; or end the one that runs, and keep it unless another name is given."""
        if opened.recording is None:
            opened.recording = name
        else:
            if name in (None, opened.recording):
                self._recordings[opened.recording] = opened.recorded
            opened.recording = None
        opened.recorded = []

    def _play_recording(self, opened: Open, name: str | None) -> None:
        for call in self._recordings.get(name or "", []):
            self._do(opened.view, call, COMMANDS)

    def _clear_recording(self, opened: Open, name: str | None) -> None:
        self._recordings.pop(name or "", None)

    def _measure(self, view: View) -> None:
        """Ask how wide a character is, as word wrap would need it."""

        def measured(widths: Any, error: RpcError | None) -> None:
            if error is not None:
                self._complain(f"measure_width: {error}")
            else:
                self._log(f"{view.name}: a character is {widths[0][0]} wide, of {view.size.width}")

        self._peer.request("measure_width", [{"id": 0, "strings": ["0"]}], measured)

    # Settings, themes, plug-ins ------------------------------------------------------------------

    def client_started(self, params: ClientStarted) -> None:
        self._peer.notify("available_themes", {"themes": sorted(styles.THEMES)})
        languages = sorted({config.PLAIN, *config.LANGUAGES.values()})
        self._peer.notify("available_languages", {"languages": languages})
        self._tell_theme()

    def set_theme(self, params: SetTheme) -> None:
        if params.theme_name not in styles.THEMES:
            self._complain(f"there is no theme {params.theme_name!r}")
            return
        self._theme = params.theme_name
        self._tell_theme()

    def set_language(self, params: SetLanguage) -> None:
        opened = self._open(params.view_id)
        opened.language = params.language_id
        told = {"view_id": params.view_id, "language_id": params.language_id}
        self._peer.notify("language_changed", told)
        self._settle(opened)

    def modify_user_config(self, params: ModifyUserConfig) -> None:
        self._settings.change(params.domain, params.changes)
        for opened in self._views.values():
            self._settle(opened)

    def plugin(self, call: Plugin) -> None:
        command = call.method or call.command
        name = call.params.get("plugin_name", call.plugin_name)
        opened = self._open(str(call.params.get("view_id", call.view_id)))
        if command not in ("start", "stop"):
            self._complain(f"plugin: {command!r} is not done by any plug-in here")
        elif name != styles.PLUGIN:
            self._complain(f"there is no plug-in {name!r}")
        elif opened.coloured != (command == "start"):
            self._switch(opened)

    def ignore(self, params: Any) -> None:
        """Tracing: this stand-in has none."""

    def _switch(self, opened: Open) -> None:
        opened.coloured = not opened.coloured
        told: dict[str, Any] = {"view_id": opened.view.name, "plugin": styles.PLUGIN}
        if opened.coloured:
            self._peer.notify("plugin_started", told)
            self._define_styles()
        else:
            self._peer.notify("plugin_stopped", told | {"code": 0})
        opened.view.restyle(styles.coloured if opened.coloured else styles.plain)
        opened.view.show()

    def _settle(self, opened: Open) -> None:
        """Give a view its settings, and tell those that are others now."""
        view = opened.view
        now = self._settings.of(view.name, opened.language)
        changes = {key: value for key, value in now.items() if view.config.get(key) != value}
        view.config = now
        if changes:
            self._peer.notify("config_changed", {"view_id": view.name, "changes": changes})

    def _tell_theme(self) -> None:
        told = {"name": self._theme, "theme": styles.settings(self._theme)}
        self._peer.notify("theme_changed", told)
        if any(opened.coloured for opened in self._views.values()):
            self._define_styles()

    def _define_styles(self) -> None:
        for definition in styles.definitions(self._theme):
            self._peer.notify("def_style", definition)

    def _tell_plugins(self, opened: Open) -> None:
        plugins = [{"name": styles.PLUGIN, "running": opened.coloured}]
        told = {"view_id": opened.view.name, "plugins": plugins}
        self._peer.notify("available_plugins", told)


def _content(path: str) -> str:
    """What a file has; a file that is not there yet is empty."""
    try:
        return Path(path).read_bytes().decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RpcError(FILE_ERROR, str(error)) from None
    except UnicodeDecodeError as error:
        raise RpcError(ENCODING_ERROR, f"{path} is not UTF-8: {error}") from None


_NOTIFICATIONS: dict[str, tuple[Callable[[Core, Any], None], Any]] = {
    "client_started": (Core.client_started, ClientStarted),
    "edit": (Core.edit, EditCall),
    "close_view": (Core.close_view, OfView),
    "save": (Core.save, Save),
    "set_theme": (Core.set_theme, SetTheme),
    "set_language": (Core.set_language, SetLanguage),
    "modify_user_config": (Core.modify_user_config, ModifyUserConfig),
    "plugin": (Core.plugin, Plugin),
    "tracing_config": (Core.ignore, dict[str, Any]),
    "save_trace": (Core.ignore, dict[str, Any]),
}
_REQUESTS: dict[str, tuple[Callable[[Core, int, Any], None], Any]] = {
    "new_view": (Core.new_view, NewView),
    "edit": (Core.edit_request, EditCall),
    "get_config": (Core.get_config, OfView),
    "debug_get_contents": (Core.debug_get_contents, OfView),
}
_RECORDING: dict[str, Callable[[Core, Open, str | None], None]] = {
    "toggle_recording": Core._toggle_recording,
    "play_recording": Core._play_recording,
    "clear_recording": Core._clear_recording,
}
