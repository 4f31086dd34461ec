"""`POST /v1/edit`: a range of a text rewritten as an instruction says.

With "stream", server-sent events as of `/v1/infill`. Must not know other APIs.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infill.api.http import answered, read, streamed
from infill.api.values import EditBody
from infill.engine_protocol import Engine, EngineRequest


async def edit(request: Request, engine: Engine) -> Response:
    """Answers one request."""
    body = await read(request, EditBody)
    engine_request = EngineRequest(
        await asyncio.to_thread(body.request), body.priority, body.client, local=body.local, any_model=body.any_model
    )
    if body.stream:
        return await streamed(request, engine_request, lambda on_step: engine.edit(engine_request, on_step))
    return JSONResponse(asdict(await answered(request, engine_request, engine.edit(engine_request))))
