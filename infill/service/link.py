"""The resident service in the place of a worker process: takes the same messages, and gives the same.

A request is a thread that waits for its answer. Must not know of editors or event loops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from engine.errors import Cancelled, GessoError
from infill.api.values import REQUEST_SETTINGS
from infill.findings import Finding, LintRequest
from infill.request import InfillResult
from infill.service.client import Client, Health, Line, ServiceGone, ServiceNotReady
from infill.service.location import Place
from infill.service.reach import Reach
from infill.service.worker_messages import Answer, Ask, Cancel, FromWorker, Loading, Ready, Start
from infill.settings import Settings


class ServiceLink:
    """tell: called by threads of the link with each message, and with None once no service can be had.

    place: of the service, the user's usual one if None. It is a `Watch` of the way to it.
    """

    def __init__(self, tell: Callable[[FromWorker | None], None], place: Place | None = None) -> None:
        self._tell_all, self._place = tell, place
        self._settings = Settings()
        self._service = Reach(self._settings, self, place, any_model=True)
        self._lines: dict[int, Line] = {}
        self._ended = False

    def start(self) -> None:
        """Looks for the service, and starts it where there is none; returns at once."""
        self._in_background(self._begin)

    def send(self, message: Start | Ask | Cancel) -> None:
        """Returns at once."""
        if isinstance(message, Start):
            self._settings = message.settings
            self._service = Reach(message.settings, self, self._place, any_model=True)
        elif isinstance(message, Ask):
            line = self._lines[message.number] = Line()
            self._in_background(self._serve, message, line)
        elif (asked := self._lines.get(message.number)) is not None:
            asked.hang_up()

    def close(self) -> None:
        """Nothing is told any more. The service stays for others, and ends by itself."""
        self._ended = True
        for line in list(self._lines.values()):
            line.hang_up()

    def end(self) -> None:
        self.close()

    def loading(self, done: int, total: int) -> None:
        if self._ended:
            raise Cancelled("The editor is gone; nobody waits for the model.")
        self._tell(Loading(done, total))

    def ready(self, client: Client, health: Health) -> None:
        """Told again once the model itself is ready, where a smaller one answers meanwhile: that may lint better."""
        if health.status == "loading":
            self._tell(Ready(None, health.lints))
            self._in_background(self._ready_at_last, client, health)
        else:
            self._tell(Ready(None, health.lints, _note(health, health.message)))

    def failed(self, error: GessoError) -> None:
        self._tell(None if isinstance(error, ServiceGone) else Ready(str(error)))

    def _ready_at_last(self, client: Client, before: Health) -> None:
        def leave(done: int, total: int) -> None:
            if self._ended:
                raise Cancelled("The editor is gone; nobody waits for the model.")

        try:
            self._tell(Ready(None, client.wait_until_ready(leave).lints))
        except ServiceNotReady as error:
            self._tell(Ready(None, before.lints, _note(before, str(error))))
        except GessoError:
            return  # nobody waits, or the next request finds out

    def _begin(self) -> None:
        with suppress(GessoError):  # told already
            self._service.reach()

    def _serve(self, ask: Ask, line: Line) -> None:
        """One request from the question to what is told of it."""
        try:
            self._tell(Answer(ask.number, self._service.ask(lambda client: self._asked(client, ask, line)), None))
        except Cancelled:
            return
        except GessoError as error:
            self._tell(Answer(ask.number, None, error))
        finally:
            del self._lines[ask.number]

    def _asked(self, client: Client, ask: Ask, line: Line) -> InfillResult | tuple[Finding, ...]:
        if isinstance(ask.request, LintRequest):
            return client.lint(ask.request, line=line, any_model=True)
        own: dict[str, Any] = {name: getattr(self._settings, name) for name in REQUEST_SETTINGS}
        return client.complete(ask.request, line=line, settings=own, any_model=True)

    def _tell(self, message: FromWorker | None) -> None:
        if not self._ended:
            self._tell_all(message)

    def _in_background(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, name="service", daemon=True).start()


def _note(health: Health, message: str | None) -> str | None:
    return f"{message} Until then {health.meanwhile} answers." if message else None
