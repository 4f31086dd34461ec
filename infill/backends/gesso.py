"""Another Gesso service, on this machine or over the network. Must not know other kinds of servers."""

from __future__ import annotations

import os
import socket

from engine.errors import InputError
from infill.api.values import findings_from_json, lint_request_to_json, request_to_json, result_from_json
from infill.backends.backend import BackendRefused
from infill.backends.remote import Remote
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult
from infill.service.client import Line


class GessoBackend:
    """Answers with its own model: a request that was sent on is not sent on once more."""

    def __init__(self, name: str, remote: Remote) -> None:
        self.name, self.remote = name, remote
        self._own = {"client": f"{socket.gethostname()[:64]}-{os.getuid()}", "local": True}

    def complete(self, request: InfillRequest, priority: str, timeout_s: float, line: Line) -> InfillResult:
        body = {**request_to_json(request), "priority": priority, **self._own}
        answer = self.remote.post("/v1/infill", body, timeout_s, line)
        try:
            return result_from_json(answer)
        except InputError as wrong:
            raise self._no_answer() from wrong

    def lint(self, request: LintRequest, priority: str, timeout_s: float, line: Line) -> tuple[Finding, ...]:
        body = {**lint_request_to_json(request), "priority": priority, **self._own}
        answer = self.remote.post("/v1/lint", body, timeout_s, line)
        try:
            return findings_from_json(answer)
        except InputError as wrong:
            raise self._no_answer() from wrong

    def _no_answer(self) -> BackendRefused:
        return BackendRefused(
            f"What answers at the backend {self.name} is no Gesso service of a version like this one."
        )
