"""The way to a service that is kept open: found or started, and found again where it ends, by whichever thread asks.

What a service has not answered before it ended is asked once more, so nothing is lost but time. Must not know what is
asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from engine.errors import GessoError
from infill.service import client
from infill.service.client import Client, Health, ServiceGone, ServiceNotReady
from infill.service.location import Place, place_at
from infill.settings import Settings

Answer = TypeVar("Answer")
TRIES = 3  # of a question that the service ends under: it may be the question's own fault


class Watch(Protocol):
    """Is told what becomes of the search for a service, by the thread that searches."""

    def loading(self, done: int, total: int) -> None:
        """Bytes of the weights; total is 0 while it is not known. What it raises ends the search."""
        ...

    def ready(self, client: Client, health: Health) -> None: ...

    def failed(self, error: GessoError) -> None: ...


class Reach:
    """The service for `settings`, at the user's usual place where `place` is None. For any number of threads.

    any_model: it counts as ready as soon as a smaller model answers meanwhile.
    """

    def __init__(self, settings: Settings, watch: Watch, place: Place | None = None, any_model: bool = False) -> None:
        self._settings, self._watch, self._place, self._any_model = settings, watch, place, any_model
        self._client: Client | None = None
        self._turn = threading.Lock()

    def ask(self, question: Callable[[Client], Answer]) -> Answer:
        """What `question` returns; asked again, at most TRIES times, where the service ended or loads anew."""
        reached = self.reach()
        for _ in range(TRIES - 1):
            try:
                return question(reached)
            except (ServiceGone, ServiceNotReady):
                reached = self.reach(reached)
        return question(reached)

    def reach(self, lost: Client | None = None) -> Client:
        """The service, ready. lost: one that does not answer; only the first who says so looks for another, the rest
        waits for it. Raises ServiceGone where none can be had, ServiceNotReady where its model cannot be loaded."""
        reached = self._client
        if reached is not None and reached is not lost:
            return reached
        with self._turn:
            if self._client is not None and self._client is not lost:
                return self._client
            try:
                self._watch.loading(0, 0)
                found = client.start_with(self._place or place_at(), self._settings.model, arguments(self._settings))
                health = found.wait_until_ready(self._watch.loading, self._any_model)
            except GessoError as error:
                self._watch.failed(error)
                raise
            self._client = found
            self._watch.ready(found, health)
            return found


def arguments(settings: Settings) -> list[str]:
    """Of `gesso serve`, for what a request cannot bring with it; the model is not among them."""
    options = {"--device": settings.device, "--dtype": settings.dtype, "--threads": str(settings.threads)}
    return [part for option in options.items() for part in option]
