"""An engine that sends requests to backends as the routes say, and answers the others with the engine it holds.

Must not know HTTP, nor kinds of backends.
"""

from __future__ import annotations

import time
from typing import Any

from infill.backends.backend import Backend
from infill.backends.router import BackendRouter
from infill.backends.routes import HERE, RoutedTask, Routes
from infill.code.indentation import expects_block
from infill.code.languages import detect
from infill.connection import CancellableConnection
from infill.edit_request import EditRequest, EditResult
from infill.engine_protocol import (
    Engine,
    EngineRequest,
    EngineState,
    RequestCounts,
    Usage,
    infill_limit_s,
    is_shown,
    lint_limit_s,
)
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep


class RoutedEngine:
    """The `Engine` of `local` and of the backends in `router`."""

    def __init__(self, local: Engine, routes: Routes, router: BackendRouter) -> None:
        self.local, self.routes, self.router = local, routes, router
        local.counts.backends = router.counts

    @property
    def state(self) -> EngineState:
        return self.local.state

    @property
    def counts(self) -> RequestCounts:
        return self.local.counts

    @property
    def pending(self) -> int:
        return self.local.pending

    @property
    def usage(self) -> Usage | None:
        return self.local.usage

    def load(self) -> None:
        self.local.load()

    def close(self) -> None:
        self.router.close()
        self.local.close()

    async def maintain(self) -> None:
        await self.local.maintain()

    def check(self, request: EngineRequest[Any]) -> None:
        if self._route(request) == (HERE,):
            self.local.check(request)

    def tokens(self, text: str) -> list[int]:
        return self.local.tokens(text)

    def text(self, tokens: list[int]) -> str:
        return self.local.text(tokens)

    async def complete(self, request: EngineRequest[InfillRequest], on_step: OnStep | None = None) -> InfillResult:
        """Only the local engine calls `on_step`."""
        infill_request, route = request.request, self._route(request)
        if route == (HERE,):
            return await self.local.complete(request, on_step)

        def ask(backend: Backend, limit_s: float, connection: CancellableConnection) -> InfillResult:
            return backend.complete(infill_request, request.priority, limit_s, connection)

        deadline = time.monotonic() + infill_limit_s(infill_request)
        return await self.router.answer(route, lambda: self.local.complete(request, on_step), ask, is_shown, deadline)

    async def edit(self, request: EngineRequest[EditRequest], on_step: OnStep | None = None) -> EditResult:
        """By the local engine only."""
        return await self.local.edit(request, on_step)

    async def lint(self, request: EngineRequest[LintRequest]) -> tuple[Finding, ...]:
        lint_request, route = request.request, self._route(request)
        if route == (HERE,):
            return await self.local.lint(request)

        def ask(backend: Backend, limit_s: float, connection: CancellableConnection) -> tuple[Finding, ...]:
            return backend.lint(lint_request, request.priority, limit_s, connection)

        deadline = time.monotonic() + lint_limit_s(lint_request)
        return await self.router.answer(route, lambda: self.local.lint(request), ask, lambda _: True, deadline)

    async def read_ahead(self, request: EngineRequest[InfillRequest]) -> int:
        """Only if the local engine is the first to be asked."""
        return await self.local.read_ahead(request) if self._route(request)[0] == HERE else 0

    def _route(self, request: EngineRequest[Any]) -> tuple[str, ...]:
        if request.local or isinstance(request.request, EditRequest) or not self.routes.order:
            return (HERE,)
        return self.routes.of(task_of(request))


def task_of(request: EngineRequest[Any]) -> RoutedTask:
    """The task in the table of routes to which this request belongs."""
    content = request.request
    if isinstance(content, LintRequest):
        return "lint"
    if request.priority == "batch":
        return "batch"
    if not content.holes or any(hole.end > hole.start for hole in content.holes):
        return "edit"
    if content.lines != "auto":
        return "block" if content.lines == "block" else "inline"
    language = content.language or detect(content.path, content.text.partition("\n")[0])
    return "block" if expects_block(content.text, content.holes[0].start, language) else "inline"
