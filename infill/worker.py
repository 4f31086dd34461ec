"""A process that hosts one `Completer`: `python -m infill.worker`. Messages are pickled values over its pipes.

It ends when its standard input closes: the one who started it is gone. Its own standard output goes to standard error,
so that nothing printed by a library gets between the messages. Must not know of editors.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

from infill.worker_messages import Answer, Ask, Cancel, Loading, Ready, Start

logger = logging.getLogger(__name__)
REPORT_S = 0.05  # between two reports of a load


class Worker:
    """Takes requests on one thread, works on another; what is cancelled while it waits is never begun."""

    def __init__(self, inbox: Connection, outbox: Connection) -> None:
        self.inbox, self.outbox = inbox, outbox
        self.waiting: OrderedDict[int, Ask] = OrderedDict()
        self.cancelled: set[int] = set()
        self.running: int | None = None
        self.news = threading.Condition()

    def listen(self) -> None:
        """Until the pipe closes; then the whole process ends, whatever it is doing."""
        try:
            while True:
                message = self.inbox.recv()
                with self.news:
                    if isinstance(message, Ask):
                        self.waiting[message.number] = message
                    elif isinstance(message, Cancel):
                        self._cancel(message.number)
                    self.news.notify()
        except (EOFError, OSError):
            os._exit(0)

    def _cancel(self, number: int) -> None:
        if self.waiting.pop(number, None) is not None:
            self.outbox.send(Answer(number, None, None, cancelled=True))
        elif number == self.running:
            self.cancelled.add(number)

    def work(self, start: Start) -> None:
        """Loads the model, then answers what comes, the newest first."""
        from engine.errors import GessoError

        self.outbox.send(Loading(0, 0))
        try:
            from infill.completion import Completer

            completer = Completer.load(start.settings, self._reporter())
        except GessoError as error:
            self.outbox.send(Ready(str(error)))
            return
        except Exception as error:  # noqa: BLE001 - whoever waits is told; the log has the rest
            logger.exception("The model could not be loaded.")
            self.outbox.send(Ready(f"The model could not be loaded ({type(error).__name__}: {error}); see the log."))
            return
        self.outbox.send(Ready(None))
        while True:
            with self.news:
                while not self.waiting:
                    self.news.wait()
                number, ask = self.waiting.popitem()
                self.running = number
            try:
                result = completer.complete(ask.request, partial(self._wanted, number))
                answer = Answer(number, result, None, cancelled=number in self.cancelled)
            except GessoError as error:
                answer = Answer(number, None, error)
            except Exception as error:  # noqa: BLE001 - one request must not end the service of all others
                logger.exception("A request failed.")
                answer = Answer(number, None, GessoError(f"The engine failed ({type(error).__name__}: {error})."))
            with self.news:
                self.running = None
                self.cancelled.discard(number)
            self.outbox.send(answer)

    def _wanted(self, number: int, view: object) -> bool:
        return number not in self.cancelled

    def _reporter(self) -> Callable[[int, int], None]:
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > REPORT_S or done == total:
                last = time.monotonic()
                self.outbox.send(Loading(done, total))

        return report


def main() -> None:
    """Serves on standard input and output until the input closes."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    outbox = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    inbox = Connection(os.dup(0), writable=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        start = inbox.recv()
    except EOFError:
        return
    worker = Worker(inbox, outbox)
    threading.Thread(target=worker.listen, daemon=True).start()
    try:
        worker.work(start)
    except (BrokenPipeError, KeyboardInterrupt):
        pass


if __name__ == "__main__":
    main()
