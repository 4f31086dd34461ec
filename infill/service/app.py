"""The routes of the service: which API answers where, and errors in one shape.

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

from engine.errors import GessoError
from infill.api import infill as api_infill
from infill.api import lint as api_lint
from infill.api import llama as api_llama
from infill.api import openai as api_openai
from infill.api import schema as api_schema
from infill.api.http import ClientGone, error_response, error_value
from infill.service.engine import ServiceEngine
from infill.service.metrics import CONTENT_TYPE, metrics
from infill.version import installed_version

Answer = Callable[[Request, ServiceEngine], Awaitable[Response]]
POSTS: dict[str, Answer] = {
    "/v1/infill": api_infill.infill,
    "/v1/lint": api_lint.lint,
    "/v1/completions": api_openai.completions,
    "/v1/fim/completions": api_openai.fim_completions,
    "/infill": api_llama.infill,
}


def make_app(engine: ServiceEngine) -> Starlette:
    """The application that serves `engine`."""
    started, began = time.time(), time.monotonic()
    gets: dict[str, Callable[[], Response]] = {
        "/v1/models": lambda: api_openai.models(engine, started),
        "/health": lambda: _health(engine),
        "/metrics": lambda: PlainTextResponse(metrics(engine, time.monotonic() - began), media_type=CONTENT_TYPE),
        "/openapi.json": lambda: JSONResponse(api_schema.description(installed_version())),
        "/docs": lambda: HTMLResponse(api_schema.page(installed_version())),
    }
    routes = [Route(path, _posted(answer, engine), methods=["POST"]) for path, answer in POSTS.items()]
    routes += [Route(path, _got(answer), methods=["GET"]) for path, answer in gets.items()]
    handlers: dict[Any, Any] = {HTTPException: _http_error}
    return Starlette(routes=routes, exception_handlers=handlers)


def _posted(answer: Answer, engine: ServiceEngine) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await answer(request, engine)
        except (GessoError, ClientGone) as error:
            return error_response(error)

    return endpoint


def _got(answer: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return answer()

    return endpoint


def _health(engine: ServiceEngine) -> Response:
    state = engine.told_state
    value = {
        "status": "ok" if state.kind == "ready" else state.kind,
        "model": state.model,
        "done": state.done,
        "total": state.total,
        "message": state.message,
        "can_lint": state.can_lint,
        "lints": state.lints,
        "meanwhile": state.meanwhile,
        "pending": engine.pending,
        "pid": os.getpid(),
        "version": installed_version(),
    }
    return JSONResponse(value, 200 if state.kind == "ready" else 503)


async def _http_error(request: Request, error: HTTPException) -> Response:
    value = error_value(str(error.detail), "invalid_request_error", error.status_code)
    return JSONResponse(value, error.status_code, error.headers)
