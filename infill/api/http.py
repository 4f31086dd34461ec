"""What the APIs share: bodies read, errors and streams written, and a completion left when its client goes.

Must not know the shape of any API's requests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from engine.errors import GessoError, InputError
from infill.api.fields import Object
from infill.engine_protocol import Busy, Engine, EngineRequest, NotReady
from infill.request import InfillResult, StepView

Answer = TypeVar("Answer")
GONE = 499  # as nginx has it: the client closed the connection; nobody reads this
STEPS_KEPT = 64  # views that wait for a slow reader; more are left out
EVENTS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def read(request: Request, fields: Object) -> dict[str, Any]:
    """The body, checked; raises InputError for what is no such JSON object."""
    try:
        value = json.loads(await request.body())
    except (ValueError, RecursionError) as wrong:
        raise InputError("The body is not valid JSON; send a JSON object in UTF-8.") from wrong
    return fields.read(value, "The request")


def error_response(error: Exception) -> Response:
    """The error in OpenAI's shape; its message is a sentence for the user."""
    if isinstance(error, ClientGone):
        return Response(status_code=GONE)
    status, kind = _status(error)
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse(error_value(str(error), kind, status), status, headers)


def error_value(message: str, kind: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": status, "param": None}}


async def complete(request: Request, engine: Engine, asked: EngineRequest) -> InfillResult:
    """The result, unless the client hangs up first (`answered`)."""
    return await answered(request, asked, engine.complete(asked))


async def answered(request: Request, asked: EngineRequest, work: Coroutine[Any, Any, Answer]) -> Answer:
    """What the engine's `work` for `asked` returns; raises ClientGone, and frees the engine, where the client hangs up
    first."""
    task, watcher = asyncio.create_task(work), asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        if not task.done():
            asked.cancelled.set()
            task.cancel()
        watcher.cancel()


async def steps_and_result(engine: Engine, asked: EngineRequest) -> AsyncIterator[StepView | InfillResult]:
    """The canvas after its steps, in the end the result. Leaving the iteration frees the engine."""
    loop, views = asyncio.get_running_loop(), asyncio.Queue[StepView | None]()

    def on_step(view: StepView) -> None:
        if views.qsize() < STEPS_KEPT:
            loop.call_soon_threadsafe(views.put_nowait, view)

    task = asyncio.create_task(engine.complete(asked, on_step))
    task.add_done_callback(lambda _: views.put_nowait(None))
    try:
        while (view := await views.get()) is not None:
            yield view
        yield await task
    finally:
        asked.cancelled.set()
        task.cancel()


def event(data: Any, name: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


def stream(events: AsyncIterator[str] | Iterable[str]) -> StreamingResponse:
    return StreamingResponse(events, media_type="text/event-stream", headers=EVENTS)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _status(error: Exception) -> tuple[int, str]:
    if isinstance(error, InputError):
        return 400, "invalid_request_error"
    if isinstance(error, NotReady):
        return 503, "unavailable_error"
    if isinstance(error, Busy):
        return 429, "busy_error"
    assert isinstance(error, GessoError)
    return 500, "engine_error"
