"""An engine with a second model, which fills a hole again if the checks refuse the text of the first.

Must not know HTTP, nor what the models are.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from engine.errors import Cancelled, GessoError
from infill.complete.retry import FirstAttempt, better
from infill.edit_request import EditRequest, EditResult
from infill.engine_protocol import (
    Engine,
    EngineRequest,
    EngineState,
    RequestCounts,
    Usage,
    infill_limit_s,
    is_shown,
)
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep
from infill.service.fallback import LOW_BYTES, UnloadableEngine

logger = logging.getLogger(__name__)
GRACE_S = 0.25  # after the deadline, for the best text so far


class RetryEngine:
    """The `Engine` of `main`, with `second` for what the checks refuse.

    shared: whether `second` is a part of `main`, which loads, counts and closes it.
    """

    def __init__(self, main: Engine, second: UnloadableEngine, shared: bool = False) -> None:
        self.main, self.second, self.shared = main, second, shared
        self._problem: str | None = None

    @property
    def state(self) -> EngineState:
        """Its message says why nothing is retried, if the second model is missing."""
        state, second = self.main.state, self.second.state
        problem = second.message if second.kind == "failed" else self._problem
        if state.kind != "ready" or problem is None:
            return state
        return replace(state, message=f"Nothing is retried: {problem}")

    @property
    def counts(self) -> RequestCounts:
        return self.main.counts

    @property
    def pending(self) -> int:
        return self.main.pending + (0 if self.shared else self.second.pending)

    @property
    def usage(self) -> Usage | None:
        return self.main.usage

    def load(self) -> None:
        """The second model last, and only if the GPU's memory is enough for both; the loader refuses it too."""
        self.main.load()
        if self.shared:
            return
        self.second.load()
        free = self.second.free_memory()
        if free is not None and free < LOW_BYTES:
            self._problem = f"the GPU has too little memory for {self.second.state.model} too; choose a smaller model."
            self.second.unload()

    def close(self) -> None:
        self.main.close()
        if not self.shared:
            self.second.close()

    async def maintain(self) -> None:
        await self.main.maintain()

    def check(self, request: EngineRequest[Any]) -> None:
        self.main.check(request)

    def tokens(self, text: str) -> list[int]:
        return self.main.tokens(text)

    def text(self, tokens: list[int]) -> str:
        return self.main.text(tokens)

    async def complete(self, request: EngineRequest[InfillRequest], on_step: OnStep | None = None) -> InfillResult:
        """If the second model fails or is late, the result is that of the first."""
        attempt = FirstAttempt(request.request, on_step)
        first = await self.main.complete(request, attempt.on_step)
        again, second = attempt.retry(first), self.second.state
        if again is None or second.kind != "ready" or second.model == first.model:
            return first
        outcome = "failed"
        try:
            work = self.second.complete(replace(request, request=again), on_step)
            found = await asyncio.wait_for(work, infill_limit_s(again) + GRACE_S)
            outcome = "good" if is_shown(found) else "poor"
            return better(first, found)
        except (Cancelled, asyncio.CancelledError):
            outcome = "cancelled"
            raise
        except TimeoutError:
            outcome = "late"
            return first
        except GessoError as error:
            logger.warning("the retry failed: %s", type(error).__name__)
            return first
        finally:
            self.counts.retries[outcome] += 1

    async def edit(self, request: EngineRequest[EditRequest], on_step: OnStep | None = None) -> EditResult:
        return await self.main.edit(request, on_step)

    async def read_ahead(self, request: EngineRequest[InfillRequest]) -> int:
        return await self.main.read_ahead(request)

    async def lint(self, request: EngineRequest[LintRequest]) -> tuple[Finding, ...]:
        return await self.main.lint(request)
