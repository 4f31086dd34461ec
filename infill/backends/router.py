"""Tries the backends of a request's route, one after the other, until one returns a good result.

A backend that is down, late or refuses is skipped for a while, so that it does not delay every request. Must not know
kinds of backends, nor kinds of requests.
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
from infill.backends.backend import Backend, BackendDown, BackendRefused
from infill.backends.routes import HERE
from infill.connection import CancellableConnection

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
AskBackend = Callable[[Backend, float, CancellableConnection], Result]
PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0  # pause after the first failure, and at most; each consecutive failure doubles it
AT_ONCE, MAX_PENDING = 64, 512  # requests at backends, and including those that wait
GRACE_S = 0.1  # for a backend to report that it is late; one that still waits then is left behind
SHARE = 0.5  # of the remaining time, for every backend but the last


@dataclass
class _Health:
    failures: int = 0  # consecutive
    paused_until: float = 0.0


@dataclass(frozen=True)
class Member:
    """A backend and its time limit for one request."""

    backend: Backend
    timeout_s: float


class BackendRouter:
    """counts: by backend and outcome: good, poor (fails the checks), failed, late, resting (skipped)."""

    def __init__(self, members: Mapping[str, Member], clock: Callable[[], float] = time.monotonic) -> None:
        self.members, self.clock = members, clock
        self.counts: Counter[tuple[str, str]] = Counter()
        self._health = {name: _Health() for name in members}
        self._threads = ThreadPoolExecutor(AT_ONCE, "backend")
        self._connections: set[CancellableConnection] = set()

    def close(self) -> None:
        """Cancels all requests."""
        for connection in list(self._connections):
            connection.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self,
        route: Sequence[str],
        ask_local: Callable[[], Awaitable[Result]],
        ask_backend: AskBackend[Result],
        is_good: Callable[[Result], bool],
        deadline: float,
    ) -> Result:
        """The first good result, else the first one; raises the last error if there is none.

        ask_local: asks the service's own model. ask_backend: asks a backend, on a thread, with a time limit in seconds.
        deadline: by `clock`. If all backends are paused, the last one is asked nevertheless.
        """
        poor: list[Result] = []
        last_error: GessoError | None = None
        for index, name in enumerate(route):
            is_last = index == len(route) - 1
            left = deadline - self.clock()
            if self._is_paused(name) and not (is_last and not poor):
                self.counts[name, "resting"] += 1
                continue
            try:
                share = left if is_last else SHARE * left
                result = await (
                    ask_local() if name == HERE and is_last else self._ask(name, ask_local, ask_backend, share)
                )
            except InputError as error:
                if name == HERE:
                    raise
                last_error = self._failed(name, "failed", error)
            except Cancelled:
                raise
            except BackendDown as error:
                last_error = self._failed(name, "late", error)
            except GessoError as error:
                last_error = self._failed(name, "failed", error)
            else:
                self._recovered(name)
                good = is_good(result)
                self.counts[name, "good" if good else "poor"] += 1
                if good:
                    return result
                poor.append(result)
        if poor:
            return poor[0]
        assert last_error is not None, "a route has a backend, and the last one is asked"
        raise last_error

    async def _ask(
        self,
        name: str,
        ask_local: Callable[[], Awaitable[Result]],
        ask_backend: AskBackend[Result],
        limit_s: float,
    ) -> Result:
        if name == HERE:
            try:
                return await asyncio.wait_for(_as_coroutine(ask_local), max(0.0, limit_s))
            except TimeoutError as late:
                raise BackendDown("The model of the service did not answer in time.") from late
        if len(self._connections) >= MAX_PENDING:
            raise BackendDown("Too many requests are waiting for backends; try again in a moment.")
        member, connection = self.members[name], CancellableConnection()
        limit_s = min(member.timeout_s, max(0.001, limit_s))
        self._connections.add(connection)
        try:
            loop = asyncio.get_running_loop()
            result = loop.run_in_executor(self._threads, ask_backend, member.backend, limit_s, connection)
            return await asyncio.wait_for(result, limit_s + GRACE_S)
        except asyncio.CancelledError:
            connection.cancel()
            raise
        except TimeoutError as late:
            connection.cancel()
            raise BackendDown(f"The backend {name} did not answer within {limit_s:.3g} s; change its route.") from late
        except GessoError:
            raise
        except Exception as error:
            message = f"The response of the backend {name} cannot be used ({type(error).__name__}); change its route."
            raise BackendRefused(message) from error
        finally:
            self._connections.discard(connection)

    def _is_paused(self, name: str) -> bool:
        return name != HERE and self.clock() < self._health[name].paused_until

    def _failed(self, name: str, outcome: str, error: GessoError) -> GessoError:
        self.counts[name, outcome] += 1
        if name != HERE:
            health = self._health[name]
            health.failures += 1
            pause_s = min(LONGEST_PAUSE_S, PAUSE_S * 2 ** (health.failures - 1))
            health.paused_until = self.clock() + pause_s
            logger.warning("%s: %s; skipped for %g s", name, type(error).__name__, pause_s)
        return error

    def _recovered(self, name: str) -> None:
        if name != HERE:
            self._health[name] = _Health()


async def _as_coroutine(work: Callable[[], Awaitable[Result]]) -> Result:
    return await work()
