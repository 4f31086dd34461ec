"""`POST /v1/lint`: likely mistakes in a text or in ranges of it, each with its correction.

Must not know other APIs.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infill.api.http import answered, read
from infill.api.values import LintBody, findings_to_json
from infill.engine_protocol import Engine, EngineRequest


async def lint(request: Request, engine: Engine) -> Response:
    """Answers one request."""
    body = await read(request, LintBody)
    engine_request = EngineRequest(
        await asyncio.to_thread(body.request), body.priority, body.client, local=body.local, any_model=body.any_model
    )
    return JSONResponse(findings_to_json(await answered(request, engine_request, engine.lint(engine_request))))
