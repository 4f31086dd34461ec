"""What every backend is: asked like a `Completer`, by any thread, with a limit of time.

Must not know any kind of them.
"""

from __future__ import annotations

from typing import Protocol

from engine.errors import GessoError
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult
from infill.service.client import Line


class BackendDown(GessoError):
    """It cannot be reached, or did not answer in time."""


class BackendRefused(GessoError):
    """It answered that it will not, or with what is no answer."""


class Backend(Protocol):
    """timeout_s of its methods: for all of the answer. line: hung up, by any thread, where none is wanted any more.

    Both raise BackendDown, BackendRefused, Cancelled, or InputError for a request that cannot be used.
    """

    name: str

    def complete(self, request: InfillRequest, priority: str, timeout_s: float, line: Line) -> InfillResult: ...

    def lint(self, request: LintRequest, priority: str, timeout_s: float, line: Line) -> tuple[Finding, ...]:
        """BackendRefused where this kind of server cannot."""
        ...
