"""A service's engine that sends requests on where the routes say so, and falls back on the next of them.

Must not know HTTP, nor kinds of backends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from infill.backends.backend import Backend
from infill.backends.router import Member, Router
from infill.backends.routes import HERE, NONE, Routes, Task
from infill.code.indentation import expects_block
from infill.code.languages import detect
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep
from infill.service.client import Line
from infill.service.engine import LONGEST_LINT_S, LONGEST_S, Asked, is_shown
from infill.service.fallback import LadderEngine
from infill.settings import Settings


class RoutedEngine(LadderEngine):
    """members: the backends that `routes` name."""

    def __init__(
        self,
        settings: Settings,
        batch: int | None = None,
        routes: Routes = NONE,
        members: Mapping[str, Member] | None = None,
    ) -> None:
        super().__init__(settings, batch)
        self.routes, self.router = routes, Router(members or {})
        self.counts.backends = self.router.counts

    def close(self) -> None:
        self.router.close()
        super().close()

    def check(self, asked: Asked | None = None) -> None:
        if asked is None or self._route(asked) == (HERE,):
            super().check(asked)

    async def complete(self, asked: Asked, on_step: OnStep | None = None) -> InfillResult:
        """As without routes; steps are told where the answer is made here."""
        request, route = asked.request, self._route(asked)
        assert isinstance(request, InfillRequest)
        here = super().complete
        if route == (HERE,):
            return await here(asked, on_step)

        def there(backend: Backend, limit_s: float, line: Line) -> InfillResult:
            return backend.complete(request, asked.priority, limit_s, line)

        longest_s = LONGEST_S if request.deadline_ms is None else min(LONGEST_S, request.deadline_ms / 1000)
        deadline = time.monotonic() + longest_s
        return await self.router.answer(route, lambda: here(asked, on_step), there, is_shown, deadline)

    async def lint(self, asked: Asked) -> tuple[Finding, ...]:
        request, route = asked.request, self._route(asked)
        assert isinstance(request, LintRequest)
        here = super().lint
        if route == (HERE,):
            return await here(asked)

        def there(backend: Backend, limit_s: float, line: Line) -> tuple[Finding, ...]:
            return backend.lint(request, asked.priority, limit_s, line)

        deadline = time.monotonic() + LONGEST_LINT_S
        return await self.router.answer(route, lambda: here(asked), there, lambda _: True, deadline)

    def _route(self, asked: Asked) -> tuple[str, ...]:
        return (HERE,) if asked.local or not self.routes.order else self.routes.of(task_of(asked))


def task_of(asked: Asked) -> Task:
    """What stands in the table of routes for this request."""
    request = asked.request
    if isinstance(request, LintRequest):
        return "lint"
    if asked.priority == "batch":
        return "batch"
    if not request.holes or any(hole.end > hole.start for hole in request.holes):
        return "edit"
    if request.lines != "auto":
        return "block" if request.lines == "block" else "inline"
    language = request.language or detect(request.path, request.text.partition("\n")[0])
    return "block" if expects_block(request.text, request.holes[0].start, language) else "inline"
