"""Whether a command uses the service or loads the model itself, and the service's loading on the terminal.

Must not know any single command.
"""

from __future__ import annotations

from infill.cli.support import byte_progress
from infill.engine_protocol import EngineState, PriorityName
from infill.model_store import resolve
from infill.service.client import ServiceClient
from infill.settings import Settings

BATCH_ROWS = 64  # that `gesso batch` sends together; few of them wait for the last one to finish
SERVICE_HELP = "Use the service, started if needed; or load the model in this process."


def service_for(
    settings: Settings, use_service: bool | None, priority: PriorityName | None = None
) -> ServiceClient | None:
    """A connected client of the service with the model of the settings; None if the command loads the model itself.

    use_service: True starts the service if needed, None uses it only if it runs. Raises ModelError before it starts a
    service for a model that is not on this machine.
    """
    if use_service is False:
        return None
    client = ServiceClient(settings=settings, priority=priority, on_state=_LoadingBar(settings.model))
    if (health := client.find()) is None or health.status == "failed":
        if use_service is None:
            return None
        resolve(settings.model)
    client.connect()
    return client


class _LoadingBar:
    """Shows how much of the model the service has loaded."""

    def __init__(self, model: str) -> None:
        self._bar = byte_progress()
        self._task = self._bar.add_task(f"loading {model}", total=None)

    def __call__(self, state: EngineState) -> None:
        if state.kind == "loading":
            self._bar.start()
            self._bar.update(self._task, completed=state.done, total=state.total or None)
        else:
            self._bar.stop()
