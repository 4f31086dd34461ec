"""A process that hosts one `Completer`: `python -m infill.service.worker`. Messages are pickled values over its pipes.

It ends when its standard input closes: the one who started it is gone. Its own standard output goes to standard error,
so that nothing printed by a library gets between the messages. Must not know of editors.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from engine.errors import Cancelled, GessoError, is_memory_error
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult
from infill.service.worker_messages import Answer, Ask, Cancel, Loading, Ready
from infill.settings import Settings

if TYPE_CHECKING:
    from infill.complete.completion import Completer
    from infill.lint.linter import Linter

logger = logging.getLogger(__name__)
REPORT_S = 0.05  # between two reports of a load


class Worker:
    """Takes requests on one thread (`listen`), works on another (`load`, then `serve`), and only that one sends.

    The newest request goes first, and completions before lint: a lint request that runs when a completion comes is left
    at its next step and begun anew afterwards. What is cancelled while it waits is never begun; neither it nor what is
    left in the middle is answered.
    """

    def __init__(self, inbox: Connection, outbox: Connection) -> None:
        self.inbox, self.outbox = inbox, outbox
        self.waiting: dict[int, InfillRequest] = {}
        self.waiting_lints: dict[int, LintRequest] = {}
        self.wanted: int | None = None  # the request that runs, unless it was cancelled
        self.closed = False
        self.news = threading.Condition()

    def listen(self) -> None:
        """Takes messages until the pipe closes."""
        try:
            while True:
                self._take(self.inbox.recv())
        except (EOFError, OSError):
            with self.news:
                self.closed = True
                self.news.notify()

    def load(self, settings: Settings) -> Completer | None:
        """The model, with reports on the way; None where it cannot be loaded, which is told."""
        self.outbox.send(Loading(0, 0))
        try:
            from infill.complete.completion import Completer
            from infill.complete.loaded_model import LoadedModel

            completer = Completer(LoadedModel.load(settings, self._reporter()), settings)
        except Exception as error:  # whoever waits is told
            self.outbox.send(Ready(str(_told(error, f"The model {settings.model} could not be loaded"))))
            return None
        self.outbox.send(Ready(None, _lints_unasked(completer)))
        return completer

    def serve(self, completer: Completer) -> None:
        """Answers requests until the pipe closes."""
        linter: Linter | None = None
        while (ask := self._next()) is not None:
            result: InfillResult | tuple[Finding, ...] | None = None
            error: GessoError | None = None
            try:
                if isinstance(ask.request, LintRequest):
                    linter = linter or _linter(completer)
                    result = tuple(linter.lint(ask.request, stop=partial(self._is_in_the_way, ask.number)))
                else:
                    result = completer.complete(ask.request, stop=partial(self._is_unwanted, ask.number))
            except Cancelled:
                self._put_back(ask)
                continue
            except Exception as reason:  # one request must not end the service of all others
                if is_memory_error(reason):
                    completer.denoiser.cache.clear()
                error = _told(reason, "The engine failed on this request")
            self.outbox.send(Answer(ask.number, result, error))

    def _take(self, message: object) -> None:
        with self.news:
            if isinstance(message, Ask):
                if isinstance(message.request, LintRequest):
                    self.waiting_lints[message.number] = message.request
                else:
                    self.waiting[message.number] = message.request
            elif isinstance(message, Cancel):
                self.waiting.pop(message.number, None)
                self.waiting_lints.pop(message.number, None)
                if self.wanted == message.number:
                    self.wanted = None
            self.news.notify()

    def _next(self) -> Ask | None:
        with self.news:
            self.news.wait_for(lambda: self.waiting or self.waiting_lints or self.closed)
            if self.closed:
                return None
            number, request = self.waiting.popitem() if self.waiting else self.waiting_lints.popitem()
            self.wanted = number
            return Ask(number, request)

    def _put_back(self, ask: Ask) -> None:
        """A lint request that only made way waits again; those that came meanwhile are newer."""
        with self.news:
            if isinstance(ask.request, LintRequest) and self.wanted == ask.number:
                self.waiting_lints = {ask.number: ask.request, **self.waiting_lints}

    def _is_unwanted(self, number: int) -> bool:
        return self.wanted != number

    def _is_in_the_way(self, number: int) -> bool:
        """Of a lint request."""
        return self._is_unwanted(number) or bool(self.waiting)

    def _reporter(self) -> Callable[[int, int], None]:
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= REPORT_S or done == total:
                last = time.monotonic()
                self.outbox.send(Loading(done, total))

        return report


def main() -> None:
    """Serves on standard input and output until the input closes, which ends the process whatever it is doing."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the one who started it decides
    inbox, outbox = _pipes()
    worker = Worker(inbox, outbox)
    try:
        start = inbox.recv()
        threading.Thread(target=_listen_or_end, args=(worker,), daemon=True).start()
        completer = worker.load(start.settings)
        if completer is not None:
            worker.serve(completer)
    except (EOFError, BrokenPipeError):
        return


def _pipes() -> tuple[Connection, Connection]:
    """What standard input and output were; in their places nothing to read, and standard error to write to."""
    inbox, outbox = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return inbox, outbox


def _linter(completer: Completer) -> Linter:
    from infill.lint.linter import Linter

    return Linter(completer)


def _lints_unasked(completer: Completer) -> bool:
    """Whether the model can tell what looks wrong; where it cannot, it completes all the same."""
    try:
        return _linter(completer).unasked
    except Exception as error:
        logger.warning("%s", _told(error, "The model cannot be used for findings"))
        return False


def _listen_or_end(worker: Worker) -> None:
    """Not by way of the main thread, which may be in the middle of a load."""
    try:
        worker.listen()
    finally:
        os._exit(0)


def _told(error: Exception, trouble: str) -> GessoError:
    """The error as one that a user may see; the log has the whole of one that was not meant for users.

    Its text is left out: it may quote the user's code, and what is told may end up in a report.
    """
    if isinstance(error, GessoError):
        return error
    logger.error("%s:", trouble, exc_info=error)
    if is_memory_error(error):
        return GessoError(
            f"{trouble}, as the memory ran out; close other programs, or choose a smaller model (`gesso doctor` tells "
            "which fits)."
        )
    return GessoError(f"{trouble} ({type(error).__name__}); this is a fault in Gesso, please report it with the log.")


if __name__ == "__main__":
    main()
