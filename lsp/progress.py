"""Progress displays of the client, and the one for the loading of a model. Must not know how a model is loaded."""

from __future__ import annotations

import uuid
from typing import Any

from lsprotocol import types

from infill.engine_protocol import EngineState
from infill.printable import one_line


class ProgressDisplay:
    """One `$/progress` of the client; does nothing if the client does not support them.

    server: a pygls server. cancellable: whether the user may cancel the work, as `is_cancelled` then says.
    """

    def __init__(self, server: Any, title: str, percent: int = 0, cancellable: bool = False) -> None:
        self._displays, self._percent, self._token = server.work_done_progress, percent, str(uuid.uuid4())
        window = server.client_capabilities.window
        self._is_supported = bool(window and window.work_done_progress)
        if self._is_supported:
            server.window_work_done_progress_create(types.WorkDoneProgressCreateParams(self._token))
            begin = types.WorkDoneProgressBegin(one_line(title), cancellable=cancellable, percentage=percent)
            self._displays.begin(self._token, begin)

    @property
    def is_cancelled(self) -> bool:
        return self._is_supported and self._displays.tokens[self._token].cancelled()

    def report(self, percent: int, message: str | None = None) -> None:
        """Sends at most one message per percent."""
        if self._is_supported and percent > self._percent:
            self._percent = percent
            self._displays.report(self._token, types.WorkDoneProgressReport(message=message, percentage=percent))

    def end(self, message: str | None = None) -> None:
        """Called once, after all reports."""
        if self._is_supported:
            self._displays.end(
                self._token, types.WorkDoneProgressEnd(message=one_line(message) if message else message)
            )
            del self._displays.tokens[self._token]


class LoadProgress:
    """Shows the loading of the engine's model."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._display: ProgressDisplay | None = None

    def show(self, state: EngineState) -> None:
        """Takes every state of the engine."""
        if state.kind == "loading":
            if self._display is None:
                self._display = ProgressDisplay(self._server, f"Gesso: loading {state.model}", _percent(state))
            else:
                self._display.report(_percent(state))
        elif self._display is not None:
            self._display.end(state.message)
            self._display = None


def _percent(state: EngineState) -> int:
    return int(100 * state.done / state.total) if state.total else 0
