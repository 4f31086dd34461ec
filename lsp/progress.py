"""Shows the loading of a model in the client's progress display. Must not know how a model is loaded."""

from __future__ import annotations

import uuid
from typing import Any

from lsprotocol import types

from infill.engine_protocol import EngineState


class LoadProgress:
    """Sends `$/progress` while the engine is loading, if the client supports it."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.token: str | None = None
        self.percent = -1

    def show(self, state: EngineState) -> None:
        """Takes the engine's state; sends at most one message per percent."""
        if state.kind == "loading":
            if self.token is None and self._is_supported():
                self._begin(state)
            elif self.token is not None and (percent := _percent(state)) > self.percent:
                self.percent = percent
                self._send(types.WorkDoneProgressReport(percentage=percent))
        elif self.token is not None:
            self._send(types.WorkDoneProgressEnd(message=state.message))
            self.token, self.percent = None, -1

    def _is_supported(self) -> bool:
        window = self.server.client_capabilities.window
        return bool(window and window.work_done_progress)

    def _begin(self, state: EngineState) -> None:
        self.token = str(uuid.uuid4())
        self.server.window_work_done_progress_create(types.WorkDoneProgressCreateParams(self.token))
        title = f"Gesso: loading {state.model}"
        self._send(types.WorkDoneProgressBegin(title=title, percentage=max(0, _percent(state))))

    def _send(self, value: Any) -> None:
        if self.token is not None:
            self.server.protocol.notify(types.PROGRESS, types.ProgressParams(self.token, value))


def _percent(state: EngineState) -> int:
    return int(100 * state.done / state.total) if state.total else 0
