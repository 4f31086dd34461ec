"""`POST /v1/infill`: Gesso's own API, with every option of a request and all details of the result.

`POST /v1/read-ahead` takes the same body and only reads the prompt, before it is needed.

With "stream", sends the canvas as server-sent events: `step` after each step, then `result` or `error`. Must not know
other APIs.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infill.api.http import answered, complete, read, streamed
from infill.api.values import InfillBody
from infill.engine_protocol import Engine, EngineRequest


async def infill(request: Request, engine: Engine) -> Response:
    """Answers one request."""
    body = await read(request, InfillBody)
    engine_request = EngineRequest(
        await asyncio.to_thread(body.request), body.priority, body.client, body.settings(), body.local, body.any_model
    )
    if body.stream:
        return await streamed(request, engine_request, lambda on_step: engine.complete(engine_request, on_step))
    return JSONResponse(asdict(await complete(request, engine, engine_request)))


async def read_ahead(request: Request, engine: Engine) -> Response:
    """Reads the prompt of one request, after all completions of other requests."""
    body = await read(request, InfillBody)
    infill_request = await asyncio.to_thread(body.request)
    engine_request = EngineRequest(infill_request, "lint", body.client, body.settings(), body.local, body.any_model)
    encoded = await answered(request, engine_request, engine.read_ahead(engine_request))
    return JSONResponse({"encoded_tokens": encoded})
