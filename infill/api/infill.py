"""`POST /v1/infill`: Gesso's own API, with every option of a request and all details of the result.

With "stream", sends the canvas as server-sent events: `step` after each step, then `result` or `error`. Must not know
other APIs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.errors import GessoError
from infill.api.http import complete, error_value, event, read, steps_and_result, stream
from infill.api.values import InfillBody
from infill.request import StepView
from infill.service.engine import Asked, ServiceEngine


async def infill(request: Request, engine: ServiceEngine) -> Response:
    """Answers one request."""
    body = await read(request, InfillBody)
    asked = Asked(body.request(), body.priority, body.client, body.settings(), body.local, body.any_model)
    if body.stream:
        engine.check(asked)
        return stream(_events(engine, asked))
    return JSONResponse(asdict(await complete(request, engine, asked)))


async def _events(engine: ServiceEngine, asked: Asked) -> AsyncIterator[str]:
    try:
        async for one in steps_and_result(engine, asked):
            yield event(asdict(one), "step" if isinstance(one, StepView) else "result")
    except GessoError as error:
        yield event(error_value(str(error), "engine_error", 500), "error")
