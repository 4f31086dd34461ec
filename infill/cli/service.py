"""The service as the commands use it: whether it is asked at all, its loading on the terminal, many rows at once.

Must not know any single command.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from engine.errors import GessoError
from infill.cli.support import byte_progress
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep
from infill.service import client
from infill.service.client import Client, Health, ServiceGone
from infill.service.location import place_at
from infill.service.reach import Reach
from infill.settings import Settings

IN_FLIGHT = 16  # rows that a batch has at the service: two batches of its steps, so that one waits while one runs
ROWS = 64  # that `gesso batch` hands over together; of these, few wait at the end until the last one is done
SERVICE_HELP = "Ask `gesso serve`, started if need be; or load the model here."


def service_for(settings: Settings, wanted: bool | None) -> Service | None:
    """The service with the model of the settings, ready; started where `wanted` is True. None where it is False, or
    where it is None and none runs."""
    if wanted is False or (wanted is None and not _runs(settings.model)):
        return None
    return Service(settings)


def _runs(model: str) -> bool:
    found = client.find_with(place_at(), model)
    with suppress(ServiceGone):
        return found is not None and found.health().status != "failed"
    return False


class Service:
    """Stands where a `Completer` or a `Linter` would; is started again where it ends."""

    def __init__(self, settings: Settings) -> None:
        self._bar = _LoadingBar(settings.model)
        self._reach = Reach(settings, self._bar)
        self._reach.reach()

    @property
    def can_lint(self) -> bool:
        return self._bar.health is not None and self._bar.health.can_lint

    def complete(self, request: InfillRequest, on_step: OnStep | None = None) -> InfillResult:
        return self._reach.ask(lambda service: service.complete(request, on_step))

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        """In the order of the requests, IN_FLIGHT at a time, behind everybody who waits for an answer."""

        def answer(request: InfillRequest) -> InfillResult | GessoError:
            try:
                return self._reach.ask(lambda service: service.complete(request, priority="batch"))
            except ServiceGone:
                raise
            except GessoError as error:
                return error

        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            return list(threads.map(answer, requests))

    def lint(self, request: LintRequest) -> tuple[Finding, ...]:
        """Behind everybody who waits for an answer, editors that lint among them."""
        return self._reach.ask(lambda service: service.lint(request, priority="batch"))


class _LoadingBar:
    """The way to a service on the terminal; a `Watch`. health: of the one that was found last."""

    def __init__(self, model: str) -> None:
        self._bar = byte_progress()
        self._task = self._bar.add_task(f"loading {model}", total=None)
        self.health: Health | None = None

    def loading(self, done: int, total: int) -> None:
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total or None)

    def ready(self, client: Client, health: Health) -> None:
        self._bar.stop()
        self.health = health

    def failed(self, error: GessoError) -> None:
        self._bar.stop()
