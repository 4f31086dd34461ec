"""The protocol of all backends: called like a `Completer`, by any thread, with a time limit.

Must not know any kind of backend.
"""

from __future__ import annotations

from typing import Protocol

from infill.connection import CancellableConnection
from infill.engine_protocol import BackendError
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult


class BackendDown(BackendError):
    """The backend cannot be reached, or did not answer in time."""


class BackendRefused(BackendError):
    """The backend refused the request, or its response is invalid."""


class Backend(Protocol):
    """timeout_s of its methods: for the whole response. connection: any thread may cancel it.

    Both methods raise BackendDown, BackendRefused, Cancelled, or InputError for an invalid request.
    """

    name: str

    def complete(
        self, request: InfillRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> InfillResult: ...

    def lint(
        self, request: LintRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> tuple[Finding, ...]:
        """Raises BackendRefused if this kind of server cannot lint."""
        ...
