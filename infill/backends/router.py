"""Where a request is answered: the backends of its route, one after the other, until one has an answer that is good.

One that is down, late or refuses is left alone for a while, so that it does not delay every request. Must not know what
kinds of backends there are, nor what is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from engine.errors import Cancelled, GessoError, InputError
from infill.backends.backend import Backend, BackendDown
from infill.backends.routes import HERE
from infill.service.client import Line

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
REST_S, LONGEST_REST_S = 2.0, 60.0  # after a first failure, and at most; each failure in a row doubles it
AT_ONCE, WAITING = 64, 512  # requests at backends, and with those that wait for their turn
SHARE = 0.5  # of the time that is left, for a backend that is not the last


@dataclass
class _Health:
    failures: int = 0  # in a row
    rests_until: float = 0.0


@dataclass(frozen=True)
class Member:
    """A backend and the time that one answer of it may take."""

    backend: Backend
    timeout_s: float


class Router:
    """counts: by backend and what came of the request: good, poor (it fails the checks), failed, late, resting."""

    def __init__(self, members: Mapping[str, Member], clock: Callable[[], float] = time.monotonic) -> None:
        self.members, self.clock = members, clock
        self.counts: Counter[tuple[str, str]] = Counter()
        self._health = {name: _Health() for name in members}
        self._threads = ThreadPoolExecutor(AT_ONCE, "backend")
        self._lines: set[Line] = set()

    def close(self) -> None:
        """Hangs up on all that is under way."""
        for line in list(self._lines):
            line.hang_up()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self,
        route: Sequence[str],
        here: Callable[[], Awaitable[Answer]],
        there: Callable[[Backend, float, Line], Answer],
        is_good: Callable[[Answer], bool],
        deadline: float,
    ) -> Answer:
        """The first good answer, else the first one at all; raises what the last one raised where there is none.

        here: asks the model of this service. there: asks a backend, on a thread, with its limit in seconds. deadline:
        by `clock`. Where all rest, the last one is asked all the same.
        """
        poor: list[Answer] = []
        trouble: GessoError | None = None
        for index, name in enumerate(route):
            is_last = index == len(route) - 1
            left = deadline - self.clock()
            if self._rests(name) and not (is_last and not poor):
                self.counts[name, "resting"] += 1
                continue
            try:
                share = left if is_last else SHARE * left
                answer = await (here() if name == HERE and is_last else self._asked(name, here, there, share))
            except InputError as error:
                if name == HERE:
                    raise
                trouble = self._failed(name, "failed", error)
            except Cancelled:
                raise
            except BackendDown as error:
                trouble = self._failed(name, "late", error)
            except GessoError as error:
                trouble = self._failed(name, "failed", error)
            else:
                self._recovered(name)
                good = is_good(answer)
                self.counts[name, "good" if good else "poor"] += 1
                if good:
                    return answer
                poor.append(answer)
        if poor:
            return poor[0]
        assert trouble is not None, "a route has a backend, and the last one is asked"
        raise trouble

    async def _asked(
        self,
        name: str,
        here: Callable[[], Awaitable[Answer]],
        there: Callable[[Backend, float, Line], Answer],
        share: float,
    ) -> Answer:
        if name == HERE:
            try:
                return await asyncio.wait_for(_whole(here), max(0.0, share))
            except TimeoutError as late:
                raise BackendDown("The model of the service did not answer in time.") from late
        if len(self._lines) >= WAITING:
            raise BackendDown("Too many requests wait for backends already; ask again in a moment.")
        member, line = self.members[name], Line()
        limit_s = min(member.timeout_s, max(0.001, share))
        self._lines.add(line)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, there, member.backend, limit_s, line)
        except asyncio.CancelledError:
            line.hang_up()
            raise
        finally:
            self._lines.discard(line)

    def _rests(self, name: str) -> bool:
        return name != HERE and self.clock() < self._health[name].rests_until

    def _failed(self, name: str, how: str, error: GessoError) -> GessoError:
        self.counts[name, how] += 1
        if name != HERE:
            health = self._health[name]
            health.failures += 1
            rest_s = min(LONGEST_REST_S, REST_S * 2 ** (health.failures - 1))
            health.rests_until = self.clock() + rest_s
            logger.warning("%s: %s; left alone for %g s", name, type(error).__name__, rest_s)
        return error

    def _recovered(self, name: str) -> None:
        if name != HERE:
            self._health[name] = _Health()


async def _whole(work: Callable[[], Awaitable[Answer]]) -> Answer:
    return await work()
