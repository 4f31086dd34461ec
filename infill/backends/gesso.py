"""Another Gesso service, on this machine or over the network. Must not know other kinds of servers."""

from __future__ import annotations

import os
import socket

from engine.errors import InputError
from infill.api.values import findings_from_json, lint_request_to_json, request_to_json, result_from_json
from infill.backends.backend import BackendRefused
from infill.backends.remote import Remote
from infill.complete.prepared import normalized_holes
from infill.connection import CancellableConnection
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult


class GessoBackend:
    """The other service answers with its own model and does not forward the request again."""

    def __init__(self, name: str, remote: Remote) -> None:
        self.name, self.remote = name, remote
        self._common = {"client": f"{socket.gethostname()[:64]}-{os.getuid()}", "local": True}

    def complete(
        self, request: InfillRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> InfillResult:
        holes = normalized_holes(request)
        body = {**request_to_json(request), "priority": priority, **self._common}
        response = self.remote.post("/v1/infill", body, timeout_s, connection)
        try:
            result = result_from_json(response)
        except InputError as wrong:
            raise self._invalid() from wrong
        completions = result.completions
        if tuple(one.hole for one in completions) != holes or not all(one.candidates for one in completions):
            raise self._invalid()
        return result

    def lint(
        self, request: LintRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> tuple[Finding, ...]:
        body = {**lint_request_to_json(request), "priority": priority, **self._common}
        response = self.remote.post("/v1/lint", body, timeout_s, connection)
        try:
            findings = findings_from_json(response)
        except InputError as wrong:
            raise self._invalid() from wrong
        ranges = [range_ for one in findings for range_ in one.ranges]
        if not all(0 <= start <= end <= len(request.text) for start, end in ranges):
            raise self._invalid()
        return findings

    def _invalid(self) -> BackendRefused:
        return BackendRefused(f"The backend {self.name} is not a Gesso service of this version; update it.")
