"""`POST /v1/infill`: Gesso's own API, with every option of a request and all details of the result.

`POST /v1/read-ahead` takes the same body and only reads the prompt, before it is needed.

With "stream", sends the canvas as server-sent events: `step` after each step, then `result` or `error`. Must not know
other APIs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.errors import GessoError
from infill.api.http import answered, complete, described, event, read, steps_and_result, stream
from infill.api.values import InfillBody
from infill.engine_protocol import Busy, Engine, EngineRequest, NotReady
from infill.request import InfillRequest, StepView


async def infill(request: Request, engine: Engine) -> Response:
    """Answers one request."""
    body = await read(request, InfillBody)
    engine_request = EngineRequest(
        body.request(), body.priority, body.client, body.settings(), body.local, body.any_model
    )
    if body.stream:
        events = _events(engine, engine_request)
        first = await answered(request, engine_request, anext(events))
        return stream(_joined(first, events))
    return JSONResponse(asdict(await complete(request, engine, engine_request)))


async def read_ahead(request: Request, engine: Engine) -> Response:
    """Reads the prompt of one request, after all completions of other requests."""
    body = await read(request, InfillBody)
    engine_request = EngineRequest(body.request(), "lint", body.client, body.settings(), body.local, body.any_model)
    encoded = await answered(request, engine_request, engine.read_ahead(engine_request))
    return JSONResponse({"encoded_tokens": encoded})


async def _events(engine: Engine, engine_request: EngineRequest[InfillRequest]) -> AsyncGenerator[str]:
    """Raises NotReady or Busy before the first event, so that the response has a status of its own."""
    started = False
    try:
        async for one in steps_and_result(engine, engine_request):
            started = True
            yield event(asdict(one), "step" if isinstance(one, StepView) else "result")
    except GessoError as error:
        if not started and isinstance(error, (Busy, NotReady)):
            raise
        yield event(described(error)[1], "error")


async def _joined(first: str, rest: AsyncGenerator[str]) -> AsyncIterator[str]:
    try:
        yield first
        async for one in rest:
            yield one
    finally:
        await rest.aclose()
