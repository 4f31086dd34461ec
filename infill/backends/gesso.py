"""Another Gesso service, on this machine or over the network. Must not know other kinds of servers."""

from __future__ import annotations

import os
import socket

from engine.errors import InputError
from infill.api.values import findings_from_json, lint_request_to_json, request_to_json, result_from_json
from infill.backends.backend import BackendRefused
from infill.backends.remote import Remote
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
        body = {**request_to_json(request), "priority": priority, **self._common}
        response = self.remote.post("/v1/infill", body, timeout_s, connection)
        try:
            return result_from_json(response)
        except InputError as wrong:
            raise self._invalid() from wrong

    def lint(
        self, request: LintRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> tuple[Finding, ...]:
        body = {**lint_request_to_json(request), "priority": priority, **self._common}
        response = self.remote.post("/v1/lint", body, timeout_s, connection)
        try:
            return findings_from_json(response)
        except InputError as wrong:
            raise self._invalid() from wrong

    def _invalid(self) -> BackendRefused:
        return BackendRefused(f"The backend {self.name} is not a Gesso service of this version; update it.")
