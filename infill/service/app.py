"""The HTTP application of the service: a route for each path, and errors in one shape.

Must not know sockets, nor how a request is answered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from engine.errors import GessoError, drop_locals
from infill.api import openai as api_openai
from infill.api import schema as api_schema
from infill.api.http import ClientGone, error_response, error_value
from infill.api.paths import DOCS, HEALTH, METRICS, MODELS, OPENAPI, POSTS, REFUSED, Get, Handler
from infill.engine_protocol import Engine
from infill.service.metrics import CONTENT_TYPE, metrics
from infill.version import installed_version

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(engine: Engine, network: str | None = None) -> Starlette:
    """The application that serves `engine`. network: as in `Health`."""
    created, started = time.time(), time.monotonic()
    gets: dict[Get, Callable[[], Response]] = {
        MODELS: lambda: api_openai.models(engine, created),
        HEALTH: lambda: _health(engine, network),
        METRICS: lambda: PlainTextResponse(metrics(engine, time.monotonic() - started), media_type=CONTENT_TYPE),
        OPENAPI: lambda: JSONResponse(api_schema.description(installed_version())),
        DOCS: lambda: HTMLResponse(api_schema.page(installed_version())),
    }
    routes = [Route(one.path, _post(one.handler, engine), methods=["POST"]) for one in POSTS]
    routes += [Route(path, _post(handler, engine), methods=["POST"]) for path, handler in REFUSED.items()]
    routes += [Route(one.path, _get(respond), methods=["GET"]) for one, respond in gets.items()]
    handlers: dict[Any, Any] = {HTTPException: _http_error}
    return Starlette(routes=routes, exception_handlers=handlers)


def _post(handler: Handler, engine: Engine) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request, engine)
        except (GessoError, ClientGone) as error:
            drop_locals(error)
            return error_response(error)

    return endpoint


def _get(respond: Callable[[], Response]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return respond()

    return endpoint


def _health(engine: Engine, network: str | None) -> Response:
    """See `infill.service.exchange.Health`."""
    state = engine.state
    value = {
        "status": "ok" if state.kind == "ready" else state.kind,
        "model": state.model,
        "done": state.done,
        "total": state.total,
        "message": state.message,
        "can_lint": state.can_lint,
        "lints": state.lints,
        "fallback_model": state.fallback_model,
        "network": network,
        "pending": engine.pending,
        "pid": os.getpid(),
        "version": installed_version(),
    }
    return JSONResponse(value, 200 if state.kind == "ready" else 503)


async def _http_error(request: Request, error: HTTPException) -> Response:
    value = error_value(str(error.detail), "invalid_request_error", error.status_code)
    return JSONResponse(value, error.status_code, error.headers)
