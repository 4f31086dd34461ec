"""`POST /v1/lint`: what looks wrong in a text, or in some lines of it, each with what should stand there.

Must not know other APIs.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infill.api.http import answered, read
from infill.api.values import LINT, findings_to_json, lint_request_from_json
from infill.engine_protocol import Engine, EngineRequest


async def lint(request: Request, engine: Engine) -> Response:
    """Answers one request."""
    fields = await read(request, LINT)
    asked = EngineRequest(
        lint_request_from_json(fields),
        fields["priority"],
        fields["client"],
        local=fields["local"],
        any_model=fields["any_model"],
    )
    return JSONResponse(findings_to_json(await answered(request, asked, engine.lint(asked))))
